"""Two shards with the same root holders: what is one's is not taken for the other's."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from tuf.api.metadata import Metadata, Root

from builder.keys import load_key_file, no_passphrase
from builder.published_roots import newer_roots
from builder.root_draft import Draft, parse_draft
from builder.root_metadata import next_root, with_shard
from controller import clock
from manifests.errors import BadRootRotation, BadSetting
from store.folder import FolderStore
from tests.support.process import Genctl
from tests.system.world import bootstrap, documents, ingest, release


def sign(genctl: Genctl, home: str, *holders: str) -> None:
    """Have the home's draft signed and published."""
    shutil.copy(genctl.folder / home / "root_draft.json", genctl.folder / "draft")
    for holder in holders:
        told = genctl("keys", "sign", "draft", "--key", holder).ok().out
        assert f"shard {home}" in told
    genctl("keys", "publish", home, "draft").ok()


@pytest.fixture
def shards(genctl: Genctl) -> Genctl:
    """Homes a and b with the root holders ann and bob, a node of b; a has a second root."""
    for name in ("ann", "bob"):
        genctl("keys", "init", name).ok()
    for home in ("a", "b"):
        roots = ["--root-key=ann.pub", "--root-key=bob.pub"]
        made = ["init", home, "--store", f"s{home}", "--shard", home, "--dimensions", 256]
        genctl(*made, *roots).ok()
        sign(genctl, home, "ann", "bob")
        ingest(genctl, documents(1, 2, home), 5, home)
        release(genctl, home)
    bootstrap(genctl, "n", store="sb", home="b")
    genctl("keys", "rotate", "a", "online").ok()
    sign(genctl, "a", "ann", "bob")
    return genctl


def metadata(genctl: Genctl, store: str) -> Path:
    return genctl.folder / store / "metadata"


def test_a_root_of_another_shard_is_refused_by_writer_and_node(shards: Genctl) -> None:
    stray = metadata(shards, "sb") / "2.root.json"
    shutil.copy(metadata(shards, "sa") / "2.root.json", stray)
    for command in (["keys", "refresh", "b"], ["release", "b"], ["node", "bootstrap", "n"]):
        shards(*command).refused(6, "BadRootRotation", "of shard a")
    assert not (shards.folder / "b" / "root_before.json").exists()
    assert not (shards.folder / "n" / "trust" / "root_history" / "2.root.json").exists()
    stray.unlink()
    shards("keys", "refresh", "b").ok()
    shards("node", "bootstrap", "n").ok()


def without_shard(data: bytes) -> Root:
    root = Metadata[Root].from_bytes(data).signed
    root.unrecognized_fields.clear()
    return root


def test_a_root_without_a_shard_is_followed_and_the_next_one_says_it(shards: Genctl) -> None:
    root = (shards.folder / "b" / "root.json").read_bytes()
    old = Metadata(without_shard(root))
    signers = [load_key_file(shards.folder / name, no_passphrase) for name in ("ann", "bob")]
    for signer in signers:
        old.sign(signer, append=True)
    following = Metadata(with_shard(next_root(old.signed, clock.now()), "b"))
    stray = Metadata(with_shard(next_root(following.signed, clock.now()), "a"))
    silent = Metadata(next_root(following.signed, clock.now()))
    silent.signed.unrecognized_fields.clear()
    for each in (following, stray, silent):
        for signer in signers:
            each.sign(signer, append=True)
    store = FolderStore.create(shards.folder / "other")
    store.put_if_absent("metadata/2.root.json", [following.to_bytes()])
    assert newer_roots(store, old.to_bytes()) == [following.to_bytes()]
    for each in (stray, silent):
        (shards.folder / "other/metadata/3.root.json").write_bytes(each.to_bytes())
        with pytest.raises(BadRootRotation):
            newer_roots(store, old.to_bytes())


def test_a_draft_of_another_shard_than_its_root_is_refused(shards: Genctl) -> None:
    root = Metadata[Root].from_bytes((shards.folder / "b" / "root.json").read_bytes())
    draft = Draft("a", None, Metadata(root.signed))
    with pytest.raises(BadSetting, match="another shard"):
        parse_draft(draft.to_bytes(), "it")
