"""What stands between racing writers and their store: turns by a seed, and swaps that go wrong."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator, Sequence

from manifests.errors import StoreUnavailable
from store.port import UNWATCHED, ObjectInfo, Store, Transfer, VersionedBytes

Swap = Callable[[str, bytes, str | None], bool]
"""A compare-and-swap: key, data and the expected version."""

LIMIT_BYTES = 1 << 20
TURN_DEADLINE_S = 60


class RacedStore:
    """The store ``behind``; calls ``before`` ahead of every operation, and has its own ``swap``."""

    def __init__(
        self, behind: Store, before: Callable[[], None] = lambda: None, swap: Swap | None = None
    ) -> None:
        self._behind = behind
        self._before = before
        self._swap = swap or behind.compare_and_swap

    @property
    def url(self) -> str:
        return self._behind.url

    def get(self, key: str, *, offset: int = 0, length: int) -> bytes:
        self._before()
        return self._behind.get(key, offset=offset, length=length)

    def read_into(
        self, key: str, *, offset: int, buffer: memoryview, transfer: Transfer = UNWATCHED
    ) -> int:
        self._before()
        return self._behind.read_into(key, offset=offset, buffer=buffer, transfer=transfer)

    def get_versioned(self, key: str, *, limit_bytes: int) -> VersionedBytes | None:
        self._before()
        return self._behind.get_versioned(key, limit_bytes=limit_bytes)

    def put_if_absent(self, key: str, parts: Sequence[bytes | memoryview]) -> bool:
        self._before()
        return self._behind.put_if_absent(key, parts)

    def compare_and_swap(self, key: str, data: bytes, expected: str | None) -> bool:
        self._before()
        return self._swap(key, data, expected)

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        self._before()
        return self._behind.list(prefix)

    def stat(self, key: str) -> ObjectInfo | None:
        self._before()
        return self._behind.stat(key)

    def delete(self, key: str) -> None:
        self._before()
        self._behind.delete(key)


def overwriting(store: Store) -> Swap:
    """A swap that never compares: what a store without conditional writes would do."""

    def swap(key: str, data: bytes, _: str | None) -> bool:
        while True:
            found = store.get_versioned(key, limit_bytes=LIMIT_BYTES)
            if store.compare_and_swap(key, data, None if found is None else found.version):
                return True

    return swap


def losing_answers(store: Store, chance: random.Random) -> Swap:
    """A swap of which every fourth answer is lost: of one half after it took place, or failed."""

    def swap(key: str, data: bytes, expected: str | None) -> bool:
        drawn = chance.random()
        swapped = drawn >= 0.125 and store.compare_and_swap(key, data, expected)
        if drawn < 0.25:
            raise StoreUnavailable("the answer was lost, says the test")
        return swapped

    return swap


class Turns:
    """Several threads of which one runs at a time; ``chance`` chooses who goes on after a pause.

    The same seed gives the same order. ``weights`` are how likely each is chosen: one with a small
    weight stalls while others do many steps.
    """

    def __init__(self, chance: random.Random, weights: Sequence[float]) -> None:
        self._chance = chance
        self._weights = dict(enumerate(weights))
        self._gates = [threading.Semaphore(0) for _ in weights]
        self._errors: list[BaseException] = []

    def run(self, tasks: Sequence[Callable[[], None]]) -> None:
        """Run one task a thread until all have ended; raises the first error of any."""
        threads = [
            threading.Thread(target=self._run_one, args=(number, task), daemon=True)
            for number, task in enumerate(tasks)
        ]
        for thread in threads:
            thread.start()
        self._gates[self._next()].release()
        for thread in threads:
            thread.join(TURN_DEADLINE_S)
            assert not thread.is_alive(), "a turn never came"
        if self._errors:
            raise self._errors[0]

    def pause(self, number: int) -> None:
        """Called by task ``number``: let another go on, or go on itself."""
        chosen = self._next()
        if chosen != number:
            self._gates[chosen].release()
            self._wait(number)

    def _run_one(self, number: int, task: Callable[[], None]) -> None:
        try:
            self._wait(number)
            task()
        except BaseException as error:  # noqa: BLE001 - run() raises it
            self._errors.append(error)
        finally:
            del self._weights[number]
            if self._weights:
                self._gates[self._next()].release()

    def _wait(self, number: int) -> None:
        assert self._gates[number].acquire(timeout=TURN_DEADLINE_S), "a turn never came"

    def _next(self) -> int:
        (chosen,) = self._chance.choices(list(self._weights), list(self._weights.values()))
        return chosen
