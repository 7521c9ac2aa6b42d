"""Encoding: an artifact's repair symbols and its table, in one pass over the file.

The code is systematic Reed-Solomon over GF(2^8) as zfec computes it (Rizzo, "Effective erasure
codes for reliable computer communication protocols", 1997), applied column by column: byte ``i``
of a repair symbol depends on byte ``i`` of each source symbol and on nothing else. The same
artifact and geometry therefore give the same symbols on any machine, whichever threads compute
which columns. numpy and BLAKE3 let go of the interpreter while they work, so threads keep every
core busy (ADR 0015).
"""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from blake3 import blake3

from durable.bulk_file import (
    BLOCK_SIZE_BYTES,
    AlignedBuffer,
    BulkFile,
    aligned_size_bytes,
    new_bulk_file,
)
from durable.files import translated
from manifests.errors import BadSymbolSet, DiskError
from manifests.identifiers import HASH_SIZE_BYTES
from symbols.combinations import Block, repair_blocks
from symbols.geometry import Geometry

THREADS_AT_THE_DISK = 1
"""Besides one for each core: while some wait for the disk, as many others compute."""

_MADV_POPULATE_READ = 22  # Linux 5.14; the mmap module names it from Python 3.14 on


@dataclass(frozen=True, slots=True)
class Encoded:
    """An artifact on disk with all that its stored symbols are made of.

    ``repair_paths[i]`` is the file with the data of symbol ``geometry.k + i``.
    """

    source: Path
    geometry: Geometry
    table: bytes
    repair_paths: tuple[Path, ...]


def encode(source: Path, geometry: Geometry, repair_folder: Path) -> Encoded:
    """Write the data of each repair symbol of ``source`` to a file in ``repair_folder``.

    The files are named by symbol number (``10``, ``11``) and appear whole or not at all; what an
    earlier run left under those names is replaced by the same bytes. Columns are shared out to a
    thread for each core that the process has, and one more. The source is memory-mapped; beyond
    that, each thread has memory for the repair symbols of one column, and to compute them for a
    slice of each and of each sum they share (:mod:`symbols.combinations`): 2 + 4.5 MiB with k=10,
    m=12 and chunks of 1 MiB, 5 + 9.6 MiB with m=15. Only the table grows with the artifact's size.

    Raises:
        BadSymbolSet: the file has not the size that the geometry is for, or was changed meanwhile.
        DiskFull, DiskError: reading or writing failed.
    """
    repair_paths = tuple(
        repair_folder / f"{number:02d}" for number in range(geometry.k, geometry.m)
    )
    with contextlib.ExitStack() as stack:
        descriptor = stack.enter_context(_opened(source, geometry.size_bytes))
        outputs = [
            stack.enter_context(new_bulk_file(path, geometry.symbol_size_bytes))
            for path in repair_paths
        ]
        before = _state(source, descriptor)
        table = _Columns(source, descriptor, geometry).write(outputs)
        if _state(source, descriptor) != before:
            raise _changed(source)
    return Encoded(source, geometry, table, repair_paths)


def object_parts(encoded: Encoded, number: int) -> list[memoryview]:
    """The stored object of symbol ``number``, as parts to be uploaded one after the other.

    The parts are views of memory-mapped files, so that nothing is copied; the mapping lives as long
    as they do. The files must not be changed in the meantime (artifacts never are).

    Raises:
        BadSymbolSet: there is no such symbol, or its file has another size than it should.
        DiskError: the file cannot be read.
    """
    geometry = encoded.geometry
    if geometry.is_source(number):
        path, file_bytes = encoded.source, geometry.size_bytes
        offset, length = geometry.source_range(number)
    else:
        path, file_bytes = encoded.repair_paths[number - geometry.k], geometry.symbol_size_bytes
        offset, length = 0, file_bytes
    with _opened(path, file_bytes) as descriptor, translated(path):
        mapping = memoryview(mmap.mmap(descriptor, 0, prot=mmap.PROT_READ))
    return [mapping[offset : offset + length], memoryview(encoded.table)]


@contextlib.contextmanager
def _opened(path: Path, size_bytes: int) -> Iterator[int]:
    """A descriptor of ``path``, which must be a file of ``size_bytes``."""
    with translated(path):
        # Without O_NONBLOCK, opening a named pipe would wait for a writer.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        with translated(path):
            found_bytes = os.fstat(descriptor).st_size
        if found_bytes != size_bytes:
            raise BadSymbolSet(
                f"{path} has {found_bytes} bytes instead of {size_bytes}", path=str(path)
            )
        yield descriptor
    finally:
        os.close(descriptor)


