"""Every single-byte flip of symbols and their tables: found, and made up for by others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from manifests.errors import Unrepairable
from manifests.names import table_key
from replicator.signed_chunks import SignedChunks
from replicator.tables import kept_table
from replicator.tally import FetchTally
from store.memory import MemoryStore
from tests.replicator.encoded import EncodedArtifact, encoded_artifact, fetch_from
from tests.replicator.transfers import peer_with
from tests.support.flips import flips


@pytest.fixture(scope="module")
def two_of_three(tmp_path_factory: pytest.TempPathFactory) -> EncodedArtifact:
    """Two columns, the last source symbol short: five chunks and their hashes."""
    return encoded_artifact(tmp_path_factory.mktemp("two"), 8_194, 2, 3)


@pytest.fixture(scope="module")
def one_of_two(tmp_path_factory: pytest.TempPathFactory) -> EncodedArtifact:
    return encoded_artifact(tmp_path_factory.mktemp("one"), 300, 1, 2)


def table_of(encoded: EncodedArtifact, number: int) -> bytes:
    offset, length = encoded.geometry.table_range(number)
    assert len(encoded.objects[number]) == offset + length, "nothing comes after the table"
    return encoded.objects[number][offset:]


def with_table(encoded: EncodedArtifact, number: int, table: bytes) -> bytes:
    return encoded.objects[number][: -len(table)] + table


def fetched(encoded: EncodedArtifact, folder: Path, store: MemoryStore, *peers: Any) -> FetchTally:
    """Fetch into ``folder``, as if for the first time; what arrives is the artifact."""
    target = folder / encoded.artifact.blake3
    for path in (target, folder / "tables" / target.name):
        path.unlink(missing_ok=True)
    tally = fetch_from(encoded.artifact, folder, [store], peers)
    assert target.read_bytes() == encoded.data
    return tally


def test_every_flip_of_a_table_is_found_and_made_up_for_by_the_next_symbols(
    two_of_three: EncodedArtifact, tmp_path: Path
) -> None:
    one = two_of_three
    last = one.geometry.m - 1
    for damaged in flips(table_of(one, 0)):
        for number in range(one.geometry.m):
            # Tables are asked for in turn: this one is read if all before it are wrong as well.
            store = one.store({n: with_table(one, n, damaged) for n in range(number + 1)})
            if number < last:
                assert fetched(one, tmp_path, store).damaged_symbols == number + 1
                continue
            (tmp_path / one.artifact.blake3).unlink()
            (tmp_path / "tables" / one.artifact.blake3).unlink()
            with pytest.raises(Unrepairable):
                fetch_from(one.artifact, tmp_path, [store])
            assert not (tmp_path / one.artifact.blake3).exists()


def test_every_flip_of_the_last_table_of_a_small_artifact_is_unrepairable(
    one_of_two: EncodedArtifact, tmp_path: Path
) -> None:
    one = one_of_two
    assert fetched(one, tmp_path, one.store({0: None})).repaired_artifacts == 1
    (tmp_path / one.artifact.blake3).unlink()
    for damaged in flips(table_of(one, 1)):
        (tmp_path / "tables" / one.artifact.blake3).unlink(missing_ok=True)
        with pytest.raises(Unrepairable):
            fetch_from(
                one.artifact, tmp_path, [one.store({0: None, 1: with_table(one, 1, damaged)})]
            )
        assert not (tmp_path / one.artifact.blake3).exists()


def test_row_53_every_flip_of_a_table_that_a_peer_sends_is_a_lie_that_the_store_makes_up_for(
    two_of_three: EncodedArtifact, tmp_path: Path
) -> None:
    one = two_of_three
    for damaged in flips(table_of(one, 0)):
        peer = peer_with(one)
        peer._objects[table_key(one.artifact.blake3)] = damaged
        assert fetched(one, tmp_path, one.store(), peer).corrupt_peers == (peer.url,)


def test_every_flip_of_a_table_on_a_nodes_disk_is_no_table(
    two_of_three: EncodedArtifact, tmp_path: Path
) -> None:
    one = two_of_three
    whole = table_of(one, 0)
    chunks = SignedChunks(one.artifact, lambda _: whole)
    path = tmp_path / one.artifact.blake3
    path.write_bytes(whole)
    assert kept_table(chunks, tmp_path) == whole
    for damaged in flips(whole):
        path.write_bytes(damaged)
        assert kept_table(chunks, tmp_path) is None


def test_every_flip_of_a_symbols_data_is_a_bad_chunk(two_of_three: EncodedArtifact) -> None:
    one = two_of_three
    chunks = SignedChunks(one.artifact, lambda _: table_of(one, 0))
    for number in range(one.geometry.m):
        for chunk in range(one.geometry.chunk_count(number)):
            offset, length = one.geometry.chunk_range(number, chunk)
            whole = one.objects[number][offset : offset + length]
            assert chunks.good(number, chunk, memoryview(whole))
            for damaged in flips(whole):
                assert not chunks.good(number, chunk, memoryview(damaged))
