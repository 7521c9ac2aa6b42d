"""The head table: the id and the title of every row, found without touching the text index.

A search ends in rows; answering with ids and titles from here costs half a microsecond a hit,
where the text index's document store costs a decompression.

Format (all integers little-endian): ``n + 1`` uint64 offsets; in a table that leaves rows out, the
``n`` rows it holds, uint64 and ascending; then the records. Record ``i`` is the bytes between
offsets ``i`` and ``i + 1`` (counted from the start of the file): a msgpack array ``[id, title]``.
``n`` and the first row are in the manifest; the first offset says whether rows are listed.
"""

from __future__ import annotations

import mmap
import struct
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from durable.files import translated
from manifests.errors import ActivationFailed


class Head(msgspec.Struct, frozen=True, array_like=True):
    """A document's id and title."""

    id: str
    title: str


_decode = msgspec.msgpack.Decoder(Head).decode


def head_table_parts(
    heads: Iterable[Head | msgspec.Raw], rows: NDArray[np.uint64] | None = None
) -> list[bytes]:
    """The bytes of a head table, in pieces ready to be written one after the other.

    Args:
        heads: one a row, in order of rows; or the records of another table as they are.
        rows: which rows these are, ascending; by default each follows the one before.
    """
    records = [msgspec.msgpack.encode(head) for head in heads]
    listed = b"" if rows is None else rows.astype("<u8").tobytes()
    position = 8 * (len(records) + 1) + len(listed)
    offsets = [position]
    for record in records:
        position += len(record)
        offsets.append(position)
    return [struct.pack(f"<{len(offsets)}Q", *offsets), listed, b"".join(records)]


class HeadTable:
    """A verified head table, memory-mapped."""

    def __init__(self, path: Path, first_row: int, rows: int) -> None:
        """Map the table of so many rows, the first of them not before ``first_row``.

        Raises:
            ActivationFailed: the file cannot hold the rows that the manifest says it has.
        """
        self.first_row = first_row
        self._count = rows
        with translated(path), path.open("rb") as file:
            self._bytes = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        self._listed: memoryview | None = None
        if not self._is_table_of(rows, first_row):
            raise ActivationFailed(f"{path.name} does not hold {rows} rows", artifact=path.name)

    def _is_table_of(self, rows: int, first_row: int) -> bool:
        dense, sparse = 8 * (rows + 1), 8 * (2 * rows + 1)
        if len(self._bytes) < dense:
            return False
        self._offsets = self._bytes[:dense].cast("Q")
        if self._offsets[rows] != len(self._bytes):
            return False
        if self._offsets[0] == sparse and len(self._bytes) >= sparse:
            self._listed = self._bytes[dense:sparse].cast("Q")
            return bool((self.rows[1:] > self.rows[:-1]).all()) and self._listed[0] >= first_row
        return self._offsets[0] == dense

    @property
    def rows(self) -> NDArray[np.uint64]:
        """The rows of the table, ascending."""
        if self._listed is not None:
            return np.frombuffer(self._listed, dtype=np.uint64)
        return np.arange(self.first_row, self.first_row + self._count, dtype=np.uint64)

    def head(self, row: int) -> Head:
        """The id and title of ``row``, which must be in this table."""
        if self._listed is None:
            return self._at(row - self.first_row)
        return self._at(bisect_left(self._listed, row))

    def records(self, rows: Sequence[int]) -> list[msgspec.Raw]:
        """The records of ``rows``, which must be in this table, as they are."""
        places = np.searchsorted(self.rows, np.asarray(rows, dtype=np.uint64)).tolist()
        offsets = self._offsets
        return [
            msgspec.Raw(self._bytes[offsets[place] : offsets[place + 1]]).copy() for place in places
        ]

    def __iter__(self) -> Iterator[tuple[int, Head]]:
        """All rows with their heads, in order of rows."""
        return ((row, self._at(place)) for place, row in enumerate(self.rows.tolist()))

    def _at(self, place: int) -> Head:
        return _decode(self._bytes[self._offsets[place] : self._offsets[place + 1]])
