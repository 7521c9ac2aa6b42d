"""A read that stalls is overtaken; whoever loses is stopped, and only who was slow is blamed."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from index.verification import ReadFiles
from manifests.errors import TransferDeadline
from replicator import download
from replicator.fetch import Fetcher
from replicator.health import Health
from replicator.sources import Sources
from replicator.tables import Tables
from tests.replicator.encoded import EncodedArtifact, encoded_artifact
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
    failing,
    healthy,
    stalling,
)

pytestmark = pytest.mark.usefixtures("small_runs", "soon_hedged")


@pytest.fixture(scope="module")
def encoded(tmp_path_factory: pytest.TempPathFactory) -> EncodedArtifact:
    return encoded_artifact(tmp_path_factory.mktemp("encoded"), 200_003, 10, 12)


class StallsFirst(SlowStore):
    """A store whose first bulk read stalls after some bytes."""

    def __init__(self, encoded: EncodedArtifact, name: str, after_bytes: int = 0) -> None:
        super().__init__(store_with(encoded, name=name), self._behave)
        self.stalled: Reading | None = None
        self._after_bytes = after_bytes

    def _behave(self, reading: Reading) -> Behaviour:
        if reading.is_bulk and self.stalled is None:
            self.stalled = reading
            return stalling(self._after_bytes)
        return healthy


@pytest.mark.parametrize("after_bytes", [0, 5_000])
@pytest.mark.parametrize("reads_at_once", [1, 4])
def test_a_stalled_read_of_the_only_source_is_overtaken_by_a_second_one(
    encoded: EncodedArtifact, tmp_path: Path, after_bytes: int, reads_at_once: int
) -> None:
    store = StallsFirst(encoded, "only", after_bytes)
    outcome = fetch_together([encoded], tmp_path, [store], reads_at_once=reads_at_once)
    assert outcome.errors == {}
    assert store.stalled is not None
    assert store.stalled.stopped
    again = [
        reading
        for reading in store.bulk
        if (reading.key, reading.offset) == (store.stalled.key, store.stalled.offset)
    ]
    assert len(again) == 2
    assert outcome.tally.repaired_chunks == outcome.tally.damaged_symbols == 0


def test_a_stalled_read_is_overtaken_by_another_source(
    encoded: EncodedArtifact, tmp_path: Path
) -> None:
    slow = SlowStore(
        store_with(encoded, name="slow"),
        lambda reading: stalling(100) if reading.is_bulk else healthy,
    )
    quick = SlowStore(store_with(encoded, name="quick"))
    clock = Clock()
    sources = Sources([], [slow, quick], clock)
    with transferring(tmp_path, sources) as (fetcher, _):
        target = tmp_path / "target"
        fetcher.fetch(encoded.artifact, tmp_path / "incoming", target, lambda _: None)
    assert target.read_bytes() == encoded.data
    assert slow.bulk
    assert all(reading.stopped for reading in slow.bulk)


def test_a_read_that_wins_against_its_hedge_leaves_the_hedges_source_unblamed(
    encoded: EncodedArtifact, tmp_path: Path
) -> None:
    """Four times the first read comes in the end, and the second one's source is stopped."""
    first = SlowStore(peer_with(encoded, name="first"))
    second = SlowStore(store_with(encoded, name="second"))
    lost: list[Reading] = []
    is_lost = threading.Event()

    def late(reading: Reading) -> None:
        if len(lost) < 4 and not is_lost.wait(30):
            raise AssertionError("nobody asked the second source")
        is_lost.clear()
        healthy(reading)

    def lose(reading: Reading) -> None:
        lost.append(reading)
        is_lost.set()
        stalling()(reading)

    first.behave = lambda reading: late if reading.is_bulk and len(lost) < 4 else healthy
    second.behave = lambda _: lose
    clock = Clock()
    sources = Sources([first], [second], clock)
    with transferring(tmp_path, sources, reads_at_once=1) as (fetcher, _):
        target = tmp_path / "target"
        fetcher.fetch(encoded.artifact, tmp_path / "incoming", target, lambda _: None)
    assert target.read_bytes() == encoded.data
    assert len(lost) >= 4
    assert all(reading.stopped for reading in lost)
    assert sources.stores[0].health.state(clock()) == "closed"
    assert sources.peers[0].health.state(clock()) == "closed"


@pytest.mark.parametrize(("hedge_after_s", "is_hedged"), [(0.0, True), (60.0, False)])
def test_what_a_cap_makes_slow_is_waited_for(
    encoded: EncodedArtifact, tmp_path: Path, hedge_after_s: float, is_hedged: bool
) -> None:
    is_asked = threading.Event()

    def late(reading: Reading) -> None:
        is_asked.wait(10 if is_hedged else 10 * download.HEDGE_AFTER_S)
        healthy(reading)

    def ask(reading: Reading) -> None:
        is_asked.set()
        healthy(reading)

    capped = SlowStore(peer_with(encoded), lambda r: late if r.is_bulk else healthy)
    other = SlowStore(store_with(encoded), lambda r: ask if r.is_bulk else healthy)
    sources = Sources([capped], [other], Clock())
    transfer = transferring(tmp_path, sources, reads_at_once=1, hedge_after_s=hedge_after_s)
    with transfer as (fetcher, _):
        fetcher.fetch(encoded.artifact, tmp_path / "incoming", tmp_path / "target", lambda _: None)
    assert is_asked.is_set() == is_hedged


