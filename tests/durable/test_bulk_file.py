"""Bytes written in any order are there; what the disk refuses is an error, once and for all."""

from __future__ import annotations

import contextlib
import errno
import os
import random
import stat
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings, strategies

from durable.bulk_file import (
    BLOCK_SIZE_BYTES,
    AlignedBuffer,
    BulkFile,
    aligned_size_bytes,
    new_bulk_file,
)
from manifests.errors import DiskError, DiskFull, GenctlError

MEMORY = Path("/dev/shm")
LONGEST_BYTES = 5 * BLOCK_SIZE_BYTES

SIZES = strategies.one_of(
    strategies.integers(0, LONGEST_BYTES),
    strategies.sampled_from([1, 4095, 4096, 4097, 8191, 8192, 12288]),
)
OFFSETS = strategies.one_of(SIZES, strategies.just(-1))
"""Where something goes; -1 is where the last write ended."""

OPERATIONS = strategies.lists(
    strategies.tuples(strategies.sampled_from(["write", "put", "patch", "read"]), OFFSETS, SIZES),
    max_size=12,
)


def folders() -> list[Path | None]:
    return [None, MEMORY] if os.access(MEMORY, os.W_OK) else [None]


@contextlib.contextmanager
def opened(path: Path, *, direct: bool = True) -> Iterator[BulkFile]:
    with contextlib.closing(BulkFile(path, direct=direct)) as file:
        yield file


def filled(offset: int, data: bytes) -> AlignedBuffer:
    buffer = AlignedBuffer(max(1, len(data)))
    buffer.at(offset, len(data))[:] = data
    return buffer


def write(file: BulkFile, offset: int, data: bytes) -> None:
    file.write(offset, filled(offset, data), len(data))


class Model:
    """What the file must hold, and what the next piece may not touch."""

    def __init__(self, file: BulkFile, before: bytes) -> None:
        self.file = file
        self.bytes = bytearray(before)
        self.end = 0
        self.unflushed = False
        self.pieces: list[range] = []

    def write(self, offset: int, data: bytes) -> None:
        write(self.file, offset, data)
        self._set(offset, data)
        self.end, self.unflushed = offset + len(data), True

    def put(self, offset: int, data: bytes) -> None:
        piece = range(offset, offset + len(data))
        if any(max(piece.start, old.start) < min(piece.stop, old.stop) for old in self.pieces):
            return  # no two pieces may overlap
        self.pieces.append(piece)
        self._flush()
        self.file.put(offset, filled(offset, data), len(data))
        self._set(offset, data)

    def patch(self, offset: int, data: bytes) -> None:
        self._flush()
        self.file.patch(offset, data)
        self._set(offset, data)

    def read(self, offset: int, length: int) -> None:
        found = self.file.read(offset, AlignedBuffer(max(1, length)), length)
        assert bytes(found) == bytes(self.bytes[offset : offset + length])

    def _flush(self) -> None:
        if self.unflushed:
            self.file.flush()

    def _set(self, offset: int, data: bytes) -> None:
        if data:
            self.bytes.extend(bytes(max(0, offset + len(data) - len(self.bytes))))
            self.bytes[offset : offset + len(data)] = data


@pytest.mark.parametrize("where", folders())
@pytest.mark.parametrize("direct", [True, False])
@settings(deadline=None, max_examples=50)
@given(
    operations=OPERATIONS,
    before=SIZES,
    final=strategies.integers(0, 2 * LONGEST_BYTES),
    seed=strategies.integers(0, 1 << 32),
)
def test_any_writes_pieces_patches_and_reads_are_those_of_a_row_of_bytes(
    where: Path | None,
    direct: bool,
    operations: list[tuple[str, int, int]],
    before: int,
    final: int,
    seed: int,
) -> None:
    chance = random.Random(seed)
    with tempfile.TemporaryDirectory(prefix="genctl-", dir=where) as folder:
        path = Path(folder) / "file"
        old = chance.randbytes(before)
        path.write_bytes(old)
        with opened(path, direct=direct) as file:
            assert file.size_bytes == before
            model = Model(file, old)
            for what, at, size_bytes in operations:
                offset = model.end if at < 0 else at
                match what:
                    case "write":
                        model.write(offset, chance.randbytes(size_bytes))
                    case "put":
                        model.put(offset, chance.randbytes(size_bytes))
                    case "patch":
                        model.patch(offset, chance.randbytes(size_bytes))
                    case _:
                        model.read(offset, size_bytes)
            file.finish(final)
            model.bytes = model.bytes[:final].ljust(final, b"\0")
            model.read(0, final)
        assert path.read_bytes() == bytes(model.bytes)


