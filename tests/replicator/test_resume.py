"""What an earlier attempt left, and what rots in place: only what is bad is moved again."""

from __future__ import annotations

import mmap
import os
import random
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from index import verification
from manifests.errors import StoreUnavailable, Unrepairable
from manifests.identifiers import content_id
from replicator import fetch
from replicator.sources import Sources
from replicator.tally import FetchTally
from store.port import Store
from tests.replicator.encoded import EncodedArtifact, encoded_artifact, fetch_from
from tests.replicator.transfers import Clock, store_with, transferring
from tests.support.crashes import count_steps, killed_at
from tests.support.slow_store import SlowStore, failing, healthy

CHUNK_BYTES = 4096


@pytest.fixture(scope="module")
def encoded(tmp_path_factory: pytest.TempPathFactory) -> EncodedArtifact:
    return encoded_artifact(tmp_path_factory.mktemp("encoded"), 200_003, 10, 12)


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> EncodedArtifact:
    return encoded_artifact(tmp_path_factory.mktemp("other"), 200_003, 10, 12, seed=5)


@pytest.fixture(autouse=True, params=[True, False], ids=["direct", "cached"])
def small(
    small_runs: None,
    unhedged: None,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> None:
    """Many runs, written past the page cache or through it."""
    monkeypatch.setattr(fetch, "DIRECT_FROM_BYTES", 1 if request.param else 1 << 40)


def chunks_of(encoded: EncodedArtifact) -> list[tuple[int, int]]:
    """Offset and length of every chunk of the artifact."""
    geometry = encoded.geometry
    return [
        geometry.chunk_source_range(number, chunk)
        for number in range(geometry.k)
        for chunk in range(geometry.chunk_count(number))
    ]


def bad_bytes(encoded: EncodedArtifact, found: bytes) -> int:
    """How many bytes the chunks have that ``found`` does not hold intact."""
    return sum(
        length
        for offset, length in chunks_of(encoded)
        if found[offset : offset + length] != encoded.data[offset : offset + length]
    )


def flipped(data: bytes, *offsets: int) -> bytes:
    body = bytearray(data)
    for offset in offsets:
        body[offset] ^= 0x20
    return bytes(body)


def put_link(path: Path, elsewhere: Path) -> None:
    path.symlink_to(elsewhere)


def put_folder(path: Path, elsewhere: Path) -> None:
    path.mkdir()
    (path / "in it").symlink_to(elsewhere)


def put_pipe(path: Path, _: Path) -> None:
    os.mkfifo(path)


@pytest.mark.parametrize("put", [put_link, put_folder, put_pipe])
def test_what_stands_in_the_place_of_a_file_in_flight_goes_and_nothing_else_is_written(
    encoded: EncodedArtifact, tmp_path: Path, put: Callable[[Path, Path], None]
) -> None:
    precious = tmp_path / "precious"
    precious.write_bytes(b"precious")
    (tmp_path / "incoming").mkdir()
    put(tmp_path / "incoming" / encoded.artifact.blake3, precious)
    fetch_from(encoded.artifact, tmp_path, [store_with(encoded)])
    assert (tmp_path / encoded.artifact.blake3).read_bytes() == encoded.data
    assert precious.read_bytes() == b"precious"


PARTIALS: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda _: b"",
    "one byte": lambda data: data[:1],
    "cut": lambda data: data[:77_777],
    "cut by one byte": lambda data: data[:-1],
    "whole": lambda data: data,
    "longer": lambda data: data + b"more" * 3000,
    "longer and flipped": lambda data: flipped(data, 5) + b"more",
    "one flipped byte": lambda data: flipped(data, 100_000),
    "flipped at both ends": lambda data: flipped(data, 0, len(data) - 1),
    "flipped in every chunk": lambda data: flipped(data, *range(0, len(data), 1000)),
    "a hole in it": lambda data: data[:50_000] + bytes(30_000) + data[80_000:],
    "all zeros": lambda data: bytes(len(data)),
    "zeros and longer": lambda data: bytes(len(data) + 10_000),
    "shifted by a byte": lambda data: b"x" + data[:-1],
}


