"""The body of an upload, read from where its parts lie in memory."""

from __future__ import annotations

import io
from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate


class PartsBody(io.RawIOBase):
    """The concatenation of ``parts`` as a file to read from; nothing is copied."""

    def __init__(self, parts: Sequence[bytes | memoryview]) -> None:
        super().__init__()
        self._parts = [memoryview(part).cast("B") for part in parts if len(part)]
        self._starts = [0, *accumulate(map(len, self._parts))]
        self._position = 0

    @property
    def size_bytes(self) -> int:
        """The length of all parts together."""
        return self._starts[-1]

    def readable(self) -> bool:
        """It is."""
        return True

    def seekable(self) -> bool:
        """It is."""
        return True

    def tell(self) -> int:
        """The offset of the next byte."""
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move to an offset from the start, from here or from the end."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self.size_bytes}[whence]
        self._position = base + offset
        return self._position

    def read(self, size: int = -1) -> memoryview:
        """A view of at most ``size`` next bytes of one part; an empty one at the end."""
        if self._position >= self.size_bytes:
            return memoryview(b"")
        number = bisect_right(self._starts, self._position) - 1
        start = self._position - self._starts[number]
        part = self._parts[number]
        piece = part[start:] if size < 0 else part[start : start + size]
        self._position += len(piece)
        return piece
