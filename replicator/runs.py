"""Runs: the consecutive chunks of one symbol that are read with one request (pure)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from symbols.geometry import ByteRange, Geometry

RUN_SIZE_BYTES = 16 << 20
"""A run is as many chunks as fit; every read in flight holds that much memory."""


@dataclass(frozen=True, slots=True)
class Run:
    """Chunks ``first`` … ``first + count - 1`` of symbol ``number``."""

    geometry: Geometry
    number: int
    first: int
    count: int

    @property
    def chunks(self) -> range:
        """The numbers of its chunks."""
        return range(self.first, self.first + self.count)

    @property
    def in_symbol(self) -> ByteRange:
        """Where it stands in the symbol, and so in its stored object."""
        start = self.geometry.chunk_range(self.number, self.first).offset
        last = self.geometry.chunk_range(self.number, self.first + self.count - 1)
        return ByteRange(start, last.offset + last.length - start)

    @property
    def in_artifact(self) -> ByteRange:
        """Where a run of a source symbol stands in the artifact."""
        offset, length = self.in_symbol
        return ByteRange(self.geometry.source_range(self.number).offset + offset, length)

    def within(self, chunk: int) -> ByteRange:
        """Where one of its chunks stands in it."""
        offset, length = self.geometry.chunk_range(self.number, chunk)
        return ByteRange(offset - self.in_symbol.offset, length)

    def parts(self, chunks: Iterable[int]) -> list[Run]:
        """Those of its ``chunks``, given in any order, as the fewest runs."""
        return list(_joined(self.geometry, self.number, sorted(chunks), self.count))


def runs_of(geometry: Geometry, number: int, chunks: Iterable[int]) -> Iterator[Run]:
    """Chunks of a symbol, in ascending order, as the fewest runs of ``RUN_SIZE_BYTES`` at most.

    What follows one another is cut evenly, so that all memory for runs is used alike.
    """
    most = max(1, RUN_SIZE_BYTES // geometry.chunk_size_bytes)
    return _joined(geometry, number, chunks, most)


def source_runs(geometry: Geometry) -> Iterator[Run]:
    """All of the artifact, in the order of its bytes."""
    for number in range(geometry.k):
        yield from runs_of(geometry, number, range(geometry.chunk_count(number)))


def _joined(geometry: Geometry, number: int, chunks: Iterable[int], most: int) -> Iterator[Run]:
    first = count = 0
    for chunk in chunks:
        if count and chunk != first + count:
            yield from _cut(Run(geometry, number, first, count), most)
            count = 0
        if not count:
            first = chunk
        count += 1
    if count:
        yield from _cut(Run(geometry, number, first, count), most)


def _cut(run: Run, most: int) -> Iterator[Run]:
    pieces = -(-run.count // most)
    for piece in range(pieces):
        start, end = (run.count * each // pieces for each in (piece, piece + 1))
        yield Run(run.geometry, run.number, run.first + start, end - start)
