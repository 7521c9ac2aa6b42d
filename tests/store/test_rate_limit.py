"""The cap on bytes per second: its arithmetic, under a clock of the test's own."""

from __future__ import annotations

import heapq
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from store.memory import MemoryStore
from store.port import UNWATCHED, Transfer
from store.rate_limit import (
    LONGEST_NAP_S,
    MAX_BURST_BYTES,
    LimitedStore,
    RateLimit,
    TokenBucket,
)
from tests.store.contract import Holding, Watch, WritingContract

RATE = 1_000_000


class Clock:
    """Time that passes only in :meth:`sleep`."""

    def __init__(self) -> None:
        self.now_s = 1_000.0

    def monotonic(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        assert seconds > 0
        self.now_s += seconds


def let_through(bytes_per_s: int, takers: list[list[tuple[float, int]]]) -> list[tuple[float, int]]:
    """When how many bytes move if each taker pauses, takes, waits and moves, over and over."""
    clock = Clock()
    limit = TokenBucket(bytes_per_s, clock.monotonic)
    moved: list[tuple[float, int]] = []
    # (when, which taker, which of its steps)
    due = [(clock.now_s + steps[0][0], taker, 0) for taker, steps in enumerate(takers)]
    heapq.heapify(due)
    while due:
        clock.now_s, taker, step = heapq.heappop(due)
        size_bytes = takers[taker][step][1]
        moves_at_s = clock.now_s + limit.delay_s(size_bytes)
        moved.append((moves_at_s, size_bytes))
        if step + 1 < len(takers[taker]):
            pause_s = takers[taker][step + 1][0]
            heapq.heappush(due, (moves_at_s + pause_s, taker, step + 1))
    return sorted(moved, key=lambda each: each[0])


steps = st.lists(
    st.tuples(st.floats(0, 5), st.integers(0, 3 * MAX_BURST_BYTES)), min_size=1, max_size=12
)


@given(st.integers(1, 200_000_000), st.lists(steps, min_size=1, max_size=8))
def test_row_55_however_many_take_the_rate_stays_under_the_cap(
    bytes_per_s: int, takers: list[list[tuple[float, int]]]
) -> None:
    moved = let_through(bytes_per_s, takers)
    burst_bytes = min(bytes_per_s, MAX_BURST_BYTES)
    for first, (start_s, first_bytes) in enumerate(moved):
        sum_bytes = 0
        for end_s, size_bytes in moved[first:]:
            sum_bytes += size_bytes
            # More than the burst at once has waited for all of it before the window began.
            allowed = bytes_per_s * (end_s - start_s) + max(burst_bytes, first_bytes)
            assert sum_bytes <= allowed * (1 + 1e-6) + 1


@given(st.integers(1, 200_000_000), steps)
def test_nobody_waits_longer_than_the_cap_asks(
    bytes_per_s: int, taker: list[tuple[float, int]]
) -> None:
    moved = let_through(bytes_per_s, [taker])
    needed_s = sum(size_bytes for _, size_bytes in taker) / bytes_per_s
    paused_s = sum(pause_s for pause_s, _ in taker)
    assert moved[-1][0] - 1_000.0 <= (needed_s + paused_s) * (1 + 1e-6) + 1e-6


def test_the_burst_is_free_and_what_follows_is_not() -> None:
    clock = Clock()
    limit = TokenBucket(RATE, clock.monotonic)
    assert limit.burst_bytes == RATE
    assert limit.delay_s(RATE) == 0
    assert limit.delay_s(RATE // 2) == pytest.approx(0.5)
    clock.now_s += 100
    assert limit.delay_s(RATE) == 0
    assert limit.delay_s(1) > 0


def test_the_burst_of_a_high_rate_is_bounded() -> None:
    clock = Clock()
    limit = TokenBucket(100 * MAX_BURST_BYTES, clock.monotonic)
    assert limit.delay_s(MAX_BURST_BYTES) == 0
    assert limit.delay_s(MAX_BURST_BYTES) == pytest.approx(0.01)


def test_taking_sleeps_as_long_as_it_must() -> None:
    clock = Clock()
    limit = RateLimit(RATE, clock.monotonic, clock.sleep)
    for _ in range(30):
        limit.take(RATE // 3)
    assert clock.now_s - 1_000 == pytest.approx(10 - 1, abs=0.01)


def test_row_55_threads_that_take_at_one_moment_are_all_counted() -> None:
    inside = threading.Lock()
    slept: list[float] = []

    def monotonic() -> float:
        # Two threads in here at once would both start from the same balance.
        assert inside.acquire(blocking=False)
        threading.Event().wait(0.001)
        inside.release()
        return 0.0

    limit = RateLimit(RATE, monotonic, slept.append)
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(limit.take, [RATE] * 80))
    assert max(slept) <= LONGEST_NAP_S
    assert sum(slept) == pytest.approx(sum(range(1, 80)))


def test_a_take_that_is_stopped_sleeps_no_longer() -> None:
    slept: list[float] = []
    limit = RateLimit(RATE, lambda: 0.0, slept.append)
    limit.take(RATE * 100, lambda: len(slept) == 3)
    assert len(slept) == 3


def test_a_capped_read_is_stopped_in_its_sleep() -> None:
    behind = MemoryStore()
    behind.put_if_absent("key", [bytes(RATE * 100)])
    naps: list[float] = []
    stops: list[Callable[[], None]] = []

    class Stopping(Watch):
        def stop_by(self, stop: Callable[[], None]) -> None:
            stops.append(stop)

    def nap(seconds: float) -> None:
        naps.append(seconds)
        stops[0]()

    store = LimitedStore(behind, RateLimit(RATE, lambda: 0.0, nap))
    buffer = memoryview(bytearray(RATE * 100))
    store.read_into("key", offset=0, buffer=buffer, transfer=Stopping(lambda _: None))
    assert len(naps) == 1


def test_row_55_a_limited_store_pays_for_every_byte_it_reads() -> None:
    clock = Clock()
    behind = MemoryStore()
    behind.put_if_absent("large", [b"x" * (5 * RATE)])
    store = LimitedStore(behind, RateLimit(RATE, clock.monotonic, clock.sleep))
    told: list[int] = []
    buffer = memoryview(bytearray(3 * RATE))
    store.read_into("large", offset=0, buffer=buffer, transfer=Watch(told.append))
    assert sum(told) == 3 * RATE
    assert clock.now_s - 1_000 == pytest.approx(2)
    store.get("large", offset=RATE, length=2 * RATE)
    assert clock.now_s - 1_000 == pytest.approx(4)


def test_a_watcher_of_a_limited_read_can_stop_it() -> None:
    stopped: list[str] = []

    class Network(MemoryStore):
        def read_into(
            self, key: str, *, offset: int, buffer: memoryview, transfer: Transfer = UNWATCHED
        ) -> int:
            transfer.stop_by(lambda: stopped.append(key))
            return super().read_into(key, offset=offset, buffer=buffer, transfer=transfer)

    class Stopper(Watch):
        def stop_by(self, stop: Callable[[], None]) -> None:
            stop()

    clock = Clock()
    behind = Network()
    behind.put_if_absent("key", [b"x"])
    store = LimitedStore(behind, RateLimit(RATE, clock.monotonic, clock.sleep))
    buffer = memoryview(bytearray(1))
    store.read_into("key", offset=0, buffer=buffer, transfer=Stopper(lambda _: None))
    assert stopped == ["key"]


class TestContract(WritingContract):
    @pytest.fixture
    def store(self) -> LimitedStore:
        clock = Clock()
        return LimitedStore(MemoryStore(), RateLimit(RATE, clock.monotonic, clock.sleep))

    @pytest.fixture
    def holding(self, store: LimitedStore) -> Holding:
        def fill(objects: Mapping[str, bytes]) -> LimitedStore:
            for key, data in objects.items():
                assert store.put_if_absent(key, [data])
            return store

        return fill
