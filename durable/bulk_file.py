"""Large files written at offsets, past the page cache where the file system allows it.

A verified download is written once and read again only where a query needs it. Written the usual
way it would push everything else out of memory, and on a machine short of clean pages the kernel
spends longer finding some than the disk takes to store them (docs/adr/0016). ``O_DIRECT`` asks for
addresses, offsets and lengths that are multiples of the block size, and the pieces of an artifact
are none: so each piece is read into an :class:`AlignedBuffer` at the place that its offset in the
file has within a block, and the block that two pieces share is carried from one to the next.
"""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
from pathlib import Path

from durable.files import step, translated

BLOCK_SIZE_BYTES = 4096
"""What ``O_DIRECT`` wants everything to be a multiple of, on every disk in use today."""


class AlignedBuffer:
    """Memory for ``capacity_bytes`` bytes that :class:`BulkFile` can write without copying them."""

    def __init__(self, capacity_bytes: int) -> None:
        self.capacity_bytes = capacity_bytes
        blocks = -(-capacity_bytes // BLOCK_SIZE_BYTES) + 1
        self._memory = memoryview(mmap.mmap(-1, blocks * BLOCK_SIZE_BYTES))

    def at(self, offset_bytes: int, length: int) -> memoryview:
        """The memory for ``length`` bytes that stand at ``offset_bytes`` of a file."""
        head = offset_bytes % BLOCK_SIZE_BYTES
        return self._memory[head : head + length]

    def blocks(self, length: int) -> memoryview:
        """The first ``length`` bytes from the start of a block on."""
        return self._memory[:length]


class BulkFile:
    """A file that pieces are written to at any offset, fastest where each follows the one before.

    Nothing is durable, and the last block of a sequence perhaps not written, before :meth:`finish`
    has returned.

    Raises:
        DiskFull, DiskError: from every method.
    """

    def __init__(self, path: Path, *, direct: bool) -> None:
        """Open ``path``, made if it is not there; ``direct`` is past the page cache."""
        self._path = path
        step("write", path)
        with translated(path):
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
            try:
                self._direct = self._open_direct() if direct else None
            except BaseException:
                os.close(self._descriptor)
                raise
        self._next_bytes = 0
        self._carry = b""

    def write(self, offset_bytes: int, buffer: AlignedBuffer, length: int) -> None:
        """Write ``buffer.at(offset_bytes, length)``, losing what stands before it in the buffer."""
        step("write-at", self._path)
        if self._direct is None:
            self._write_cached(offset_bytes, buffer.at(offset_bytes, length))
            return
        head = offset_bytes % BLOCK_SIZE_BYTES
        if offset_bytes != self._next_bytes:
            self.flush()
            with translated(self._path):
                before = os.pread(self._descriptor, head, offset_bytes - head)
            self._carry = before.ljust(head, b"\0")
        buffer.blocks(head)[:] = self._carry
        whole = (head + length) // BLOCK_SIZE_BYTES * BLOCK_SIZE_BYTES
        self._write_direct(offset_bytes - head, buffer.blocks(whole))
        self._carry = bytes(buffer.blocks(head + length)[whole:])
        self._next_bytes = offset_bytes + length

    @property
    def size_bytes(self) -> int:
        """How long the file is so far."""
        with translated(self._path):
            return os.fstat(self._descriptor).st_size

    def read(self, offset_bytes: int, buffer: AlignedBuffer, length: int) -> memoryview:
        """The bytes at ``offset_bytes``, in ``buffer``; fewer than ``length`` only at the end."""
        self.flush()
        head = offset_bytes % BLOCK_SIZE_BYTES
        start = offset_bytes - head
        wanted = head + length
        blocks = buffer.blocks(-(-wanted // BLOCK_SIZE_BYTES) * BLOCK_SIZE_BYTES)
        done = 0
        while done < wanted:
            with translated(self._path):
                # A direct read ends early only at the file's end, so its next offset is aligned.
                try:
                    count = os.preadv(self._readable(), [blocks[done:]], start + done)
                except OSError as error:
                    if not self._cannot_be_direct(error):
                        raise
                    continue
            if count == 0:
                break
            done += count
            if count % BLOCK_SIZE_BYTES:
                break
        return blocks[head : max(head, min(done, wanted))]

    def patch(self, offset_bytes: int, data: bytes | memoryview) -> None:
        """Write ``data`` out of sequence, through the page cache; several threads may.

        Not over what :meth:`write` has written since the last :meth:`flush`.
        """
        step("write-at", self._path)
        self._write_cached(offset_bytes, data)

    def flush(self) -> None:
        """Write the block that the last piece began; until then nothing else may read it."""
        if self._carry:
            self._write_cached(self._next_bytes - len(self._carry), self._carry)
            self._carry = b""
            self._next_bytes = -1  # what follows reads its block's beginning back

    def finish(self, size_bytes: int) -> None:
        """Cut the file to ``size_bytes`` and make all of it durable."""
        self.flush()
        step("fsync", self._path)
        with translated(self._path):
            if os.fstat(self._descriptor).st_size != size_bytes:
                os.ftruncate(self._descriptor, size_bytes)
            os.fsync(self._descriptor)

    def close(self) -> None:
        """Let go of the file; says nothing about durability."""
        os.close(self._descriptor)
        if self._direct is not None:
            os.close(self._direct)
            self._direct = None

    def _readable(self) -> int:
        return self._descriptor if self._direct is None else self._direct

    def _open_direct(self) -> int | None:
        try:
            return os.open(self._path, os.O_RDWR | os.O_DIRECT)
        except OSError as error:
            if error.errno == errno.EINVAL:
                return None  # the file system knows no such thing: memory, or a network's
            raise

    def _write_direct(self, offset_bytes: int, blocks: memoryview) -> None:
        assert self._direct is not None  # noqa: S101 - for the type checker
        while blocks:
            with translated(self._path):
                try:
                    count = os.pwrite(self._direct, blocks, offset_bytes)
                except OSError as error:
                    if not self._cannot_be_direct(error):
                        raise
                    continue
            offset_bytes += count
            blocks = blocks[count:]

    def _cannot_be_direct(self, error: OSError) -> bool:
        """Go through the page cache from now on, if larger blocks are wanted than any seen yet."""
        if self._direct is None or error.errno != errno.EINVAL:
            return False
        flags = fcntl.fcntl(self._direct, fcntl.F_GETFL)
        fcntl.fcntl(self._direct, fcntl.F_SETFL, flags & ~os.O_DIRECT)
        return bool(flags & os.O_DIRECT)

    def _write_cached(self, offset_bytes: int, data: bytes | memoryview) -> None:
        rest = memoryview(data)
        while rest:
            with translated(self._path):
                count = os.pwrite(self._descriptor, rest, offset_bytes)
            offset_bytes += count
            rest = rest[count:]