def test_what_short_reads_took_says_nothing_of_long_ones(tmp_path: Path) -> None:
    with transferring(tmp_path, Sources([], [], Clock())) as (_, downloads):
        long_bytes = 1 << 30
        unknown_s = downloads._hedge_after_s(long_bytes)
        downloads._took.extend([(200, 0.01)] * 30)
        assert downloads._hedge_after_s(long_bytes) == unknown_s
        downloads._took.append((long_bytes, 1000.0))
        assert downloads._hedge_after_s(long_bytes) == download.HEDGE_FACTOR * 1000
        assert downloads._hedge_after_s(long_bytes // 2) == download.HEDGE_FACTOR * 500


def test_a_hedge_that_fails_leaves_the_first_read_its_time(
    encoded: EncodedArtifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "HEDGE_AFTER_S", 0.3)
    store = SlowStore(store_with(encoded))

    def fail(reading: Reading) -> None:
        store.release()
        failing()(reading)

    def behave(reading: Reading) -> Behaviour:
        return (
            {1: stalling(10), 2: fail}.get(len(store.bulk), healthy) if reading.is_bulk else healthy
        )

    store.behave = behave
    outcome = fetch_together([encoded], tmp_path, [store], reads_at_once=1)
    assert outcome.errors == {}
    assert store.bulk[0].key == store.bulk[1].key
    assert not store.bulk[0].stopped
    assert outcome.tally.damaged_symbols == 0


def test_several_artifacts_with_one_read_at_once_go_on_when_each_stalls(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("several")
    several = [encoded_artifact(folder, 30_000 + n, 5, 6, seed=n) for n in range(1, 7)]
    asked: set[tuple[str, int]] = set()

    def behave(reading: Reading) -> Behaviour:
        if not reading.is_bulk or (reading.key, reading.offset) in asked:
            return healthy
        asked.add((reading.key, reading.offset))
        return stalling(2_000) if len(asked) % 4 == 0 else healthy

    store = SlowStore(store_with(*several), behave)
    outcome = fetch_together(several, tmp_path, [store], reads_at_once=1)
    assert outcome.errors == {}
    assert store.most_in_flight <= 1 + download.HEDGES_AT_ONCE


def test_hedges_do_not_make_the_next_ones_wait_longer(
    encoded: EncodedArtifact, tmp_path: Path
) -> None:
    """What is usual is how long the read took that won, not how long the stalled one was given."""
    clock = Clock()
    slow = SlowStore(
        peer_with(encoded, name="slow"), lambda r: stalling() if r.is_bulk else healthy
    )

    def quick(reading: Reading) -> None:
        clock.now_s += 0.001
        healthy(reading)

    patient = {slow.url: Health(failures_in_a_row=100)}
    sources = Sources([slow], [SlowStore(store_with(encoded), lambda _: quick)], clock, patient)

    waits: list[float] = []

    class Stalled(download.Downloads):
        """Time passes once for each read that stalls."""

        def _hedge(self, pending: download.Pending) -> None:
            if len(slow.bulk) > len(waits):
                waits.append(100.0)
                clock.now_s += waits[-1]
            super()._hedge(pending)

    with Stalled(sources, 1, 1e9, clock) as downloads:
        for name in ("incoming", "tables"):
            (tmp_path / name).mkdir()
        fetcher = Fetcher(
            downloads,
            Tables(tmp_path / "tables", sources, downloads.counting, downloads),
            ReadFiles(),
        )
        fetcher.fetch(encoded.artifact, tmp_path / "incoming", tmp_path / "target", lambda _: None)
        assert downloads._hedge_after_s(encoded.artifact.size_bytes) < 1
    assert len(slow.bulk) >= 3


def test_row_28_when_the_hedge_stalls_too_the_deadline_ends_both(
    encoded: EncodedArtifact, tmp_path: Path
) -> None:
    clock = Clock()

    def stall(reading: Reading) -> None:
        clock.now_s += 20
        stalling()(reading)

    stores = [
        SlowStore(store_with(encoded, name=name), lambda r: stall if r.is_bulk else healthy)
        for name in ("one", "two")
    ]
    outcome = fetch_together(
        [encoded], tmp_path, stores, reads_at_once=1, deadline_s=30, now_s=clock
    )
    assert [type(error) for error in outcome.errors.values()] == [TransferDeadline]
    assert [len(store.bulk) for store in stores] == [1, 1]
    assert all(reading.stopped for store in stores for reading in store.bulk)