def _state(path: Path, descriptor: int) -> tuple[int, int]:
    with translated(path):
        found = os.fstat(descriptor)
    return found.st_size, found.st_mtime_ns


def _changed(path: Path) -> BadSymbolSet:
    return BadSymbolSet(
        f"{path} was changed while it was read; artifacts never are: see who wrote to it, then "
        "build again",
        path=str(path),
    )


class _Columns:
    """The columns of one artifact: each is read, hashed, encoded and written by one thread."""

    def __init__(self, source: Path, descriptor: int, geometry: Geometry) -> None:
        self._source = source
        self._descriptor = descriptor
        self._geometry = geometry
        with translated(source):
            self._mapping = mmap.mmap(descriptor, geometry.size_bytes, prot=mmap.PROT_READ)
        self._bytes = memoryview(self._mapping)

    def write(self, outputs: Sequence[BulkFile]) -> bytes:
        """Write all repair symbols to ``outputs``; return the table."""
        table = bytearray(self._geometry.table_size_bytes)
        columns = iter(range(self._geometry.column_count))
        cores = len(os.sched_getaffinity(0))
        threads = min(self._geometry.column_count, cores + THREADS_AT_THE_DISK)
        with ThreadPoolExecutor(threads) as pool:
            work = [pool.submit(self._work, columns, outputs, table) for _ in range(threads)]
            try:
                wait(work, return_when=FIRST_EXCEPTION)
            finally:
                deque(columns, maxlen=0)  # where one failed, the others need not go on
        for each in work:
            each.result()
        return bytes(table)

    def _work(self, columns: Iterator[int], outputs: Sequence[BulkFile], table: bytearray) -> None:
        """Deal with one of ``columns`` after the other; other threads take from them too."""
        geometry = self._geometry
        # Memory that is fresh for each column would cost a fifth of the time.
        size_bytes = aligned_size_bytes(geometry.column_width_bytes(0))
        block = np.frombuffer(mmap.mmap(-1, len(outputs) * size_bytes), np.uint8)
        rows = block.reshape(len(outputs), size_bytes)
        buffers = [AlignedBuffer(geometry.column_width_bytes(0), row.data) for row in rows]
        for column in columns:
            offset, length = geometry.chunk_range(geometry.m - 1, column)
            head = offset % BLOCK_SIZE_BYTES
            self._encode(column, rows[:, head : head + length], table)
            for output, buffer in zip(outputs, buffers, strict=True):
                output.put(offset, buffer, length)

    def _encode(self, column: int, repairs: Block, table: bytearray) -> None:
        """Compute the chunks of repair symbols, and enter the hashes of all chunks."""
        geometry = self._geometry
        chunks = [self._source_chunk(number, column) for number in range(geometry.k)]
        width_bytes = geometry.column_width_bytes(column)
        blocks = [
            chunk if len(chunk) == width_bytes else bytes(chunk).ljust(width_bytes, b"\0")
            for chunk in chunks
        ]
        repair_blocks(geometry.k, geometry.m, blocks, repairs)
        digests = [blake3(data).digest() for data in [*chunks, *(row.data for row in repairs)]]
        for number in geometry.symbols_with_chunk(column):
            offset = geometry.table_offset(number, column)
            table[offset : offset + HASH_SIZE_BYTES] = digests[number]

    def _source_chunk(self, number: int, column: int) -> memoryview:
        """A chunk of a source symbol; empty where a short last symbol has none."""
        if column >= self._geometry.chunk_count(number):
            return self._bytes[:0]
        offset, length = self._geometry.chunk_source_range(number, column)
        first = offset - offset % mmap.PAGESIZE
        try:
            # Pages that cannot be had are an error here, and a signal that ends the process later.
            self._mapping.madvise(_MADV_POPULATE_READ, first, offset - first + length)
        except OSError as error:
            if error.errno == errno.EFAULT:
                raise self._unreadable() from error
            if error.errno != errno.EINVAL:  # EINVAL: a kernel that does not know the request
                with translated(self._source):
                    raise
        return self._bytes[offset : offset + length]

    def _unreadable(self) -> BadSymbolSet | DiskError:
        """Why pages of the source cannot be had."""
        if _state(self._source, self._descriptor)[0] != self._geometry.size_bytes:
            return _changed(self._source)
        return DiskError(
            f"{self._source}: the disk cannot read all of it; build again on a sound disk",
            path=str(self._source),
        )
