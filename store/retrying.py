"""Ask a store again, a bounded number of times, with pauses that grow and differ."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

from manifests.errors import BodyMismatch, GenctlError, StoreRefused, StoreUnavailable
from store.port import UNWATCHED, ObjectInfo, Store, Transfer, VersionedBytes

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Backoff:
    """How often to ask, after which errors, and how long to wait in between.

    The wait doubles from ``first_s`` up to ``longest_s``; ``jitter``, which gives numbers from 0 to
    1, takes away up to half of it, so that those who failed together do not come back together.
    No question is asked again once ``give_up_after_s`` have passed on the ``monotonic`` clock since
    it was asked first: each answer of a store that is silent takes as long as one has patience for.
    An object that is sent may take any time by itself.
    """

    sleep: Callable[[float], None]
    jitter: Callable[[], float]
    errors: tuple[type[GenctlError], ...] = (StoreUnavailable, BodyMismatch)
    attempts: int = 6
    first_s: float = 0.2
    longest_s: float = 5
    give_up_after_s: float = 30
    monotonic: Callable[[], float] = time.monotonic

    def pause(self, failures: int) -> None:
        """Wait as long as is due after that many failures in a row."""
        wait_s = min(self.longest_s, self.first_s * 2 ** (failures - 1))
        self.sleep(wait_s * (1 - self.jitter() / 2))


class RetryingStore:
    """The store ``behind``, asked again after the errors that ``backoff`` names.

    After ``backoff.attempts``, or its time, the last error is raised. A ``StoreRefused`` (a bucket
    that is not there, wrong credentials) is raised at once. Not asked again are a compare-and-swap,
    which may have taken place, a bulk read of which bytes have arrived, and a listing that has
    begun. A ``put_if_absent`` asked again answers ``False`` if it had created the object before.
    """

    def __init__(self, behind: Store, backoff: Backoff) -> None:
        self._behind = behind
        self._backoff = backoff

    @property
    def url(self) -> str:
        """See :attr:`store.port.Store.url`."""
        return self._behind.url

    def get(self, key: str, *, offset: int = 0, length: int) -> bytes:
        """See :meth:`store.port.Store.get`."""
        return self._retried(lambda: self._behind.get(key, offset=offset, length=length))

    def read_into(
        self, key: str, *, offset: int, buffer: memoryview, transfer: Transfer = UNWATCHED
    ) -> int:
        """See :meth:`store.port.Store.read_into`."""
        watched = _Watched(transfer)
        return self._retried(
            lambda: self._behind.read_into(key, offset=offset, buffer=buffer, transfer=watched),
            lambda: not (watched.has_begun or watched.is_stopped),
        )

    def get_versioned(self, key: str, *, limit_bytes: int) -> VersionedBytes | None:
        """See :meth:`store.port.Store.get_versioned`."""
        return self._retried(lambda: self._behind.get_versioned(key, limit_bytes=limit_bytes))

    def put_if_absent(self, key: str, parts: Sequence[bytes | memoryview]) -> bool:
        """See :meth:`store.port.Store.put_if_absent`."""
        return self._retried(lambda: self._behind.put_if_absent(key, parts), is_timed=False)

    def compare_and_swap(self, key: str, data: bytes, expected: str | None) -> bool:
        """See :meth:`store.port.Store.compare_and_swap`; asked once."""
        return self._behind.compare_and_swap(key, data, expected)

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """See :meth:`store.port.Store.list`."""
        first: list[ObjectInfo] = []

        def begin() -> Iterator[ObjectInfo]:
            listing = self._behind.list(prefix)
            first.extend(found for found in [next(listing, None)] if found is not None)
            return listing

        listing = self._retried(begin)
        yield from first
        yield from listing

    def stat(self, key: str) -> ObjectInfo | None:
        """See :meth:`store.port.Store.stat`."""
        return self._retried(lambda: self._behind.stat(key))

    def delete(self, key: str) -> None:
        """See :meth:`store.port.Store.delete`."""
        self._retried(lambda: self._behind.delete(key))

    def _retried(
        self,
        ask: Callable[[], T],
        may_again: Callable[[], bool] = lambda: True,
        *,
        is_timed: bool = True,
    ) -> T:
        give_up_s = self._backoff.monotonic() + self._backoff.give_up_after_s
        for failures in range(1, self._backoff.attempts):
            try:
                return ask()
            except self._backoff.errors as error:
                is_late = is_timed and self._backoff.monotonic() >= give_up_s
                if isinstance(error, StoreRefused) or is_late or not may_again():
                    raise
                self._backoff.pause(failures)
                if not may_again():
                    raise
        return ask()


class _Watched:
    """A transfer that remembers whether anything arrived and whether it was stopped."""

    def __init__(self, behind: Transfer) -> None:
        self._behind = behind
        self.has_begun = False
        self.is_stopped = False

    def arrived(self, size_bytes: int) -> None:
        self.has_begun = True
        self._behind.arrived(size_bytes)

    def stop_by(self, stop: Callable[[], None]) -> None:
        def remember_and_stop() -> None:
            self.is_stopped = True
            stop()

        self._behind.stop_by(remember_and_stop)
