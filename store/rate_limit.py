"""A cap on bytes per second, shared by however many threads: a token bucket.

The bucket is kept as one number, the moment at which all bytes let through so far have been paid
for (the virtual scheduling form of the generic cell rate algorithm, ITU-T I.371 annex A). A taker
moves that moment on by what its bytes cost and waits until it has come.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence

from store.port import UNWATCHED, ObjectInfo, Store, Transfer, VersionedBytes

LONGEST_NAP_S = 0.25

MAX_BURST_BYTES = 4 << 20
"""How far a rate may be ahead of its average, at most."""


class TokenBucket:
    """The arithmetic of a cap, for callers that have their own way to wait; safe among threads.

    In any T seconds no more than ``bytes_per_s`` × T + ``burst_bytes`` are let through, where
    ``burst_bytes`` is what one second allows, or 4 MiB if that is less. Bytes taken at once are let
    through at once: more of them than ``burst_bytes`` wait until all are paid for.

    Args:
        bytes_per_s: the cap on the average, at least 1.
        monotonic: seconds on a clock that never goes back.
    """

    def __init__(self, bytes_per_s: int, monotonic: Callable[[], float]) -> None:
        self.burst_bytes = min(bytes_per_s, MAX_BURST_BYTES)
        self._bytes_per_s = bytes_per_s
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._paid_at_s = float("-inf")

    def delay_s(self, size_bytes: int) -> float:
        """Let ``size_bytes`` through, and say how long to wait before they are moved."""
        with self._lock:
            now_s = self._monotonic()
            oldest_s = now_s - self.burst_bytes / self._bytes_per_s
            self._paid_at_s = max(self._paid_at_s, oldest_s) + size_bytes / self._bytes_per_s
            return max(0.0, self._paid_at_s - now_s)


class RateLimit:
    """A cap that makes threads wait: at most ``bytes_per_s`` over all who ask.

    See :class:`TokenBucket` for what that means exactly. ``sleep`` pauses the calling thread for so
    many seconds.
    """

    def __init__(
        self, bytes_per_s: int, monotonic: Callable[[], float], sleep: Callable[[float], None]
    ) -> None:
        self._bucket = TokenBucket(bytes_per_s, monotonic)
        self._sleep = sleep

    def take(self, size_bytes: int, is_stopped: Callable[[], bool] = lambda: False) -> None:
        """Let ``size_bytes`` through, sleeping first for as long as the cap asks.

        ``is_stopped`` is asked now and then whether to go on sleeping.
        """
        delay_s = self._bucket.delay_s(size_bytes)
        while delay_s > 0 and not is_stopped():
            nap_s = min(delay_s, LONGEST_NAP_S)
            self._sleep(nap_s)
            delay_s -= nap_s


class LimitedStore:
    """A :class:`store.port.Store` whose objects are read no faster than ``limit`` allows.

    What was read is paid for when it has arrived, so a read already begun by each of several
    threads, one piece each, comes on top. Small mutable objects, listings and writes are free.
    """

    def __init__(self, behind: Store, limit: RateLimit) -> None:
        self._behind = behind
        self._limit = limit

    @property
    def url(self) -> str:
        """See :meth:`store.port.Store.url`."""
        return self._behind.url

    def get(self, key: str, *, offset: int = 0, length: int) -> bytes:
        """See :meth:`store.port.Store.get`."""
        data = self._behind.get(key, offset=offset, length=length)
        self._limit.take(len(data))
        return data

    def read_into(
        self, key: str, *, offset: int, buffer: memoryview, transfer: Transfer = UNWATCHED
    ) -> int:
        """See :meth:`store.port.Store.read_into`."""
        paid = _Paid(transfer, self._limit)
        return self._behind.read_into(key, offset=offset, buffer=buffer, transfer=paid)

    def get_versioned(self, key: str, *, limit_bytes: int) -> VersionedBytes | None:
        """See :meth:`store.port.Store.get_versioned`."""
        return self._behind.get_versioned(key, limit_bytes=limit_bytes)

    def put_if_absent(self, key: str, parts: Sequence[bytes | memoryview]) -> bool:
        """See :meth:`store.port.Store.put_if_absent`."""
        return self._behind.put_if_absent(key, parts)

    def compare_and_swap(self, key: str, data: bytes, expected: str | None) -> bool:
        """See :meth:`store.port.Store.compare_and_swap`."""
        return self._behind.compare_and_swap(key, data, expected)

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """See :meth:`store.port.Store.list`."""
        return self._behind.list(prefix)

    def stat(self, key: str) -> ObjectInfo | None:
        """See :meth:`store.port.Store.stat`."""
        return self._behind.stat(key)

    def delete(self, key: str) -> None:
        """See :meth:`store.port.Store.delete`."""
        self._behind.delete(key)


class _Paid:
    """A transfer whose bytes are taken from a limit before its watcher hears of them."""

    def __init__(self, watcher: Transfer, limit: RateLimit) -> None:
        self._watcher = watcher
        self._limit = limit
        self._is_stopped = False
        self._stop_behind: Callable[[], None] = lambda: None
        watcher.stop_by(self._stop)

    def stop_by(self, stop: Callable[[], None]) -> None:
        self._stop_behind = stop
        if self._is_stopped:
            stop()

    def arrived(self, size_bytes: int) -> None:
        self._limit.take(size_bytes, lambda: self._is_stopped)
        self._watcher.arrived(size_bytes)

    def _stop(self) -> None:
        self._is_stopped = True
        self._stop_behind()
