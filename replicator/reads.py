"""What is being read: how it is ended, and for a run its memory and the watch over what arrives."""

from __future__ import annotations

import threading
from collections.abc import Callable

from durable.bulk_file import AlignedBuffer
from manifests.errors import (
    BodyMismatch,
    ExpansionExceeded,
    LengthExceeded,
    StoreUnavailable,
    TransferDeadline,
)
from replicator.runs import Run
from replicator.signed_chunks import SignedChunks
from replicator.sources import Place, corrupt

FAILURES = (
    StoreUnavailable,
    BodyMismatch,
    TransferDeadline,
    LengthExceeded,
    ExpansionExceeded,
)
"""What a read raises where its source does not answer as it should: nothing is known to be lost."""


class Stoppable:
    """Something that is being read, which another thread may stop; a :class:`store.port.Transfer`.

    Attributes:
        arrived_bytes: how much came; what was asked for again counts each time.
        stopped: whether it is not wanted any more.
    """

    def __init__(self) -> None:
        self.arrived_bytes = 0
        self.stopped = False
        self._stop: Callable[[], None] | None = None
        self._lock = threading.Lock()

    def stop(self) -> None:
        """End it, wherever it is."""
        with self._lock:
            self.stopped = True
            if self._stop is not None:
                self._stop()

    def stop_by(self, stop: Callable[[], None]) -> None:
        """See :meth:`store.port.Transfer.stop_by`."""
        with self._lock:
            self._stop = stop
            if self.stopped:
                stop()

    def arrived(self, size_bytes: int) -> None:
        """See :meth:`store.port.Transfer.arrived`."""
        if self.stopped:
            raise TransferDeadline("the read is not wanted any more")
        self.arrived_bytes += size_bytes

    def ended(self) -> None:
        """Nothing is to be stopped any more; what knows how to also knows this read's memory."""
        with self._lock:
            self._stop = None


class Read(Stoppable):
    """One attempt at a run."""

    def __init__(
        self,
        chunks: SignedChunks,
        run: Run,
        buffer: AlignedBuffer,
        *,
        started_s: float,
        is_hedge: bool,
    ) -> None:
        super().__init__()
        self.chunks = chunks
        self.run = run
        self.buffer = buffer
        self.started_s = started_s
        self.is_hedge = is_hedge
        self.missing = set(run.chunks)
        self.asked: list[str] = []
        self.unanswered = False
        """Whether someone who may have some of it could not be asked."""
        self.overtaken = False
        """Whether it was stopped because a later one was faster."""

    @property
    def memory(self) -> memoryview:
        """Where the run's bytes go: at a repair symbol's offsets, or at the artifact's."""
        geometry = self.run.geometry
        source = geometry.is_source(self.run.number)
        return self.buffer.at(*(self.run.in_artifact if source else self.run.in_symbol))


class Watch:
    """Checks each chunk of a part of a run as soon as its last byte has come."""

    def __init__(self, read: Read, part: Run, memory: memoryview, place: Place) -> None:
        self._read = read
        self._part = part
        self._memory = memory
        self._place = place
        self._chunks = iter(part.chunks)
        self._next = next(self._chunks, None)
        self.arrived_bytes = 0

    def stop_by(self, stop: Callable[[], None]) -> None:
        """See :meth:`store.port.Transfer.stop_by`."""
        self._read.stop_by(stop)

    def arrived(self, size_bytes: int) -> None:
        """See :meth:`store.port.Transfer.arrived`."""
        self._read.arrived(size_bytes)
        self.arrived_bytes += size_bytes
        while self._next is not None:
            offset, length = self._part.within(self._next)
            if offset + length > self.arrived_bytes:
                break
            data = self._memory[offset : offset + length]
            if self._read.chunks.good(self._part.number, self._next, data):
                self._read.missing.discard(self._next)
            elif self._place.source.kind == "peer":
                raise corrupt(self._place, offset)
            self._next = next(self._chunks, None)