def test_pieces_in_sequence_are_written_past_the_cache_but_for_the_last_block(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    pieces = [bytes([number]) * 9_001 for number in range(5)]
    with opened(path) as file:
        if file._direct is None:
            pytest.skip("the file system of the tests knows no O_DIRECT")
        written: list[tuple[int, int]] = []
        real = os.pwrite

        def watched(descriptor: int, data: bytes, offset: int) -> int:
            written.append((descriptor, offset))
            return real(descriptor, data, offset)

        monkeypatch.setattr(os, "pwrite", watched)
        offset = 0
        for piece in pieces:
            write(file, offset, piece)
            offset += len(piece)
        assert {descriptor for descriptor, _ in written} == {file._direct}
        file.finish(offset)
        assert written[-1] == (file._descriptor, offset - offset % BLOCK_SIZE_BYTES)
    assert path.read_bytes() == b"".join(pieces)


@pytest.mark.parametrize("direct", [True, False])
@pytest.mark.parametrize("piece_bytes", [3 * BLOCK_SIZE_BYTES, 9_001])
def test_pieces_that_several_threads_put_out_of_sequence_are_all_there(
    tmp_path: Path, direct: bool, piece_bytes: int
) -> None:
    chance = random.Random(5)
    data = chance.randbytes(40 * piece_bytes + 5_000)
    offsets = list(range(0, len(data), piece_bytes))
    chance.shuffle(offsets)
    with (
        opened(tmp_path / "file", direct=direct) as file,
        ThreadPoolExecutor(4) as pool,
    ):

        def put(offset: int) -> None:
            piece = data[offset : offset + piece_bytes]
            file.put(offset, filled(offset, piece), len(piece))

        list(pool.map(put, offsets))
        file.finish(len(data))
    assert (tmp_path / "file").read_bytes() == data


def test_a_piece_that_begins_with_a_block_is_put_past_the_cache_but_for_its_last_block(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    data = random.Random(6).randbytes(20_000)
    with opened(path) as file:
        if file._direct is None:
            pytest.skip("the file system of the tests knows no O_DIRECT")
        written: list[tuple[int, int, int]] = []
        real = os.pwrite

        def watched(descriptor: int, piece: bytes, offset: int) -> int:
            written.append((descriptor, offset, len(piece)))
            return real(descriptor, piece, offset)

        monkeypatch.setattr(os, "pwrite", watched)
        file.put(8_192, filled(8_192, data[8_192:]), 20_000 - 8_192)
        file.put(100, filled(100, data[100:8_192]), 8_092)
        assert written == [
            (file._direct, 8_192, 8_192),
            (file._descriptor, 16_384, 20_000 - 16_384),
            (file._descriptor, 100, 8_092),
        ]
        file.patch(0, data[:100])
        file.finish(20_000)
    assert path.read_bytes() == data


def test_a_new_file_appears_when_its_block_ends(tmp_path: Path) -> None:
    path = tmp_path / "file"
    data = random.Random(4).randbytes(10_001)
    with new_bulk_file(path, len(data)) as file:
        write(file, 0, data)
        assert not path.exists()
    assert path.read_bytes() == data
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert list(tmp_path.iterdir()) == [path]


def test_a_new_file_whose_block_fails_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with pytest.raises(RuntimeError, match="of the block"), new_bulk_file(path, 100) as file:  # noqa: PT012
        write(file, 0, b"new")
        raise RuntimeError("of the block")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("direct", [True, False])
def test_a_link_is_not_followed(tmp_path: Path, direct: bool) -> None:
    (tmp_path / "precious").write_bytes(b"precious")
    (tmp_path / "link").symlink_to(tmp_path / "precious")
    with pytest.raises(DiskError, match="is a link that is not followed"):
        BulkFile(tmp_path / "link", direct=direct)


def test_buffers_side_by_side_are_written_each_for_itself(tmp_path: Path) -> None:
    size_bytes = aligned_size_bytes(9_000)
    memory = memoryview(bytearray(2 * size_bytes))
    pieces = [random.Random(number).randbytes(9_000) for number in range(2)]
    for number, piece in enumerate(pieces):
        row = AlignedBuffer(9_000, memory[number * size_bytes :][:size_bytes])
        row.at(5_000, 9_000)[:] = piece
        with opened(tmp_path / str(number), direct=False) as file:
            write(file, 0, bytes(5_000))
            file.write(5_000, row, 9_000)
            file.finish(14_000)
    found = [(tmp_path / str(number)).read_bytes() for number in range(2)]
    assert found == [bytes(5_000) + piece for piece in pieces]


def test_a_resumed_file_keeps_what_it_had(tmp_path: Path) -> None:
    path = tmp_path / "file"
    data = random.Random(3).randbytes(50_000)
    with opened(path) as file:
        write(file, 0, data[:10_001])
        file.finish(10_001)
    with opened(path) as file:
        assert bytes(file.read(5_000, AlignedBuffer(10_000), 10_000)) == data[5_000:10_001]
        write(file, 10_001, data[10_001:30_000])
        write(file, 30_000, data[30_000:])
        file.finish(len(data))
    assert path.read_bytes() == data


def refusing_direct_opens(monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.open

    def refuse(path: Any, flags: int, *more: Any) -> int:
        if flags & os.O_DIRECT:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        return real(path, flags, *more)

    monkeypatch.setattr(os, "open", refuse)


def refusing_direct_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    import fcntl

    def refusing(real: Callable[..., int]) -> Callable[..., int]:
        def call(descriptor: int, *arguments: Any) -> int:
            if fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_DIRECT:
                raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
            return real(descriptor, *arguments)

        return call

    monkeypatch.setattr(os, "pwrite", refusing(os.pwrite))
    monkeypatch.setattr(os, "preadv", refusing(os.preadv))


@pytest.mark.parametrize("refusing", [refusing_direct_opens, refusing_direct_calls])
@pytest.mark.parametrize("read_first", [True, False])
def test_a_file_system_that_refuses_direct_access_gets_the_same_bytes(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    refusing: Callable[[pytest.MonkeyPatch], None],
    read_first: bool,
) -> None:
    refusing(monkeypatch)
    path = tmp_path / "file"
    data = random.Random(4).randbytes(40_000)
    path.write_bytes(b"old")
    with opened(path) as file:
        if read_first:
            assert bytes(file.read(0, AlignedBuffer(3), 3)) == b"old"
        for start in range(0, len(data), 7_777):
            write(file, start, data[start : start + 7_777])
        assert bytes(file.read(1, AlignedBuffer(len(data)), len(data))) == data[1:]
        file.finish(len(data))
    assert path.read_bytes() == data


@pytest.mark.parametrize(
    ("number", "error"),
    [(errno.ENOSPC, DiskFull), (errno.EDQUOT, DiskFull), (errno.EIO, DiskError)],
)
@pytest.mark.parametrize("direct", [True, False])
def test_row_40_row_41_a_refused_write_is_named(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    number: int,
    error: type[GenctlError],
    direct: bool,
) -> None:
    path = tmp_path / "file"

    def refuse(*_: object) -> int:
        raise OSError(number, os.strerror(number))

    with opened(path, direct=direct) as file:
        monkeypatch.setattr(os, "pwrite", refuse)
        with pytest.raises(error) as caught:
            write(file, 0, bytes(9_000))
        assert type(caught.value) is error
        assert str(path) in caught.value.message
        with pytest.raises(error):
            file.patch(0, b"x")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
def test_row_41_a_failed_fsync_is_an_error_and_not_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    calls: list[int] = []

    def fails(descriptor: int) -> None:
        calls.append(descriptor)
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fails)
    with opened(tmp_path / "file") as file:
        write(file, 0, b"some bytes")
        with pytest.raises(DiskFull if number == errno.ENOSPC else DiskError):
            file.finish(10)
    assert len(calls) == 1


def test_row_41_a_read_error_is_a_disk_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> int:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with opened(tmp_path / "file") as file:
        write(file, 0, bytes(9_000))
        file.flush()
        monkeypatch.setattr(os, "preadv", fails)
        with pytest.raises(DiskError):
            file.read(0, AlignedBuffer(100), 100)


def test_no_descriptor_is_left_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    for direct in (True, False):
        with opened(tmp_path / "file", direct=direct) as file:
            write(file, 0, bytes(5_000))
    real = os.open

    def refuse(path: Any, flags: int, *more: Any) -> int:
        if flags & os.O_DIRECT:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return real(path, flags, *more)

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(DiskError):
        BulkFile(tmp_path / "file", direct=True)
    assert len(list(Path("/proc/self/fd").iterdir())) == before
