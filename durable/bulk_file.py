"""Large files written at offsets, past the page cache where the file system allows it.

A verified download is written once and read again only where a query needs it, and what is encoded
only to be sent. Written the usual way they would push everything else out of memory, and on a
machine short of clean pages the kernel spends longer finding some than the disk takes to store them
(docs/adr/0016). ``O_DIRECT`` asks for addresses, offsets and lengths that are multiples of the
block size, and the pieces of an artifact are none: so each piece is read into an
:class:`AlignedBuffer` at the place that its offset in the file has within a block, and the block
that two pieces share is carried from one to the next.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import mmap
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from durable.files import TEMPORARY_PREFIX, fsync_folder, rename_file, step, translated

BLOCK_SIZE_BYTES = 4096
"""What ``O_DIRECT`` wants everything to be a multiple of, on every disk in use today."""

DIRECT_FROM_BYTES = 4 << 20
"""Files from this size on are written past the page cache."""


class AlignedBuffer:
    """Memory for ``capacity_bytes`` bytes that :class:`BulkFile` can write without copying them.

    It takes :func:`aligned_size_bytes` of ``memory`` from its start, which begins with a block,
    or has memory of its own.
    """

    def __init__(self, capacity_bytes: int, memory: memoryview | None = None) -> None:
        self.capacity_bytes = capacity_bytes
        size_bytes = aligned_size_bytes(capacity_bytes)
        self._memory = memoryview(mmap.mmap(-1, size_bytes)) if memory is None else memory

    def at(self, offset_bytes: int, length: int) -> memoryview:
        """The memory for ``length`` bytes that stand at ``offset_bytes`` of a file."""
        head = offset_bytes % BLOCK_SIZE_BYTES
        return self._memory[head : head + length]

    def blocks(self, length: int) -> memoryview:
        """The first ``length`` bytes from the start of a block on."""
        return self._memory[:length]


def aligned_size_bytes(capacity_bytes: int) -> int:
    """What an :class:`AlignedBuffer` takes: whole blocks, and one to begin in."""
    return (-(-capacity_bytes // BLOCK_SIZE_BYTES) + 1) * BLOCK_SIZE_BYTES


@contextlib.contextmanager
def new_bulk_file(path: Path, size_bytes: int) -> Iterator[BulkFile]:
    """Yield a file of ``size_bytes`` that becomes ``path`` when the block succeeds.

    That is atomic and durable. When the block fails, nothing is left behind.

    Raises:
        DiskFull, DiskError: it cannot be made.
    """
    step("write", path)
    with translated(path):
        descriptor, name = tempfile.mkstemp(prefix=TEMPORARY_PREFIX, dir=path.parent)
        os.fchmod(descriptor, 0o644)
        os.close(descriptor)
    temporary = Path(name)
    is_direct = size_bytes >= DIRECT_FROM_BYTES
    try:
        with contextlib.closing(BulkFile(path, direct=is_direct, written_as=temporary)) as file:
            yield file
            file.finish(size_bytes)
        rename_file(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    fsync_folder(path.parent)


class BulkFile:
    """A file that pieces are written to at any offset, fastest where each follows the one before.

    Nothing is durable, and the last block of a sequence perhaps not written, before :meth:`finish`
    has returned.

    Raises:
        DiskFull, DiskError: from every method.
    """

    def __init__(self, path: Path, *, direct: bool, written_as: Path | None = None) -> None:
        """Open a file, made if it is not there and no link; ``direct``: past the page cache.

        Errors name ``path``, also where the file is ``written_as`` another one at first.
        """
        self._path = path
        self._opened_as = written_as or path
        step("write", path)
        with translated(path):
            self._descriptor = os.open(
                self._opened_as, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644
            )
            try:
                self._direct = self._open_direct() if direct else None
            except BaseException:
                os.close(self._descriptor)
                raise
        self._is_past_cache = self._direct is not None
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

    def put(self, offset_bytes: int, buffer: AlignedBuffer, length: int) -> None:
        """Write ``buffer.at(offset_bytes, length)`` out of sequence; several threads may.

        That is past the page cache where the piece begins with a block, but for the block that it
        ends in. No two pieces may overlap.
        """
        step("write-at", self._path)
        data = buffer.at(offset_bytes, length)
        whole = 0
        if self._direct is not None and offset_bytes % BLOCK_SIZE_BYTES == 0:
            whole = length // BLOCK_SIZE_BYTES * BLOCK_SIZE_BYTES
            self._write_direct(offset_bytes, data[:whole])
        self._write_cached(offset_bytes + whole, data[whole:])

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
            was_past_cache = self._is_past_cache
            with translated(self._path):
                # A direct read ends early only at the file's end, so its next offset is aligned.
                try:
                    count = os.preadv(self._readable(), [blocks[done:]], start + done)
                except OSError as error:
                    if not was_past_cache or error.errno != errno.EINVAL:
                        raise
                    self._go_through_cache()
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
        # A thread that writes all the same must not meet another file by the same number.
        descriptor, self._descriptor = self._descriptor, -1
        os.close(descriptor)
        if self._direct is not None:
            direct, self._direct = self._direct, -1
            os.close(direct)

    def _readable(self) -> int:
        return self._descriptor if self._direct is None else self._direct

    def _open_direct(self) -> int | None:
        try:
            return os.open(self._opened_as, os.O_RDWR | os.O_DIRECT | os.O_NOFOLLOW)
        except OSError as error:
            if error.errno == errno.EINVAL:
                return None  # the file system knows no such thing: memory, or a network's
            raise

    def _write_direct(self, offset_bytes: int, blocks: memoryview) -> None:
        assert self._direct is not None  # noqa: S101 - for the type checker
        while blocks:
            was_past_cache = self._is_past_cache  # another thread may end that meanwhile
            with translated(self._path):
                try:
                    count = os.pwrite(self._direct, blocks, offset_bytes)
                except OSError as error:
                    if not was_past_cache or error.errno != errno.EINVAL:
                        raise
                    self._go_through_cache()
                    continue
            offset_bytes += count
            blocks = blocks[count:]

    def _go_through_cache(self) -> None:
        """From now on, since larger blocks are wanted here than any seen yet."""
        assert self._direct is not None  # noqa: S101 - for the type checker
        flags = fcntl.fcntl(self._direct, fcntl.F_GETFL)
        fcntl.fcntl(self._direct, fcntl.F_SETFL, flags & ~os.O_DIRECT)
        self._is_past_cache = False

    def _write_cached(self, offset_bytes: int, data: bytes | memoryview) -> None:
        rest = memoryview(data)
        while rest:
            with translated(self._path):
                count = os.pwrite(self._descriptor, rest, offset_bytes)
            offset_bytes += count
            rest = rest[count:]