@pytest.mark.parametrize("partial", PARTIALS.values(), ids=PARTIALS.keys())
def test_row_37_of_a_partial_file_only_the_bad_chunks_are_moved_again(
    encoded: EncodedArtifact, tmp_path: Path, partial: Callable[[bytes], bytes]
) -> None:
    (tmp_path / "incoming").mkdir()
    left = partial(encoded.data)
    (tmp_path / "incoming" / encoded.artifact.blake3).write_bytes(left)
    written: list[int] = []
    tally = fetch_from(encoded.artifact, tmp_path, [encoded.store()], progress=written.append)
    assert (tmp_path / encoded.artifact.blake3).read_bytes() == encoded.data
    moved_bytes = bad_bytes(encoded, left)
    assert tally.fetched_bytes == moved_bytes + encoded.geometry.table_size_bytes
    assert tally.resumed_bytes == len(encoded.data) - moved_bytes
    assert sum(written) == len(encoded.data)
    assert list((tmp_path / "incoming").iterdir()) == []


def test_row_37_a_partial_file_of_another_artifact_counts_for_nothing(
    encoded: EncodedArtifact, other: EncodedArtifact, tmp_path: Path
) -> None:
    (tmp_path / "incoming").mkdir()
    (tmp_path / "incoming" / encoded.artifact.blake3).write_bytes(other.data)
    tally = fetch_from(encoded.artifact, tmp_path, [encoded.store()])
    assert (tmp_path / encoded.artifact.blake3).read_bytes() == encoded.data
    assert tally.resumed_bytes == 0


def test_row_37_any_pattern_of_bad_chunks_is_found(
    encoded: EncodedArtifact, tmp_path: Path
) -> None:
    seed = 37
    print("seed", seed)  # noqa: T201
    chance = random.Random(seed)
    for number in range(25):
        folder = tmp_path / str(number)
        (folder / "incoming").mkdir(parents=True)
        offsets = chance.sample(range(len(encoded.data)), chance.randrange(1, 30))
        left = flipped(encoded.data, *offsets)[: chance.randrange(len(encoded.data))]
        (folder / "incoming" / encoded.artifact.blake3).write_bytes(left)
        tally = fetch_from(encoded.artifact, folder, [encoded.store()])
        assert (folder / encoded.artifact.blake3).read_bytes() == encoded.data
        assert tally.resumed_bytes == len(encoded.data) - bad_bytes(encoded, left)


def test_row_37_a_fetch_killed_before_any_change_to_the_disk_goes_on_from_there(
    encoded: EncodedArtifact, tmp_path: Path
) -> None:
    def fetched(folder: Path) -> FetchTally:
        return fetch_from(encoded.artifact, folder, [encoded.store()])

    (tmp_path / "counted").mkdir()
    total = count_steps(lambda: fetched(tmp_path / "counted"))
    assert total > 20
    whole_bytes = len(encoded.data) + encoded.geometry.table_size_bytes
    for step in range(0, total, 3):
        folder = tmp_path / str(step)
        folder.mkdir()
        assert killed_at(step, lambda: fetched(folder))  # noqa: B023
        target = folder / encoded.artifact.blake3
        partial = folder / "incoming" / encoded.artifact.blake3
        if target.exists():
            assert target.read_bytes() == encoded.data
            continue
        arrived = partial.read_bytes() if partial.exists() else b""
        tally = fetched(folder)
        assert target.read_bytes() == encoded.data
        kept = len(encoded.data) - bad_bytes(encoded, arrived)
        assert tally.resumed_bytes == kept
        assert tally.fetched_bytes <= whole_bytes - kept


def mend(encoded: EncodedArtifact, folder: Path, path: Path, stores: list[Store]) -> FetchTally:
    """Mend the file at ``path`` in place; what that moved."""
    with transferring(folder, Sources([], stores, Clock())) as (fetcher, downloads):
        fetcher.mend_in_place(encoded.artifact, path, lambda _: None)
    return downloads.counting.tally()


def test_row_33_any_pattern_of_rot_is_mended_in_place_by_moving_only_what_is_rotten(
    encoded: EncodedArtifact, tmp_path: Path
) -> None:
    seed = 33
    print("seed", seed)  # noqa: T201
    chance = random.Random(seed)
    path = tmp_path / "artifact"
    path.write_bytes(encoded.data)
    inode = path.stat().st_ino
    for _ in range(25):
        rotten = flipped(
            encoded.data, *chance.sample(range(len(encoded.data)), chance.randrange(1, 40))
        )
        with path.open("r+b") as file:
            file.write(rotten)
        tally = mend(encoded, tmp_path, path, [encoded.store()])
        assert path.read_bytes() == encoded.data
        assert path.stat().st_ino == inode
        assert tally.store_bytes in (
            bad_bytes(encoded, rotten),
            bad_bytes(encoded, rotten) + encoded.geometry.table_size_bytes,
        )
        assert tally.repaired_chunks == 0


