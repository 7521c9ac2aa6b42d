"""The reads of a transfer: bounded, given back however they end, within the transfer's time."""

from __future__ import annotations

import gc
import random
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from durable.bulk_file import AlignedBuffer
from manifests.errors import (
    BodyMismatch,
    DiskError,
    DiskFull,
    GenctlError,
    StoreUnavailable,
    TransferDeadline,
    Unrepairable,
)
from manifests.names import symbol_key
from replicator import download, fetch
from replicator.download import HEDGES_AT_ONCE
from replicator.reads import Stoppable
from replicator.sources import Sources
from store.memory import MemoryStore
from store.port import UNWATCHED, Store, Transfer
from store.retrying import Backoff, RetryingStore
from tests.replicator.encoded import EncodedArtifact, encoded_artifact, fetch_from
from tests.replicator.transfers import (
    Clock,
    fetch_together,
    peer_with,
    store_with,
    transferring,
)
from tests.support.slow_store import (
    Behaviour,
    Reading,
    SlowStore,
    absent,
    failing,
    healthy,
    lying,
    short,
    stalling,
    torn,
)

pytestmark = pytest.mark.usefixtures("small_runs", "soon_hedged")

CUTS = [(100_003, 10, 12), (70_000, 5, 6), (5_000, 1, 2), (3_000, 1, 2), (41_000, 10, 12)]


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory: pytest.TempPathFactory) -> list[EncodedArtifact]:
    folder = tmp_path_factory.mktemp("artifacts")
    return [encoded_artifact(folder, *cut, seed=seed) for seed, cut in enumerate(CUTS, 1)]


@pytest.mark.parametrize("reads_at_once", [1, 3])
def test_no_more_reads_are_under_way_than_was_said(
    artifacts: list[EncodedArtifact], tmp_path: Path, reads_at_once: int
) -> None:
    asked: set[tuple[str, int]] = set()

    def behave(reading: Reading) -> Behaviour:
        place = (reading.key, reading.offset)
        is_first = reading.is_bulk and place not in asked
        asked.add(place)
        return stalling(500) if is_first else healthy

    store = SlowStore(store_with(*artifacts), behave)
    outcome = fetch_together(artifacts, tmp_path, [store], reads_at_once=reads_at_once)
    assert outcome.errors == {}
    assert store.most_in_flight in range(reads_at_once, reads_at_once + HEDGES_AT_ONCE + 1)
    largest = max(len(reading.buffer) for reading in store.bulk)
    assert largest <= 8192


