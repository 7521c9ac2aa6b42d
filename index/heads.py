"""The head table: the id and the title of every row, found without touching the text index.

A search ends in rows; answering with ids and titles from here costs half a microsecond a hit,
where the text index's document store costs a decompression.

Format (all integers little-endian): ``n + 1`` uint64 offsets, then the records; record ``i`` is the
bytes between offsets ``i`` and ``i + 1`` (counted from the start of the file): a msgpack array
``[id, title]``. ``n`` is in the manifest.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec

from durable.files import translated
from manifests.errors import ActivationFailed


class Head(msgspec.Struct, frozen=True, array_like=True):
    """A document's id and title."""

    id: str
    title: str


_decode = msgspec.msgpack.Decoder(Head).decode


def head_table_parts(heads: Iterable[Head]) -> list[bytes]:
    """The bytes of a head table, in pieces ready to be written one after the other."""
    records = [msgspec.msgpack.encode(head) for head in heads]
    position = 8 * (len(records) + 1)
    offsets = [position]
    for record in records:
        position += len(record)
        offsets.append(position)
    return [struct.pack(f"<{len(offsets)}Q", *offsets), b"".join(records)]


class HeadTable:
    """A verified head table, memory-mapped; holds the rows ``first_row`` … ``end_row - 1``."""

    def __init__(self, path: Path, first_row: int, rows: int) -> None:
        """Map the table.

        Raises:
            ActivationFailed: the file cannot hold the rows that the manifest says it has.
        """
        self.first_row = first_row
        self.end_row = first_row + rows
        with translated(path), path.open("rb") as file:
            self._bytes = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        if len(self._bytes) >= 8 * (rows + 1):
            self._offsets = self._bytes[: 8 * (rows + 1)].cast("Q")
            if self._offsets[rows] == len(self._bytes):
                return
        raise ActivationFailed(f"{path.name} does not hold {rows} rows", artifact=path.name)

    def head(self, row: int) -> Head:
        """The id and title of ``row``, which must be in this table."""
        place = row - self.first_row
        return _decode(self._bytes[self._offsets[place] : self._offsets[place + 1]])

    def __iter__(self) -> Iterator[tuple[int, Head]]:
        """All rows with their heads, in order of rows."""
        return ((row, self.head(row)) for row in range(self.first_row, self.end_row))
