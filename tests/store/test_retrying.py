"""Which failures are asked again, how often and after which pauses."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import pytest

from manifests.errors import (
    BodyMismatch,
    GenctlError,
    StoreRefused,
    StoreUnavailable,
    TransferDeadline,
)
from store.memory import MemoryStore
from store.port import UNWATCHED, ObjectInfo, Transfer
from store.retrying import Backoff, RetryingStore
from tests.store.contract import Watch
from tests.support.faulty_store import FaultyStore


class Failing(FaultyStore):
    """A store whose next calls fail with ``errors``, one each."""

    def __init__(self) -> None:
        super().__init__(MemoryStore())
        self.errors: list[GenctlError] = []
        self.calls = 0

    def _check(self) -> None:
        self.calls += 1
        if self.errors:
            raise self.errors.pop(0)

    def read_into(
        self, key: str, *, offset: int, buffer: memoryview, transfer: Transfer = UNWATCHED
    ) -> int:
        transfer.stop_by(lambda: None)
        return super().read_into(key, offset=offset, buffer=buffer, transfer=transfer)


class Pauses:
    """A sleep that takes no time."""

    def __init__(self) -> None:
        self.taken: list[float] = []
        self.meanwhile: Callable[[], None] = lambda: None

    def sleep(self, seconds: float) -> None:
        self.taken.append(seconds)
        self.meanwhile()


def unavailable(**facts: object) -> StoreUnavailable:
    return StoreUnavailable("the store is out of order, says the test", **facts)


@pytest.fixture
def behind() -> Failing:
    store = Failing()
    assert store.put_if_absent("key", [b"value"])
    store.calls = 0
    return store


@pytest.fixture
def pauses() -> Pauses:
    return Pauses()


@pytest.fixture
def store(behind: Failing, pauses: Pauses) -> RetryingStore:
    return RetryingStore(
        behind, Backoff(pauses.sleep, lambda: 0, attempts=4, first_s=1, longest_s=3)
    )


def deleted(store: RetryingStore) -> bool:
    store.delete("key")
    return list(store.list("")) == []


CALLS: dict[str, Callable[[RetryingStore], object]] = {
    "get": lambda store: store.get("key", length=5) == b"value",
    "read_into": lambda store: (
        store.read_into("key", offset=0, buffer=memoryview(bytearray(5))) == 5
    ),
    "get_versioned": lambda store: store.get_versioned("key", limit_bytes=5),
    "put_if_absent": lambda store: not store.put_if_absent("key", [b"other"]),
    "list": lambda store: list(store.list("")) == [ObjectInfo("key", 5)],
    "stat": lambda store: store.stat("key") == ObjectInfo("key", 5),
    "delete": deleted,
}


def test_row_50_a_store_that_is_silent_for_long_is_not_asked_as_often(
    behind: Failing, pauses: Pauses
) -> None:
    behind.errors = [unavailable()] * 9
    seconds = itertools.count(step=10)
    backoff = Backoff(pauses.sleep, lambda: 0, give_up_after_s=30, monotonic=lambda: next(seconds))
    with pytest.raises(StoreUnavailable):
        RetryingStore(behind, backoff).stat("key")
    assert behind.calls == 3, "at 0, 10 and 20 s; at 30 s it was too late"
    behind.errors = [unavailable()] * 5
    assert not RetryingStore(behind, backoff).put_if_absent("key", [b"takes long to send"])


@pytest.mark.parametrize("name", CALLS)
def test_row_50_what_can_be_repeated_is_asked_again_after_growing_pauses(
    store: RetryingStore, behind: Failing, pauses: Pauses, name: str
) -> None:
    behind.errors = [unavailable(), BodyMismatch("cut short"), unavailable()]
    assert CALLS[name](store)
    assert pauses.taken == [1, 2, 3]


@pytest.mark.parametrize("name", CALLS)
def test_row_50_after_its_attempts_it_is_unavailable(
    store: RetryingStore, behind: Failing, pauses: Pauses, name: str
) -> None:
    behind.errors = [unavailable() for _ in range(10)]
    with pytest.raises(StoreUnavailable):
        CALLS[name](store)
    assert behind.calls == 4


@pytest.mark.parametrize("error", [StoreRefused("no such bucket"), TransferDeadline("too slow")])
def test_what_another_attempt_would_not_mend_is_raised_at_once(
    store: RetryingStore, behind: Failing, pauses: Pauses, error: GenctlError
) -> None:
    behind.errors = [error]
    with pytest.raises(type(error)):
        store.get("key", length=5)
    assert pauses.taken == []


def test_row_45_a_swap_whose_outcome_is_unknown_is_not_tried_again(
    store: RetryingStore, behind: Failing, pauses: Pauses
) -> None:
    behind.errors = [unavailable()]
    with pytest.raises(StoreUnavailable):
        store.compare_and_swap("other", b"x", None)
    assert behind.calls == 1


def test_jitter_takes_away_up_to_half_a_pause(pauses: Pauses) -> None:
    for jitter in (0.0, 0.5, 1.0):
        Backoff(pauses.sleep, lambda: jitter, first_s=1).pause(1)  # noqa: B023
    assert pauses.taken == [1, 0.75, 0.5]


def test_bytes_that_arrived_are_told_of_once(behind: Failing, pauses: Pauses) -> None:
    class CutShort(MemoryStore):
        def read_into(
            self, key: str, *, offset: int, buffer: memoryview, transfer: Transfer = UNWATCHED
        ) -> int:
            transfer.arrived(3)
            raise BodyMismatch("cut short")

    told: list[int] = []
    store = RetryingStore(CutShort(), Backoff(pauses.sleep, lambda: 0))
    with pytest.raises(BodyMismatch):
        store.read_into(
            "key", offset=0, buffer=memoryview(bytearray(5)), transfer=Watch(told.append)
        )
    assert told == [3]
    assert pauses.taken == []


def test_a_read_that_was_stopped_is_not_begun_again(
    store: RetryingStore, behind: Failing, pauses: Pauses
) -> None:
    class Stoppable(Watch):
        def stop_by(self, stop: Callable[[], None]) -> None:
            pauses.meanwhile = stop

    watch = Stoppable(list[int]().append)
    buffer = memoryview(bytearray(5))
    behind.errors = [unavailable()]
    with pytest.raises(StoreUnavailable):
        store.read_into("key", offset=0, buffer=buffer, transfer=watch)
    assert behind.calls == 1


def test_a_listing_that_has_begun_is_not_begun_again(pauses: Pauses) -> None:
    class Interrupted(MemoryStore):
        def list(self, prefix: str) -> Iterator[ObjectInfo]:
            yield ObjectInfo("a", 1)
            raise unavailable()

    listing = RetryingStore(Interrupted(), Backoff(pauses.sleep, lambda: 0)).list("")
    assert next(listing) == ObjectInfo("a", 1)
    with pytest.raises(StoreUnavailable):
        next(listing)
    assert pauses.taken == []
