"""A store that stalls, drips, lies, cuts answers short or fails: whatever a test has it do.

Nothing here sleeps. A read that stalls waits for whoever stops it or calls
:meth:`SlowStore.release`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from manifests.errors import BodyMismatch, ObjectMissing, StoreUnavailable, TransferDeadline
from replicator.reads import Stoppable
from store.port import UNWATCHED, ObjectInfo, Store, Transfer, VersionedBytes

GUARD_S = 60.0
"""A stalled read that nobody ends by then is a failed test, not a test that hangs."""

DRIP_S = 0.002


@dataclass(eq=False)
class Reading:
    """One read of a store: what it should give, and where that goes."""

    store: str
    key: str
    offset: int
    data: bytes
    buffer: memoryview
    transfer: Transfer
    is_bulk: bool
    number: int
    sent_bytes: int = 0
    stopped: bool = False
    ended: threading.Event = field(default_factory=threading.Event)

    def send(self, data: bytes) -> None:
        """Let these bytes be the next that arrive."""
        start = self.sent_bytes
        self.sent_bytes += len(data)
        self.buffer[start : self.sent_bytes] = data
        self.transfer.arrived(len(data))

    def stop(self) -> None:
        """What the reader calls who has had enough."""
        self.stopped = True
        self.ended.set()

    def pause(self, seconds: float = GUARD_S) -> None:
        """Nothing comes, until somebody ends it."""
        if not self.is_bulk or self.stopped:
            raise TransferDeadline(f"{self.store} takes too long over {self.key}, says the test")
        self.ended.wait(seconds)
        if self.stopped:
            raise TransferDeadline(f"a read of {self.key} was stopped")
        assert seconds < GUARD_S or self.ended.is_set(), f"nobody ended the read of {self.key}"


Behaviour = Callable[[Reading], None]


def healthy(reading: Reading) -> None:
    """All of it, in pieces that fall across the borders of chunks."""
    for start in range(0, len(reading.data), 3001):
        reading.send(reading.data[start : start + 3001])


def absent(reading: Reading) -> None:
    raise ObjectMissing(f"{reading.store} has no {reading.key}, says the test")


def failing(after_bytes: int = 0) -> Behaviour:
    """Unavailable, once so many bytes have come."""

    def fail(reading: Reading) -> None:
        if reading.data[:after_bytes]:
            reading.send(reading.data[:after_bytes])
        raise StoreUnavailable(f"{reading.store} answers 503, says the test", status=503)

    return fail


def torn(after_bytes: int) -> Behaviour:
    """The connection is lost after so many bytes."""

    def tear(reading: Reading) -> None:
        if reading.data[:after_bytes]:
            reading.send(reading.data[:after_bytes])
        if len(reading.data) > after_bytes:
            raise BodyMismatch(f"{reading.store} sent {after_bytes} bytes, says the test")

    return tear


def short(after_bytes: int) -> Behaviour:
    """The object seems to end after so many bytes."""
    return lambda reading: healthy_part(reading, reading.data[:after_bytes])


def healthy_part(reading: Reading, data: bytes) -> None:
    if data:
        reading.send(data)


def lying(*offsets: int) -> Behaviour:
    """The right length, with the bytes at these offsets of the object changed; by default all."""

    def lie(reading: Reading) -> None:
        body = bytearray(reading.data)
        for at in offsets or range(reading.offset, reading.offset + len(body)):
            if 0 <= at - reading.offset < len(body):
                body[at - reading.offset] ^= 0x10
        if body:
            reading.send(bytes(body))

    return lie


def stalling(after_bytes: int = 0, patience_s: float | None = None) -> Behaviour:
    """Nothing more comes after so many bytes, until the read is stopped or released.

    With ``patience_s`` it is given up after that time, as an adapter of a network store does.
    """

    def stall(reading: Reading) -> None:
        if reading.data[:after_bytes]:
            reading.send(reading.data[:after_bytes])
        reading.pause(patience_s or GUARD_S)
        if patience_s is not None:
            raise TransferDeadline(f"{reading.store} is silent, says the test")
        if reading.data[after_bytes:]:
            reading.send(reading.data[after_bytes:])

    return stall


def dripping(reading: Reading) -> None:
    """A byte now and then."""
    for start in range(len(reading.data)):
        reading.send(reading.data[start : start + 1])
        reading.pause(DRIP_S)


class SlowStore:
    """A :class:`store.port.Store` whose reads behave as ``behave`` says, one after the other.

    ``readings`` are all the reads so far, ``most_in_flight`` how many bulk reads there were at once
    at most.
    """

    def __init__(
        self, behind: Store, behave: Callable[[Reading], Behaviour] = lambda _: healthy
    ) -> None:
        self._behind = behind
        self.behave = behave
        self.readings: list[Reading] = []
        self.in_flight = 0
        self.most_in_flight = 0
        self._lock = threading.Lock()

    @property
    def url(self) -> str:
        return self._behind.url

    @property
    def bulk(self) -> list[Reading]:
        """The bulk reads so far."""
        with self._lock:
            return [reading for reading in self.readings if reading.is_bulk]

    def release(self) -> None:
        """Let every stalled read go on."""
        with self._lock:
            for reading in self.readings:
                reading.ended.set()

    def get(self, key: str, *, offset: int = 0, length: int) -> bytes:
        buffer = bytearray(length)
        count = self._read(key, offset, memoryview(buffer), UNWATCHED, is_bulk=False)
        return bytes(buffer[:count])

    def read_into(
        self, key: str, *, offset: int, buffer: memoryview, transfer: Transfer = UNWATCHED
    ) -> int:
        if type(transfer) is Stoppable:  # a table, which is read as a whole
            return self._read(key, offset, buffer, transfer, is_bulk=False)
        with self._lock:
            self.in_flight += 1
            self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            return self._read(key, offset, buffer, transfer, is_bulk=True)
        finally:
            with self._lock:
                self.in_flight -= 1

    def get_versioned(self, key: str, *, limit_bytes: int) -> VersionedBytes | None:
        return self._behind.get_versioned(key, limit_bytes=limit_bytes)

    def put_if_absent(self, key: str, parts: Sequence[bytes | memoryview]) -> bool:
        return self._behind.put_if_absent(key, parts)

    def compare_and_swap(self, key: str, data: bytes, expected: str | None) -> bool:
        return self._behind.compare_and_swap(key, data, expected)

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        return self._behind.list(prefix)

    def stat(self, key: str) -> ObjectInfo | None:
        return self._behind.stat(key)

    def delete(self, key: str) -> None:
        self._behind.delete(key)

    def _read(
        self, key: str, offset: int, buffer: memoryview, transfer: Transfer, *, is_bulk: bool
    ) -> int:
        data = self._behind.get(key, offset=offset, length=len(buffer))
        with self._lock:
            number = len(self.readings)
            reading = Reading(self.url, key, offset, data, buffer, transfer, is_bulk, number)
            self.readings.append(reading)
        transfer.stop_by(reading.stop)
        self.behave(reading)(reading)
        return reading.sent_bytes
