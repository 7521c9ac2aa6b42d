from __future__ import annotations

import errno
import fcntl
import mmap
import os
import threading
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest
from blake3 import blake3
from hypothesis import given, settings, strategies

import durable.bulk_file
import symbols.encode
from durable import files
from durable.bulk_file import DIRECT_FROM_BYTES, aligned_size_bytes
from manifests.errors import BadSymbolSet, DiskError, DiskFull, GenctlError
from symbols.combinations import _encoding
from symbols.encode import encode, object_parts
from symbols.geometry import CHUNK_SIZE_BYTES, Geometry, choose, describe, from_manifest
from symbols.table import check_chunk, check_table, chunk_digest
from tests.support.crashes import killed_at
from tests.symbols.geometries import small_geometries
from tests.symbols.samples import (
    encoded_artifact,
    pattern,
    reference_symbols,
    reference_table,
    symbol_data,
)

MIB = 1 << 20
# Sixty-four columns of one page a symbol.
COLUMNS_BYTES = 64 * 10 * 4096
COLUMNS = Geometry(COLUMNS_BYTES, 10, 12, 4096)
SIZES_BYTES = [
    1,
    64 << 10,
    (64 << 10) + 1,
    MIB,
    MIB + 1,
    10 * MIB - 1,
    10 * MIB,
    10 * MIB + 1,
    10 * CHUNK_SIZE_BYTES + 10,
]

# Of 2 MiB + 3 bytes: BLAKE3 of the table, and of the stored symbols 0, 9 and 11.
GOLDEN = [
    "8d7188a2ca27abd6006a383c32bd04bb58978a1eb975717dbd0e6d8a509930c9",
    "43e8ba1555b703941082f7bd26473b21d5be651f970844c83184715e8aeaa700",
    "746f7a3ee69b3947f6cb6658fee0296b950ddf846cfe44ede62de2a83ea1e047",
    "ac689ca716ea2312fb038cf7590b17bca1d57a44d1fa3787164fca76a96a69bb",
]


@pytest.mark.parametrize("size_bytes", SIZES_BYTES)
def test_symbols_and_table_are_the_reference_ones(tmp_path: Path, size_bytes: int) -> None:
    geometry = choose(size_bytes)
    encoded = encoded_artifact(tmp_path, geometry)
    symbols = reference_symbols(pattern(size_bytes), geometry)
    assert [symbol_data(encoded, number) for number in range(geometry.m)] == symbols
    assert encoded.table == reference_table(symbols, geometry.chunk_size_bytes)
    for number in range(geometry.m):
        stored = b"".join(object_parts(encoded, number))
        offset, length = geometry.table_range(number)
        assert stored[offset : offset + length] == encoded.table
        assert len(stored) == geometry.object_size_bytes(number)
    assert geometry.stored_size_bytes == sum(map(geometry.object_size_bytes, range(geometry.m)))


