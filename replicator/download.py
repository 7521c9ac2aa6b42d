"""Reading runs: several at a time, from one source after the other, every chunk checked.

A read that takes much longer than others is *hedged*: the same run is asked for once more, where
possible elsewhere, and whichever comes first counts (Dean and Barroso, "The Tail at Scale", 2013).
"""

from __future__ import annotations

import queue
import statistics
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from functools import partial
from typing import Self

from durable.bulk_file import AlignedBuffer
from manifests.errors import (
    BodyMismatch,
    DiskError,
    GenctlError,
    ObjectMissing,
    PeerCorrupt,
    StoreUnavailable,
    TransferDeadline,
)
from replicator.reads import FAILURES, Read, Stoppable, Watch
from replicator.runs import RUN_SIZE_BYTES, Run
from replicator.signed_chunks import SignedChunks
from replicator.sources import Place, Sources, corrupt
from replicator.tally import Counting

HEDGES_AT_ONCE = 2
HEDGE_FACTOR = 4
HEDGE_AFTER_S = 1.0
"""No read is hedged before it took this long, and ``HEDGE_FACTOR`` times as long as is usual."""

UNKNOWN_BYTES_PER_S = 2 << 20
"""A read that is faster than this is not hedged as long as nothing is known of what is usual."""

TABLES_AT_ONCE = 8
ATTEMPTS = 3
"""How often a source is asked for what it began to send."""

REMEMBERED_READS = 32
DEADLINE_CHECK_S = 1.0
"""How often who waits looks whether the transfer's time is over."""

_Memory = queue.SimpleQueue[AlignedBuffer | None]


@dataclass(frozen=True, slots=True)
class Arrived:
    """A run in memory; its ``missing`` chunks are not there, or not as they were signed."""

    run: Run
    memory: memoryview
    buffer: AlignedBuffer
    missing: frozenset[int]


@dataclass(slots=True)
class Pending:
    """A run that was asked for."""

    chunks: SignedChunks
    run: Run
    reads: dict[Future[bool], Read] = field(default_factory=dict)


