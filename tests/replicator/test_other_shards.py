"""A node that follows one shard takes neither the root nor the record of another."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from tuf.api.metadata import Metadata, Root

from manifests.errors import BadRootRotation, ManifestIdentityMismatch
from replicator.trust import Surroundings, Trust
from tests.replicator.shards import Shard, signed


def named(shard: Shard, root: bytes, name: str | None) -> bytes:
    """The root, saying which shard it is of."""
    document = Metadata[Root].from_bytes(root).signed
    document.unrecognized_fields = {} if name is None else {"shard": name}
    return signed(document, *shard.keys[Root.type])


def trust(shard: Shard, folder: Path, *, serves: str | None = None) -> Trust:
    around = Surroundings(now=lambda: shard.now)
    return Trust(folder, shard.anchor, replace(around, shard=serves))


@pytest.mark.parametrize("other", ["other", None])
def test_a_root_of_another_shard_is_refused_and_not_kept(tmp_path: Path, other: str | None) -> None:
    shard = Shard()
    shard.anchor = named(shard, shard.anchor, "main")
    trust(shard, tmp_path).refresh(shard.store)
    following = shard.next_root()
    shard.put("2.root.json", named(shard, following, other))
    with pytest.raises(BadRootRotation, match="main"):
        trust(shard, tmp_path).refresh(shard.store)
    assert not (tmp_path / "root_history" / "2.root.json").exists()
    shard.put("2.root.json", named(shard, following, "main"))
    trust(shard, tmp_path).refresh(shard.store)
    assert (tmp_path / "root_history" / "2.root.json").exists()


def test_a_root_that_names_its_shard_follows_on_one_that_does_not(tmp_path: Path) -> None:
    shard = Shard()
    shard.put("2.root.json", named(shard, shard.next_root(), "main"))
    trust(shard, tmp_path).refresh(shard.store)
    shard.put("3.root.json", named(shard, shard.next_root(), "other"))
    with pytest.raises(BadRootRotation):
        trust(shard, tmp_path).refresh(shard.store)


def test_the_record_of_another_shard_is_refused_by_the_root_and_by_what_is_served(
    tmp_path: Path,
) -> None:
    shard = Shard()
    with pytest.raises(ManifestIdentityMismatch, match="main") as caught:
        trust(shard, tmp_path / "a", serves="other").refresh(shard.store)
    assert caught.value.facts == {"shard": "main", "known_shard": "other"}
    trust(shard, tmp_path / "b", serves="main").refresh(shard.store)
    shard.anchor = named(shard, shard.anchor, "other")
    with pytest.raises(ManifestIdentityMismatch):
        trust(shard, tmp_path / "c").refresh(shard.store)