def test_no_more_memory_is_made_than_reads_may_be_under_way(
    artifacts: list[EncodedArtifact], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = []

    def counted(capacity_bytes: int) -> AlignedBuffer:
        made.append(capacity_bytes)
        return AlignedBuffer(capacity_bytes)

    monkeypatch.setattr(download, "AlignedBuffer", counted)
    store = SlowStore(store_with(*artifacts))
    assert fetch_together(artifacts, tmp_path, [store], reads_at_once=2).errors == {}
    assert 0 < len(made) <= 2 + HEDGES_AT_ONCE


class StoppableStore(MemoryStore):
    """A store whose reads can be stopped while they last."""

    def read_into(
        self, key: str, *, offset: int, buffer: memoryview, transfer: Transfer = UNWATCHED
    ) -> int:
        transfer.stop_by(lambda: None)
        return super().read_into(key, offset=offset, buffer=buffer, transfer=transfer)


def test_memory_is_given_back_when_the_transfer_ends_and_not_some_time_later(
    artifacts: list[EncodedArtifact], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[weakref.ref[AlignedBuffer]] = []

    def counted(capacity_bytes: int) -> AlignedBuffer:
        buffer = AlignedBuffer(capacity_bytes)
        made.append(weakref.ref(buffer))
        return buffer

    store = StoppableStore()
    for each in artifacts:
        for number, body in enumerate(each.objects):
            store.put_if_absent(symbol_key(each.artifact.blake3, number), [body])
    retrying = RetryingStore(store, Backoff(sleep=lambda _: None, jitter=lambda: 0.0))
    monkeypatch.setattr(download, "AlignedBuffer", counted)
    gc.disable()
    try:
        assert fetch_together(artifacts, tmp_path, [retrying], reads_at_once=3).errors == {}
        assert made
        assert [reference() for reference in made] == [None] * len(made)
    finally:
        gc.enable()


def test_row_28_a_store_that_only_stalls_ends_with_the_transfers_deadline(
    artifacts: list[EncodedArtifact], tmp_path: Path
) -> None:
    clock = Clock()

    def stall(reading: Reading) -> None:
        if reading.is_bulk:
            clock.now_s += 10
        stalling(100)(reading)

    store = SlowStore(store_with(*artifacts), lambda reading: stall if reading.is_bulk else healthy)
    outcome = fetch_together(
        artifacts, tmp_path, [store], reads_at_once=2, deadline_s=30, now_s=clock
    )
    assert {type(error) for error in outcome.errors.values()} == {TransferDeadline}
    assert len(outcome.errors) == len(artifacts)
    assert all(reading.stopped for reading in store.bulk)


class SilentTables(MemoryStore):
    """A store that sends data, and nothing when it is asked for a table, until it is stopped."""

    def __init__(self, *artifacts: EncodedArtifact) -> None:
        super().__init__()
        self.asked = threading.Event()
        for each in artifacts:
            for number, body in enumerate(each.objects):
                self.put_if_absent(symbol_key(each.artifact.blake3, number), [body])

    def read_into(
        self, key: str, *, offset: int, buffer: memoryview, transfer: Transfer = UNWATCHED
    ) -> int:
        if type(transfer) is not Stoppable:
            return super().read_into(key, offset=offset, buffer=buffer, transfer=transfer)
        stopped = threading.Event()
        transfer.stop_by(stopped.set)
        self.asked.set()
        assert stopped.wait(60), "nobody ended the read"
        raise TransferDeadline("stopped by its reader")


def test_row_28_a_store_that_is_silent_about_tables_ends_with_the_transfers_deadline(
    artifacts: list[EncodedArtifact], tmp_path: Path
) -> None:
    outcome = fetch_together(artifacts[:1], tmp_path, [SilentTables(artifacts[0])], deadline_s=0.1)
    assert [type(error) for error in outcome.errors.values()] == [TransferDeadline]


def test_row_28_a_transfer_that_is_ended_does_not_wait_for_a_table_and_blames_nobody(
    artifacts: list[EncodedArtifact], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "DEADLINE_CHECK_S", 1000.0)
    (one, *_), store = artifacts, SilentTables(artifacts[0])
    sources = Sources([peer_with()], [store], Clock())
    with (
        transferring(tmp_path, sources, now_s=Clock()) as (fetcher, downloads),
        ThreadPoolExecutor(1) as pool,
    ):
        target = tmp_path / one.artifact.blake3
        fetching = pool.submit(
            fetcher.fetch, one.artifact, tmp_path / "incoming", target, lambda _: None
        )
        assert store.asked.wait(60)
        downloads.stop()
        assert isinstance(fetching.exception(timeout=60), TransferDeadline)
    assert all(sources.may_ask(source) for source in (*sources.peers, *sources.stores))
    assert sources.unavailable() is None


def test_row_28_a_transfer_that_moves_too_slowly_ends_though_every_read_succeeds(
    artifacts: list[EncodedArtifact], tmp_path: Path
) -> None:
    clock = Clock()

    def slow(reading: Reading) -> None:
        healthy(reading)
        clock.now_s += 10

    store = SlowStore(store_with(artifacts[0]), lambda _: slow)
    outcome = fetch_together(
        artifacts[:1], tmp_path, [store], reads_at_once=1, deadline_s=65, now_s=clock
    )
    (error,) = outcome.errors.values()
    assert type(error) is TransferDeadline
    assert "kept" in error.message
    kept = (tmp_path / "incoming" / artifacts[0].artifact.blake3).stat().st_size
    assert kept > 0
    again = fetch_together(artifacts[:1], tmp_path, [store_with(artifacts[0])])
    assert again.errors == {}
    assert again.tally.resumed_bytes in range(kept - 8192, kept + 1)


@pytest.mark.parametrize("reads_at_once", [1, 4])
@pytest.mark.parametrize("error", [DiskFull, DiskError])
def test_row_40_row_41_memory_comes_back_when_the_disk_refuses_one_of_many(
    artifacts: list[EncodedArtifact],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    reads_at_once: int,
    error: type[GenctlError],
) -> None:
    refused = artifacts[0].artifact
    real = fetch._Work._take

    def take(work: fetch._Work, arrived: download.Arrived) -> None:
        if work._chunks.artifact is refused and arrived.run.number == 3:
            raise error("says the test")
        real(work, arrived)

    monkeypatch.setattr(fetch._Work, "_take", take)
    store = SlowStore(store_with(*artifacts))
    outcome = fetch_together(artifacts, tmp_path, [store], reads_at_once=reads_at_once)
    assert {key: type(found) for key, found in outcome.errors.items()} == {refused.blake3: error}
    assert list((tmp_path / "incoming").iterdir()) == []


@pytest.mark.parametrize("reads_at_once", [1, 4])
def test_memory_comes_back_when_no_table_can_be_had(
    artifacts: list[EncodedArtifact], tmp_path: Path, reads_at_once: int
) -> None:
    first = artifacts[0]
    store = store_with(*artifacts[1:])
    for number in range(first.geometry.m):
        store.put_if_absent(
            symbol_key(first.artifact.blake3, number), [first.without_table(number)]
        )
    outcome = fetch_together(artifacts, tmp_path, [store], reads_at_once=reads_at_once)
    found = {key: type(error) for key, error in outcome.errors.items()}
    assert found == {first.artifact.blake3: Unrepairable}


def test_memory_comes_back_when_a_read_meets_a_defect(
    artifacts: list[EncodedArtifact], tmp_path: Path
) -> None:
    def defect(reading: Reading) -> None:
        if reading.number == 4:
            raise ZeroDivisionError
        healthy(reading)

    store = SlowStore(store_with(*artifacts), lambda _: defect)
    with transferring(tmp_path, Sources([], [store], Clock()), reads_at_once=1) as (fetcher, _):
        encoded = artifacts[0]
        with pytest.raises(ZeroDivisionError):
            fetcher.fetch(
                encoded.artifact, tmp_path / "incoming", tmp_path / "target", lambda _: None
            )
        fetcher.fetch(encoded.artifact, tmp_path / "incoming", tmp_path / "target", lambda _: None)
    assert (tmp_path / "target").read_bytes() == encoded.data


def test_a_bad_sector_of_a_folder_store_costs_only_the_chunks_it_is_in(
    artifacts: list[EncodedArtifact], tmp_path: Path
) -> None:
    encoded = artifacts[0]
    bad_key = symbol_key(encoded.artifact.blake3, 2)

    def failing_disk(reading: Reading) -> None:
        end = reading.offset + len(reading.data)
        if reading.is_bulk and reading.key == bad_key and reading.offset <= 5000 < end:
            reading.send(reading.data[: 5000 - reading.offset])
            raise DiskError("says the test")
        healthy(reading)

    store = SlowStore(encoded.store(), lambda _: failing_disk)
    tally = fetch_from(encoded.artifact, tmp_path, [store])
    assert (tmp_path / encoded.artifact.blake3).read_bytes() == encoded.data
    assert (tally.repaired_chunks, tally.damaged_symbols) == (1, 1)


def test_row_50_row_52_a_breaker_that_is_open_is_not_a_loss(
    artifacts: list[EncodedArtifact], tmp_path: Path
) -> None:
    """What is not asked because it failed for another artifact is unavailable, too."""
    store = SlowStore(store_with(*artifacts), lambda _: failing())
    sources = Sources([], [store], Clock())
    with transferring(tmp_path, sources, reads_at_once=1) as (fetcher, downloads):
        for encoded in artifacts:
            with pytest.raises(StoreUnavailable):
                fetcher.fetch(
                    encoded.artifact, tmp_path / "incoming", tmp_path / "t", lambda _: None
                )
    assert downloads.counting.tally().damaged_symbols == 0
    assert len(store.readings) <= 6, "a store that fails is left alone for a while"


def test_row_30_a_peer_that_is_away_does_not_make_a_loss_look_passing(
    artifacts: list[EncodedArtifact], tmp_path: Path
) -> None:
    encoded = artifacts[0]
    peer = SlowStore(peer_with(encoded), lambda _: failing())
    store = encoded.store(dict.fromkeys((0, 1, 2)))
    with pytest.raises(Unrepairable):
        fetch_from(encoded.artifact, tmp_path, [store], [peer])


def behaviours(chance: random.Random) -> list[Behaviour]:
    after = chance.randrange(9000)
    return [
        failing(),
        failing(after),
        torn(after),
        short(after),
        lying(),
        lying(chance.randrange(60_000)),
        stalling(0, 0.05),
        stalling(after, 0.05),
        absent,
    ]


@pytest.mark.parametrize("seed", range(25))
def test_no_mixture_of_failures_hangs_or_leaks_or_gives_wrong_bytes(
    artifacts: list[EncodedArtifact], tmp_path: Path, seed: int
) -> None:
    """Rows 28, 30, 50–53 at once; one source, if one is sound, is enough."""
    print("seed", seed)  # noqa: T201
    chance, lock = random.Random(seed), threading.Lock()

    def disturbed(share: float) -> Callable[[Reading], Behaviour]:
        def behave(reading: Reading) -> Behaviour:
            with lock:
                fails = chance.random() < share
                return chance.choice(behaviours(chance)) if fails else healthy

        return behave

    sound = chance.random() < 0.6
    stores: list[Store] = [
        SlowStore(store_with(*artifacts, name=f"s{n}"), disturbed(chance.choice([0.1, 0.5, 1])))
        for n in range(chance.randrange(1, 4))
    ]
    if sound:
        stores.append(SlowStore(store_with(*artifacts, name="sound")))
        chance.shuffle(stores)
    peers = [
        SlowStore(
            peer_with(*chance.sample(artifacts, chance.randrange(6)), name=f"p{n}"),
            disturbed(chance.choice([0, 0.2, 1])),
        )
        for n in range(chance.randrange(4))
    ]
    outcome = fetch_together(
        artifacts, tmp_path, stores, peers, reads_at_once=chance.randrange(1, 5), deadline_s=30
    )
    if sound:
        assert outcome.errors == {}
    kinds = (StoreUnavailable, BodyMismatch, TransferDeadline, Unrepairable)
    for error in outcome.errors.values():
        assert isinstance(error, kinds), error


def test_a_transfer_that_is_stopped_ends_for_all_who_wait(
    artifacts: list[EncodedArtifact], tmp_path: Path
) -> None:
    store = SlowStore(store_with(*artifacts))
    started = threading.Event()

    def stall(reading: Reading) -> None:
        started.set()
        stalling(10)(reading)

    store.behave = lambda reading: stall if reading.is_bulk else healthy
    sources = Sources([], [store], Clock())
    with (
        ThreadPoolExecutor(len(artifacts)) as pool,
        transferring(tmp_path, sources, reads_at_once=2) as (fetcher, downloads),
    ):
        fetches = [
            pool.submit(
                fetcher.fetch,
                encoded.artifact,
                tmp_path / "incoming",
                tmp_path / encoded.artifact.blake3,
                lambda _: None,
            )
            for encoded in artifacts
        ]
        assert started.wait(30)
        downloads.stop()
        found = [type(each.exception(30)) for each in fetches]
    assert found == [TransferDeadline] * len(artifacts)
    assert downloads.counting.tally().damaged_symbols == 0


def test_a_transfer_that_is_left_stops_its_reads(
    artifacts: list[EncodedArtifact], tmp_path: Path
) -> None:
    store = SlowStore(store_with(*artifacts), lambda _: stalling(10))
    started = threading.Event()

    def behave(_: Reading) -> Behaviour:
        started.set()
        return stalling(10)

    store.behave = behave
    clock = Clock()
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(
            fetch_together, artifacts[2:3], tmp_path, [store], now_s=clock, deadline_s=5
        )
        assert started.wait(30)
        clock.now_s += 6
        outcome = waiting.result(30)
    assert [type(error) for error in outcome.errors.values()] == [TransferDeadline]
    assert all(reading.stopped for reading in store.bulk)