class Downloads:
    """The reads of one transfer.

    Args:
        sources: whom to ask.
        reads_at_once: how many runs may be in memory, asked for or arrived and not given back.
        deadline_s: when, by ``now_s``, the whole transfer is given up.
        now_s: a clock that never goes back, in seconds.
        hedge_after_s: no read is asked for a second time before it took this long.
        is_over: says, once in a while, whether the transfer is to be given up now.
    """

    def __init__(
        self,
        sources: Sources,
        reads_at_once: int,
        deadline_s: float,
        now_s: Callable[[], float],
        *,
        hedge_after_s: float = 0.0,
        is_over: Callable[[], bool] = lambda: False,
    ) -> None:
        self.sources = sources
        self.counting = Counting()
        self.mending = threading.Lock()
        """Held by the one artifact that is being rebuilt: that takes memory of its own."""
        self.reads_at_once = reads_at_once
        self._deadline_s = deadline_s
        self._now_s = now_s
        self._least_hedge_after_s = hedge_after_s
        self._is_over = is_over
        self._pool = ThreadPoolExecutor(reads_at_once + HEDGES_AT_ONCE)
        self._tables = ThreadPoolExecutor(TABLES_AT_ONCE)
        """Threads of their own: who waits for a table keeps nobody from bytes."""
        self._free: _Memory = queue.SimpleQueue()
        self._spare: _Memory = queue.SimpleQueue()
        for _ in range(reads_at_once):
            self._free.put(None)
        for _ in range(HEDGES_AT_ONCE):
            self._spare.put(None)
        self._took: deque[tuple[int, float]] = deque(maxlen=REMEMBERED_READS)
        self._reads: set[Stoppable] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self._pool.shutdown(cancel_futures=True)
        self._tables.shutdown(cancel_futures=True)

    def stop(self) -> None:
        """End the transfer now: its reads end, and who waits or asks gets ``TransferDeadline``."""
        self._deadline_s = float("-inf")
        for read in self._reads.copy():
            read.stop()

    def start(self, chunks: SignedChunks, run: Run, *, wait_for_memory: bool) -> Pending | None:
        """Ask for a run; ``None`` if there is no memory for it and the caller will not wait.

        Who holds runs that arrived must not wait, or all could wait for one another.

        Raises:
            TransferDeadline: the transfer's time is over.
        """
        while True:
            self.check_deadline()
            try:
                buffer = self._free.get(block=wait_for_memory, timeout=DEADLINE_CHECK_S)
            except queue.Empty:
                if not wait_for_memory:
                    return None
                continue
            pending = Pending(chunks, run)
            self._submit(pending, buffer)
            return pending

    def result(self, pending: Pending) -> Arrived:
        """Wait for a run; :meth:`release` its buffer when its bytes are dealt with.

        Raises:
            TransferDeadline: the transfer's time is over.
            Unrepairable, StoreUnavailable, BodyMismatch, LengthExceeded, ExpansionExceeded: the
                table of hashes cannot be had.
        """
        try:
            return self._first_whole(pending)
        except BaseException:
            self.abandon(pending)
            raise

    def abandon(self, pending: Pending) -> None:
        """Stop a run that nobody waits for any more."""
        self._stop_all(pending, self._free, won=False)

    def release(self, arrived: Arrived) -> None:
        """Give the memory of a run back."""
        self._free.put(arrived.buffer)

    def get(self, place: Place, length: int) -> bytes:
        """A few bytes that stand there, fewer where they end, within the transfer's time.

        Where they were cut short they are asked for again, ``ATTEMPTS`` times in all.

        Raises:
            TransferDeadline: that is over.
            ObjectMissing, StoreUnavailable, BodyMismatch, LengthExceeded, ExpansionExceeded,
                DiskError: see :meth:`store.port.Store.read_into`.
        """
        data = bytearray(length)
        for attempts_left in reversed(range(ATTEMPTS)):
            self.check_deadline()
            read = Stoppable()
            self._reads.add(read)
            future = self._tables.submit(
                place.source.store.read_into,
                place.key,
                offset=place.offset,
                buffer=memoryview(data),
                transfer=read,
            )
            try:
                while not wait([future], timeout=DEADLINE_CHECK_S).done:
                    self.check_deadline()
                return bytes(data[: future.result()])
            except (BodyMismatch, StoreUnavailable):
                if not (read.arrived_bytes and attempts_left) or read.stopped:
                    raise
            finally:
                read.stop()
                read.ended()
                self._reads.discard(read)
        raise AssertionError("the last attempt returns or raises")

    def _first_whole(self, pending: Pending) -> Arrived:
        """The first read of the run that has all of it, or the last one."""
        size_bytes = pending.run.in_symbol.length
        waited_s = 0.0
        while True:
            left_s = max(0.0, self._deadline_s - self._now_s())
            hedge_s = max(0.0, self._hedge_after_s(size_bytes) - waited_s)
            timeout_s = min(DEADLINE_CHECK_S, left_s, hedge_s)
            done, _ = wait(pending.reads, timeout=timeout_s, return_when=FIRST_COMPLETED)
            for future in done:
                is_whole = future.result()
                if not is_whole:
                    self.check_deadline()
                read = pending.reads.pop(future)
                self._reads.discard(read)
                if is_whole or not pending.reads:
                    self._stop_all(pending, self._spare, won=True)
                    # Its own time: the wait before a hedge would make the next wait longer.
                    self._took.append((size_bytes, self._now_s() - read.started_s))
                    return Arrived(pending.run, read.memory, read.buffer, frozenset(read.missing))
                self._spare.put(read.buffer)
            if not done:
                self.check_deadline()
                waited_s += timeout_s
                if timeout_s == hedge_s:
                    self._hedge(pending)
                    waited_s = 0.0

    def check_deadline(self) -> None:
        """Raise ``TransferDeadline`` if the transfer's time is over, or it was stopped."""
        if self._is_over():
            self.stop()
            raise TransferDeadline(
                "the transfer was told to end; what arrived is kept, and the next run goes on from "
                "there"
            )
        if self._now_s() >= self._deadline_s:
            raise TransferDeadline(
                "the transfer took longer than its size allows, and was given up; what arrived is "
                "kept, and the next run goes on from there"
            )

    def _hedge_after_s(self, size_bytes: int) -> float:
        """How long to wait for so many bytes before somebody else is asked for them too."""
        # Of much shorter reads most is the wait for the answer, which says nothing of a rate.
        usual_s = [
            took_s * min(1, size_bytes / read_bytes)
            for read_bytes, took_s in self._took
            if 2 * read_bytes >= size_bytes
        ]
        patience_s = size_bytes / UNKNOWN_BYTES_PER_S
        if usual_s:
            patience_s = HEDGE_FACTOR * statistics.median(usual_s)
        return max(HEDGE_AFTER_S, self._least_hedge_after_s, patience_s)

    def _hedge(self, pending: Pending) -> None:
        if len(pending.reads) > 1:
            return
        try:
            buffer = self._spare.get(block=False)
        except queue.Empty:
            return
        self._submit(pending, buffer)

    def _submit(self, pending: Pending, buffer: AlignedBuffer | None) -> None:
        # A buffer is made when it is first needed: a small transfer never needs them all.
        needed_bytes = max(RUN_SIZE_BYTES, pending.run.in_symbol.length)
        memory = buffer
        if memory is None or memory.capacity_bytes < needed_bytes:
            memory = AlignedBuffer(needed_bytes)
        avoid = [url for other in pending.reads.values() for url in other.asked]
        started_s, is_hedge = self._now_s(), bool(pending.reads)
        read = Read(pending.chunks, pending.run, memory, started_s=started_s, is_hedge=is_hedge)
        self._reads.add(read)
        pending.reads[self._pool.submit(self._run, read, avoid)] = read

    def _stop_all(self, pending: Pending, memory: _Memory, *, won: bool) -> None:
        """Stop the reads of a run; ``memory`` gets the first one's buffer."""
        for future, read in pending.reads.items():
            read.overtaken = won and not read.is_hedge
            read.stop()
            # Its memory is free when its thread has let go of it.
            future.add_done_callback(partial(self._let_go, read, memory))
            memory = self._spare
            self._reads.discard(read)
        pending.reads.clear()

    def _let_go(self, read: Read, memory: _Memory, _: Future[bool]) -> None:
        memory.put(read.buffer)

    def _run(self, read: Read, avoid: list[str]) -> bool:
        """Read a run from whoever has it; whether all of it arrived."""
        places = self.sources.of_run(read.chunks.artifact_id, read.run)
        # Where one peer is slow, others may be: a second request goes to a store first.
        places.sort(
            key=lambda place: (
                place.source.url in avoid,
                read.is_hedge and place.source.kind == "peer",
            )
        )
        for place in places:
            if not read.missing or read.stopped:
                break
            read.asked.append(place.source.url)
            for attempts_left in reversed(range(ATTEMPTS)):
                parts = read.run.parts(read.missing)
                again = [self._read_part(read, part, place, attempts_left) for part in parts]
                if not any(again):
                    break
        unanswered = read.unanswered or self.sources.unavailable() is not None
        if read.missing and not read.stopped and not unanswered:
            self.counting.damaged(read.chunks.artifact_id, read.run.number)
        return not read.missing

    def _read_part(self, read: Read, part: Run, place: Place, attempts_left: int) -> bool:
        """Read a part of a run; whether it was cut short and is worth asking for once more."""
        offset = part.in_symbol.offset - read.run.in_symbol.offset
        memory = read.memory[offset : offset + part.in_symbol.length]
        watch = Watch(read, part, memory, place)
        source = place.source
        try:
            count = source.store.read_into(
                place.key, offset=place.offset + offset, buffer=memory, transfer=watch
            )
            if source.kind == "peer" and count < len(memory):
                raise corrupt(place, offset + count)
            self.sources.succeeded(place)
        except ObjectMissing:
            self.sources.absent(place)
        except PeerCorrupt as error:
            self.counting.lied(source.url)
            self.sources.lied(place, error)
        except DiskError:
            self._read_around(read, part, place)
        except FAILURES as error:
            # A connection that broke after it gave something says little of its source.
            cut = watch.arrived_bytes > 0 and isinstance(error, (BodyMismatch, StoreUnavailable))
            if cut and attempts_left and not read.stopped:
                return True
            self._blame(read, place, error)
        finally:
            read.ended()
            self.counting.moved(source.kind, source.url, watch.arrived_bytes)
        return False

    def _blame(self, read: Read, place: Place, error: GenctlError) -> None:
        source = place.source
        if read.overtaken:
            # A peer is not worth waiting for. A store that is slow is still what a node lives on.
            if source.kind == "peer":
                slow = TransferDeadline(f"{source.url} is much slower than usual", store=source.url)
                self.sources.failed(place, slow)
        elif not read.stopped:
            self.sources.failed(place, error)
            if source.kind == "store":
                read.unanswered, read.chunks.unavailable = True, error

    def _read_around(self, read: Read, part: Run, place: Place) -> None:
        """Read each chunk by itself after a failure of a disk: it may be of one sector."""
        if part.count > 1:
            # Those that came before the failure count already, and their memory is left alone.
            for chunk in read.missing.intersection(part.chunks):
                (single,) = read.run.parts([chunk])
                self._read_part(read, single, place, 0)