@given(small_geometries(), strategies.sampled_from([1, DIRECT_FROM_BYTES]))
@settings(deadline=None)
def test_small_symbols_and_tables_are_the_reference_ones(
    tmp_path_factory: pytest.TempPathFactory, geometry: Geometry, direct_from_bytes: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(durable.bulk_file, "DIRECT_FROM_BYTES", direct_from_bytes)
        encoded = encoded_artifact(tmp_path_factory.mktemp("small"), geometry)
    symbols = reference_symbols(pattern(geometry.size_bytes), geometry)
    assert [symbol_data(encoded, number) for number in range(geometry.m)] == symbols
    assert encoded.table == reference_table(symbols, geometry.chunk_size_bytes)


def test_encoding_again_gives_the_same_files_and_no_others(tmp_path: Path) -> None:
    first = encoded_artifact(tmp_path, choose(3 * MIB + 7))
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert encode(first.source, first.geometry, tmp_path) == first
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    assert sorted(before) == ["10", "11", "artifact"]


def test_the_format_has_not_changed(tmp_path: Path) -> None:
    """Golden values: other machines and versions must arrive at the same symbols."""
    encoded = encoded_artifact(tmp_path, choose(2 * MIB + 3))
    stored = [blake3(b"".join(object_parts(encoded, number))).hexdigest() for number in (0, 9, 11)]
    assert [blake3(encoded.table).hexdigest(), *stored] == GOLDEN


def test_the_table_is_checked_against_the_manifest_and_chunks_against_the_table(
    tmp_path: Path,
) -> None:
    geometry = choose(MIB + 1)
    encoded = encoded_artifact(tmp_path, geometry)
    symbols = describe(geometry, encoded.table)
    assert from_manifest(MIB + 1, symbols) == geometry
    assert check_table(geometry, symbols, encoded.table)
    assert not check_table(geometry, symbols, encoded.table[:-1])
    assert not check_table(geometry, symbols, encoded.table[:-1] + b"?")
    data = symbol_data(encoded, 11)
    assert check_chunk(geometry, encoded.table, 11, 0, data)
    assert not check_chunk(geometry, encoded.table, 10, 0, data)
    assert not check_chunk(geometry, encoded.table, 11, 0, data[:-1])
    assert not check_chunk(geometry, encoded.table, 11, 0, b"")
    assert chunk_digest(geometry, encoded.table, 11, 0) == blake3(data).digest()
    for number, chunk in ((12, 0), (-1, 0), (0, 1)):
        with pytest.raises(BadSymbolSet):
            check_chunk(geometry, encoded.table, number, chunk, data)
    with pytest.raises(BadSymbolSet):
        chunk_digest(geometry, encoded.table[:-1], 0, 0)


@pytest.mark.parametrize("size_bytes", [0, 99, 101])
def test_a_file_of_another_size_is_refused_and_leaves_nothing(
    tmp_path: Path, size_bytes: int
) -> None:
    source = tmp_path / "artifact"
    source.write_bytes(pattern(size_bytes))
    with pytest.raises(BadSymbolSet):
        encode(source, Geometry(100, 2, 4, 10), tmp_path)
    assert list(tmp_path.iterdir()) == [source]


def test_a_missing_file_is_a_disk_error(tmp_path: Path) -> None:
    with pytest.raises(DiskError):
        encode(tmp_path / "absent", choose(1), tmp_path)


def test_a_source_that_the_disk_cannot_read_is_a_disk_error_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Unreadable(mmap.mmap):
        def madvise(self, *_: object) -> None:
            raise OSError(errno.EFAULT, os.strerror(errno.EFAULT))

    source = tmp_path / "artifact"
    source.write_bytes(pattern(100))
    monkeypatch.setattr(mmap, "mmap", Unreadable)
    with pytest.raises(DiskError, match="sound disk"):
        encode(source, Geometry(100, 2, 4, 10), tmp_path)
    assert list(tmp_path.iterdir()) == [source]


def test_a_kernel_that_cannot_populate_a_mapping_gives_the_same_symbols(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    geometry = choose(2 * MIB + 3)
    expected = encoded_artifact(tmp_path / "here", geometry)
    monkeypatch.setattr(symbols.encode, "_MADV_POPULATE_READ", 255)
    found = encoded_artifact(tmp_path / "there", geometry)
    assert found.table == expected.table
    assert [symbol_data(found, 11)] == [symbol_data(expected, 11)]


@pytest.mark.parametrize(
    "change",
    [lambda path: os.truncate(path, 1), lambda path: path.write_bytes(pattern(COLUMNS_BYTES))],
    ids=["cut", "rewritten"],
)
def test_a_source_that_changes_while_it_is_read_is_refused_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: Callable[[Path], object]
) -> None:
    source = tmp_path / "artifact"
    source.write_bytes(pattern(COLUMNS_BYTES))
    os.utime(source, ns=(0, 0))
    changed: list[str] = []

    def observer(step: str, _: Path) -> None:
        if step == "write-at" and not changed:
            changed.append(step)
            change(source)

    monkeypatch.setattr(files, "_observers", [observer])
    # With one thread nobody has a page in hand at the moment at which it is taken away.
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0})
    monkeypatch.setattr(symbols.encode, "THREADS_AT_THE_DISK", 0)
    with pytest.raises(BadSymbolSet, match="changed while it was read"):
        encode(source, COLUMNS, tmp_path)
    assert changed
    assert list(tmp_path.iterdir()) == [source]


def test_row_40_a_full_disk_ends_all_threads_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.pwrite
    asked: list[int] = []

    def full(descriptor: int, data: memoryview, offset: int) -> int:
        asked.append(descriptor)
        if len(asked) > 1:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(descriptor, data, offset)

    source = tmp_path / "artifact"
    source.write_bytes(pattern(COLUMNS_BYTES))
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(4)))
    monkeypatch.setattr(os, "pwrite", full)
    threads = threading.active_count()
    with pytest.raises(DiskFull):
        encode(source, COLUMNS, tmp_path)
    assert threading.active_count() == threads
    assert list(tmp_path.iterdir()) == [source]