def test_row_33_rot_here_and_losses_in_the_store_are_mended_together(
    encoded: EncodedArtifact, tmp_path: Path
) -> None:
    """The store has lost two source symbols, and the same ones are rotten here."""
    path = tmp_path / "artifact"
    geometry = encoded.geometry
    spots = [geometry.chunk_source_range(number, 1).offset + 7 for number in (0, 4, 9)]
    path.write_bytes(flipped(encoded.data, *spots))
    tally = mend(encoded, tmp_path, path, [encoded.store(dict.fromkeys((0, 4)))])
    assert path.read_bytes() == encoded.data
    assert tally.repaired_chunks == 2
    assert tally.store_bytes == geometry.table_size_bytes + 3 * CHUNK_BYTES


def test_row_33_rot_that_cannot_be_mended_leaves_what_is_good(
    encoded: EncodedArtifact, tmp_path: Path
) -> None:
    path = tmp_path / "artifact"
    spots = [encoded.geometry.chunk_source_range(n, 0).offset for n in (0, 1, 2, 3)]
    rotten = flipped(encoded.data, *spots)
    path.write_bytes(rotten)
    with pytest.raises(Unrepairable):
        mend(encoded, tmp_path, path, [encoded.store(dict.fromkeys((0, 1, 2)))])
    assert len(path.read_bytes()) == len(encoded.data)
    assert bad_bytes(encoded, path.read_bytes()) <= bad_bytes(encoded, rotten)
    mend(encoded, tmp_path, path, [encoded.store()])
    assert path.read_bytes() == encoded.data


def test_row_33_who_has_the_file_mapped_never_sees_a_good_byte_change(
    encoded: EncodedArtifact, tmp_path: Path
) -> None:
    path = tmp_path / "artifact"
    rotten = flipped(encoded.data, *range(500, len(encoded.data), 20_000))
    path.write_bytes(rotten)
    wrong: list[int] = []
    is_over = threading.Event()

    def watch(mapped: mmap.mmap) -> None:
        while not is_over.is_set():
            seen = mapped[:]
            if any(
                now not in (right, before)
                for now, right, before in zip(seen, encoded.data, rotten, strict=True)
            ):
                wrong.append(1)

    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapped:
        watcher = threading.Thread(target=watch, args=[mapped])
        watcher.start()
        try:
            mend(encoded, tmp_path, path, [encoded.store(dict.fromkeys((2, 7)))])
        finally:
            is_over.set()
            watcher.join()
        assert mapped[:] == encoded.data
    assert wrong == []


def test_row_33_mending_killed_at_any_write_makes_nothing_worse(
    encoded: EncodedArtifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The threads that BLAKE3 started in this process do not live in a forked child.
    monkeypatch.setattr(verification, "file_id", lambda path: content_id(path.read_bytes()))
    rotten = flipped(encoded.data, *range(500, len(encoded.data), 15_000))
    path = tmp_path / "artifact"
    step = 0
    while True:
        path.write_bytes(rotten)
        store = encoded.store(dict.fromkeys((3, 8)))
        killed = killed_at(step, lambda: mend(encoded, tmp_path, path, [store]))  # noqa: B023
        found = path.read_bytes()
        assert len(found) == len(rotten)
        for offset, length in chunks_of(encoded):
            chunk = found[offset : offset + length]
            assert chunk in (
                encoded.data[offset : offset + length],
                rotten[offset : offset + length],
            )
        if not killed:
            break
        step += 1
    assert found == encoded.data
    assert step > 10


def test_row_50_mending_waits_for_a_store_that_is_away(
    encoded: EncodedArtifact, tmp_path: Path
) -> None:
    path = tmp_path / "artifact"
    path.write_bytes(flipped(encoded.data, 100))
    store = SlowStore(store_with(encoded), lambda r: failing() if r.is_bulk else healthy)
    with pytest.raises(StoreUnavailable):
        mend(encoded, tmp_path, path, [store])
    store.behave = lambda _: healthy
    mend(encoded, tmp_path, path, [store])
    assert path.read_bytes() == encoded.data


def test_a_kept_table_that_is_damaged_is_asked_for_and_replaced(
    encoded: EncodedArtifact, tmp_path: Path
) -> None:
    path = tmp_path / "tables" / encoded.artifact.blake3
    fetch_from(encoded.artifact, tmp_path, [encoded.store()])
    whole = path.read_bytes()
    for damaged in (flipped(whole, 9), whole[:-1], b""):
        path.write_bytes(damaged)
        (tmp_path / encoded.artifact.blake3).unlink()
        fetch_from(encoded.artifact, tmp_path, [encoded.store()])
        assert path.read_bytes() == whole
