"""Rot in one artifact is found wherever it is, and mended where it lies."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from index.residence import Residence
from manifests.errors import DiskError, StoreUnavailable, Unrepairable
from replicator.scrub import ChunkReader, is_intact, mend_artifact
from replicator.sources import Supply
from replicator.tally import FetchTally
from store.memory import MemoryStore
from store.port import Store
from tests.replicator.encoded import EncodedArtifact, encoded_artifact
from tests.support.homes import flip

SIZE_BYTES = 200_001


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> EncodedArtifact:
    return encoded_artifact(tmp_path_factory.mktemp("encoded"), SIZE_BYTES, 10, 12)


@pytest.fixture
def residence(one: EncodedArtifact, tmp_path: Path) -> Residence:
    """A home that holds the artifact and its table."""
    home = Residence(tmp_path / "home")
    mend(one, home, one.store())
    return home


def mend(one: EncodedArtifact, residence: Residence, store: Store) -> FetchTally:
    supply = Supply((), (store,), 4, 1 << 16, time.monotonic)
    incoming = residence.artifacts.parent / "incoming"
    return mend_artifact(residence, one.artifact, supply, incoming, lambda _: None)


def intact(one: EncodedArtifact, residence: Residence, start_bytes: int = 0) -> bool:
    return is_intact(residence, one.artifact, start_bytes, lambda _: None, lambda _: None)


def path_of(one: EncodedArtifact, residence: Residence) -> Path:
    return residence.artifact_path(one.artifact.blake3)


def test_a_whole_artifact_is_read_once_from_end_to_end(
    one: EncodedArtifact, residence: Residence
) -> None:
    taken: list[int] = []
    checked: list[int] = []
    assert is_intact(residence, one.artifact, 0, taken.append, checked.append)
    assert sum(taken) == SIZE_BYTES
    assert max(taken) <= one.geometry.chunk_size_bytes
    assert checked == sorted(checked)
    assert checked[-1] == SIZE_BYTES
    taken.clear()
    middle = checked[len(checked) // 2]
    assert is_intact(residence, one.artifact, middle, taken.append, checked.append)
    assert sum(taken) == SIZE_BYTES - middle


def test_reading_ends_with_the_first_chunk_that_rotted(
    one: EncodedArtifact, residence: Residence
) -> None:
    offset, length = one.geometry.chunk_source_range(4, 0)
    flip(path_of(one, residence), offset)
    taken: list[int] = []
    checked: list[int] = []
    assert not is_intact(residence, one.artifact, 0, taken.append, checked.append)
    assert checked[-1] == offset
    assert sum(taken) == offset + length, "which was read too"


def test_row_33_every_chunk_that_rots_is_found_and_mended_by_reading_it_alone(
    one: EncodedArtifact, residence: Residence
) -> None:
    path = path_of(one, residence)
    inode = path.stat().st_ino
    for number in range(one.geometry.k):
        for chunk in range(one.geometry.chunk_count(number)):
            offset, length = one.geometry.chunk_source_range(number, chunk)
            flip(path, offset + length - 1, 0x01)
            assert not intact(one, residence)
            tally = mend(one, residence, one.store())
            assert (tally.fetched_bytes, tally.repaired_chunks) == (length, 0)
            assert path.read_bytes() == one.data
    assert intact(one, residence)
    assert path.stat().st_ino == inode, "mended in place: whoever has it open sees good bytes"


def test_row_33_rot_is_rebuilt_when_the_store_has_lost_the_same_symbols(
    one: EncodedArtifact, residence: Residence
) -> None:
    flip(path_of(one, residence), 0)
    flip(path_of(one, residence), one.geometry.source_range(5).offset)
    tally = mend(one, residence, one.store({0: None, 5: None}))
    assert tally.repaired_chunks == 2
    assert path_of(one, residence).read_bytes() == one.data


@pytest.mark.parametrize("size_bytes", [0, 1, 100_000, SIZE_BYTES + 1, None])
def test_a_file_of_another_length_or_none_is_fetched_whole(
    one: EncodedArtifact, residence: Residence, size_bytes: int | None
) -> None:
    path = path_of(one, residence)
    path.unlink()
    if size_bytes is not None:
        path.write_bytes((one.data + b"x")[:size_bytes])
    assert not intact(one, residence)
    assert mend(one, residence, one.store()).fetched_bytes == SIZE_BYTES
    assert path.read_bytes() == one.data
    assert intact(one, residence)


@pytest.mark.parametrize("table", [None, b"", b"rot"])
def test_a_lost_or_rotten_table_is_asked_for_and_kept(
    one: EncodedArtifact, residence: Residence, table: bytes | None
) -> None:
    path = residence.tables / one.artifact.blake3
    good = path.read_bytes()
    path.unlink()
    if table is not None:
        path.write_bytes(table)
    assert not intact(one, residence)
    assert mend(one, residence, one.store()).fetched_bytes == len(good)
    assert path.read_bytes() == good
    assert intact(one, residence)


def test_a_bad_sector_is_damage_like_any_other(
    one: EncodedArtifact, residence: Residence, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*_: object) -> int:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patched:
        patched.setattr(os, "preadv", failing)
        assert not intact(one, residence)
    assert intact(one, residence)


def test_a_file_system_without_direct_reads_is_read_the_usual_way(
    one: EncodedArtifact, residence: Residence, monkeypatch: pytest.MonkeyPatch
) -> None:
    really = os.open
    refused = []

    def without_direct(path: Path, flags: int, *more: int) -> int:
        if flags & os.O_DIRECT:
            refused.append(path)
            raise OSError(22, "Invalid argument")
        return really(path, flags, *more)

    monkeypatch.setattr(os, "open", without_direct)
    assert intact(one, residence)
    assert refused
    flip(path_of(one, residence), 7)
    assert not intact(one, residence)


def test_a_file_that_cannot_be_opened_is_a_disk_error(one: EncodedArtifact, tmp_path: Path) -> None:
    from replicator.signed_chunks import SignedChunks

    with pytest.raises(DiskError):
        ChunkReader(SignedChunks(one.artifact, lambda _: b""), tmp_path / "absent")


def test_what_cannot_be_mended_is_no_worse_than_before(
    one: EncodedArtifact, residence: Residence
) -> None:
    path = path_of(one, residence)
    flip(path, 0)
    flip(path, SIZE_BYTES - 1)
    rotten = path.read_bytes()
    with pytest.raises(Unrepairable):
        mend(one, residence, one.store({0: None, 10: None, 11: None}))
    after = path.read_bytes()
    assert after[0] == rotten[0]
    assert after[1:] == one.data[1:], "what could be mended was"
    with pytest.raises((Unrepairable, StoreUnavailable)):
        mend(one, residence, MemoryStore())
    assert path.read_bytes() == after