@pytest.mark.parametrize(("number", "error"), [(errno.EIO, DiskError), (errno.ENOSPC, DiskFull)])
@pytest.mark.parametrize("function", ["pwrite", "fsync"])
def test_row_41_a_failed_write_or_fsync_is_named_and_leaves_nothing(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    function: str,
    number: int,
    error: type[GenctlError],
) -> None:
    def failing(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    source = tmp_path / "artifact"
    source.write_bytes(pattern(COLUMNS_BYTES))
    monkeypatch.setattr(os, function, failing)
    with pytest.raises(error):
        encode(source, COLUMNS, tmp_path)
    assert list(tmp_path.iterdir()) == [source]


def test_row_34_an_encode_killed_at_any_step_leaves_whole_symbols_or_none(tmp_path: Path) -> None:
    encoded = encoded_artifact(tmp_path / "whole", COLUMNS)
    whole = {path.name: path.read_bytes() for path in encoded.repair_paths}
    for step in range(1000):
        folder = tmp_path / str(step)
        folder.mkdir()
        killed = killed_at(step, lambda: encode(encoded.source, COLUMNS, folder))  # noqa: B023
        found = {path.name: path.read_bytes() for path in folder.iterdir()}
        if not killed:
            assert found == whole
            assert step > 6, "write, pieces, fsync, rename, fsync of the folder"
            return
        shown = {name for name in found if not name.startswith(files.TEMPORARY_PREFIX)}
        assert all(found[name] == whole[name] for name in shown)
    pytest.fail("it never came to its end")


@given(small_geometries())
@settings(deadline=None)
def test_any_number_of_threads_gives_the_same_symbols(
    tmp_path_factory: pytest.TempPathFactory, geometry: Geometry
) -> None:
    found = []
    for threads in (1, 2, 5):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(os, "sched_getaffinity", lambda _, cores=threads: set(range(cores)))
            encoded = encoded_artifact(tmp_path_factory.mktemp("threads"), geometry)
        repairs = [symbol_data(encoded, number) for number in range(geometry.k, geometry.m)]
        found.append((encoded.table, repairs))
    assert found[0] == found[1] == found[2]


@pytest.mark.parametrize("columns", [8, 128])
def test_memory_is_that_of_a_column_for_each_thread_whatever_the_artifacts_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, columns: int
) -> None:
    chunk_bytes, threads, repairs = 16 << 10, 3, 2
    geometry = Geometry(columns * 10 * chunk_bytes, 10, 10 + repairs, chunk_bytes)
    encoded = encoded_artifact(tmp_path, geometry)  # what is made once for all is there now
    real = mmap.mmap
    mapped: list[int] = []

    def counted(descriptor: int, length: int, **more: int) -> mmap.mmap:
        if descriptor == -1:
            mapped.append(length)
        return real(descriptor, length, **more)

    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(threads - 1)))
    monkeypatch.setattr(mmap, "mmap", counted)
    tracemalloc.start()  # numpy tells it of its arrays
    try:
        encode(encoded.source, geometry, tmp_path)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert mapped == [repairs * aligned_size_bytes(chunk_bytes)] * threads
    slices_bytes = (repairs + len(_encoding(10, 10 + repairs).shared)) * chunk_bytes
    most_bytes = threads * slices_bytes + 2 * len(encoded.table) + (128 << 10)
    assert slices_bytes <= peak_bytes <= most_bytes, "the slices, the table, and small objects"


def test_a_disk_of_larger_blocks_than_any_is_written_through_the_cache_by_all_threads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = encoded_artifact(tmp_path / "here", COLUMNS)
    writing = threading.Barrier(3)
    real = os.pwrite
    refused: list[int] = []

    def picky(descriptor: int, data: memoryview, offset: int) -> int:
        if fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_DIRECT:
            # All threads are at it before the first of them hears of it.
            writing.wait(timeout=60)
            refused.append(offset)
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        return real(descriptor, data, offset)

    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})
    monkeypatch.setattr(durable.bulk_file, "DIRECT_FROM_BYTES", 1)
    monkeypatch.setattr(os, "pwrite", picky)
    found = encoded_artifact(tmp_path / "there", COLUMNS)
    assert [symbol_data(found, number) for number in (10, 11)] == [
        symbol_data(expected, number) for number in (10, 11)
    ]
    assert len(refused) in (0, 6), "each file by each thread, or no file system that knows O_DIRECT"


def test_a_damaged_repair_file_is_not_offered_for_upload(tmp_path: Path) -> None:
    encoded = encoded_artifact(tmp_path, choose(100))
    encoded.repair_paths[0].write_bytes(b"short")
    with pytest.raises(BadSymbolSet):
        object_parts(encoded, 1)
    with pytest.raises(BadSymbolSet):
        object_parts(encoded, 2)
