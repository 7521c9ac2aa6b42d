"""Rebuild the chunks that no source has, from the other chunks of their columns.

The good source chunks of a column are on the disk by then; only repair chunks are still to be
fetched, as many as the column lacks. Columns are independent of one another, and rebuilt side by
side.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from durable.bulk_file import AlignedBuffer, BulkFile
from manifests.errors import Unrepairable
from replicator.download import Downloads
from replicator.repair_events import told
from replicator.runs import Run, runs_of
from replicator.signed_chunks import SignedChunks
from replicator.tables import HOW_TO_MEND
from symbols.decode import rebuild_chunks

MAX_THREADS = 4
WINDOW_SIZE_BYTES = 8 << 20
"""How many bytes of repair chunks are fetched before they are used."""

Losses = dict[int, set[int]]
"""The source symbols whose chunk is missing, by column."""

Shares = dict[int, dict[int, bytes]]
"""Chunks by column and symbol number."""


def mend(
    downloads: Downloads,
    chunks: SignedChunks,
    file: BulkFile,
    losses: Losses,
    progress: Callable[[int], None],
) -> None:
    """Rebuild ``losses`` into ``file``, which holds every other source chunk.

    Raises:
        Unrepairable: too few repair chunks are left.
        StoreUnavailable, BodyMismatch, TransferDeadline: too few could be asked for.
        BadSymbolSet: good chunks gave a wrong one: the symbols are not of one artifact.
        DiskFull, DiskError: the disk refuses.
    """
    work = _Mending(downloads, chunks, file, losses, progress)
    at_once = min(MAX_THREADS, len(os.sched_getaffinity(0)))
    under_way: deque[Future[None]] = deque()
    file.flush()
    with (
        downloads.mending,
        told(chunks.artifact, lost_chunks=sum(map(len, losses.values()))),
        ThreadPoolExecutor(at_once) as pool,
    ):
        for columns in work.windows():
            under_way.append(pool.submit(work.rebuild, work.repair_chunks(columns)))
            if len(under_way) > at_once:
                under_way.popleft().result()
        for future in under_way:
            future.result()


class _Mending:
    def __init__(
        self,
        downloads: Downloads,
        chunks: SignedChunks,
        file: BulkFile,
        losses: Losses,
        progress: Callable[[int], None],
    ) -> None:
        self._downloads = downloads
        self._chunks = chunks
        self._geometry = chunks.geometry
        self._file = file
        self._losses = losses
        self._progress = progress

    def windows(self) -> Iterator[list[int]]:
        """The columns to rebuild, so many at a time that their repair chunks fit in a window."""
        columns = sorted(self._losses)
        most_lost = max(map(len, self._losses.values()))
        at_once = max(1, WINDOW_SIZE_BYTES // (self._geometry.chunk_size_bytes * most_lost))
        for first in range(0, len(columns), at_once):
            yield columns[first : first + at_once]

    def repair_chunks(self, columns: Sequence[int]) -> Shares:
        """Fetch as many repair chunks of each column as it has lost source chunks."""
        shares: Shares = {column: {} for column in columns}
        for number in range(self._geometry.k, self._geometry.m):
            short = [c for c in columns if len(shares[c]) < len(self._losses[c])]
            for run in runs_of(self._geometry, number, short):
                self._fetch(run, shares)
        for column in columns:
            if len(shares[column]) < len(self._losses[column]):
                raise self._too_few(column, len(shares[column]))
        return shares

    def rebuild(self, shares: Shares) -> None:
        """Rebuild the lost chunks of each column from these repair chunks and the file."""
        size_bytes = self._geometry.chunk_size_bytes
        buffers = [AlignedBuffer(size_bytes) for _ in range(self._geometry.k)]
        for column, repairs in shares.items():
            lost = self._losses[column]
            given: dict[int, bytes | memoryview] = dict(repairs)
            for number, buffer in enumerate(buffers):
                if number not in lost and column < self._geometry.chunk_count(number):
                    offset, length = self._geometry.chunk_source_range(number, column)
                    given[number] = self._file.read(offset, buffer, length)
            rebuilt = rebuild_chunks(self._geometry, self._chunks.table, lost, column, given)
            for number, data in rebuilt.items():
                offset = self._geometry.chunk_source_range(number, column).offset
                self._file.patch(offset, data)
                self._downloads.counting.repaired(self._chunks.artifact_id, len(data))
                self._progress(len(data))

    def _fetch(self, run: Run, shares: Shares) -> None:
        pending = self._downloads.start(self._chunks, run, wait_for_memory=True)
        assert pending is not None  # noqa: S101 - for the type checker
        arrived = self._downloads.result(pending)
        for chunk in set(run.chunks) - arrived.missing:
            offset, length = run.within(chunk)
            shares[chunk][run.number] = bytes(arrived.memory[offset : offset + length])
        self._downloads.release(arrived)

    def _too_few(self, column: int, given: int) -> Exception:
        unavailable = self._chunks.unavailable or self._downloads.sources.unavailable()
        if unavailable is not None:
            return unavailable
        artifact = self._chunks.artifact
        damaged = self._downloads.counting.damaged_of(artifact.blake3)
        urls = ", ".join(source.url for source in self._downloads.sources.stores)
        return Unrepairable(
            f"{artifact.name} ({artifact.blake3[:12]}…) cannot be rebuilt from {urls}: "
            f"{len(self._losses[column])} chunks of column {column} are lost and only {given} "
            f"repair chunks are intact; symbols lost or damaged: {damaged}, it survives "
            f"{artifact.symbols.survives}. {HOW_TO_MEND}",
            artifact=artifact.name,
            artifact_id=artifact.blake3,
            damaged_symbols=damaged,
            column=column,
        )
