"""Crashes and full disks: what a name shows afterwards, and that nothing is left behind.

A full disk is a real one: tests that may mount get a file system of 256 KiB. Where mounting is not
allowed the one place where bytes meet the disk, ``os.fsync``, answers ENOSPC instead: delayed
allocation makes that a real place for it, and nothing else of the path changes.
"""

from __future__ import annotations

import errno
import os
import resource
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from durable import bulk_file, files
from manifests.errors import DiskError, DiskFull, GenctlError
from tests.support.crashes import killed_at

OLD = b"old" * 1000
NEW = b"new bytes " * 40_000
Write = Callable[[Path], object]


def new_bulk_file(path: Path) -> None:
    with bulk_file.new_bulk_file(path, len(NEW)) as file:
        for offset in range(0, len(NEW), len(NEW) // 2):
            buffer = bulk_file.AlignedBuffer(len(NEW))
            data = NEW[offset:][: len(NEW) // 2]
            buffer.at(offset, len(data))[:] = data
            file.write(offset, buffer, len(data))


WRITES: list[Write] = [
    lambda path: files.replace_file(path, [NEW[:7], NEW[7:]]),
    lambda path: files.create_file(path, [NEW]),
    new_bulk_file,
]


def visible(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir() if not p.name.startswith(".tmp-"))


@pytest.mark.parametrize("write", WRITES, ids=["replace", "create", "new"])
@pytest.mark.parametrize("before", [None, OLD], ids=["absent", "present"])
def test_row_36_a_write_killed_at_any_step_shows_the_old_bytes_or_the_new(
    tmp_path: Path, write: Write, before: bytes | None
) -> None:
    outcomes = []
    for step in range(10):
        folder = tmp_path / str(step)
        folder.mkdir()
        path = folder / "file"
        if before is not None:
            path.write_bytes(before)
        killed = killed_at(step, lambda: write(path))  # noqa: B023
        found = path.read_bytes() if path.exists() else None
        assert found in (before, NEW)
        assert visible(folder) == ["file"] * (found is not None)
        outcomes.append(found == NEW)
        files.remove_temporaries(folder)
        write(path)
        assert path.read_bytes() in (before, NEW)
        assert sorted(p.name for p in folder.iterdir()) == ["file"]
        if not killed:
            break
    assert outcomes == sorted(outcomes)
    # Write (a bulk file's steps: open, two pieces, fsync), link or rename, fsync of the folder, and
    # no kill.
    assert len(outcomes) in (1, 8 if write is new_bulk_file else 4)


def test_row_43_a_move_killed_at_any_step_leaves_one_whole_folder(tmp_path: Path) -> None:
    for step in range(10):
        source, target = tmp_path / f"{step}/from/x", tmp_path / f"{step}/to/x"
        files.make_folder(source)
        files.make_folder(target.parent)
        (source / "file").write_bytes(OLD)
        killed = killed_at(step, lambda: files.move(source, target))  # noqa: B023
        assert source.exists() != target.exists()
        assert next(p for p in (source, target) if p.exists()).joinpath("file").read_bytes() == OLD
        if not killed:
            assert step == 3
            break


@pytest.fixture
def small_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder on a disk that the new bytes do not fit on."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(folder)]
    try:
        mounted = subprocess.run(mount, check=False, capture_output=True).returncode == 0
    except OSError:
        mounted = False
    if mounted:
        yield folder
        subprocess.run(["umount", str(folder)], check=True)
        return

    def no_space(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", no_space)
    yield folder


@pytest.mark.parametrize("write", WRITES, ids=["replace", "create", "new"])
def test_row_40_a_full_disk_is_said_to_be_full_and_nothing_is_left_on_it(
    small_disk: Path, write: Write
) -> None:
    path = small_disk / "file"
    for _ in range(2):
        with pytest.raises(DiskFull) as caught:
            write(path)
        assert str(path) in caught.value.message
        assert caught.value.runbook == "disk"
        assert list(small_disk.iterdir()) == []


@pytest.mark.parametrize("write", [WRITES[0], WRITES[2]], ids=["replace", "new"])
def test_row_40_a_full_disk_leaves_the_old_bytes(small_disk: Path, write: Write) -> None:
    path = small_disk / "file"
    path.write_bytes(OLD)
    with pytest.raises(DiskFull):
        write(path)
    assert path.read_bytes() == OLD
    assert [p.name for p in small_disk.iterdir()] == ["file"]


@pytest.mark.parametrize(
    ("number", "error"),
    [
        (errno.ENOSPC, DiskFull),
        (errno.EDQUOT, DiskFull),
        (errno.EIO, DiskError),
        (errno.EROFS, DiskError),
    ],
)
@pytest.mark.parametrize("write", WRITES, ids=["replace", "create", "new"])
def test_row_41_a_failed_fsync_is_an_error_and_not_tried_again(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    number: int,
    error: type[GenctlError],
    write: Write,
) -> None:
    calls = []

    def fails(descriptor: int) -> None:
        calls.append(descriptor)
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fails)
    with pytest.raises(error) as caught:
        write(tmp_path / "file")
    assert caught.value.name == error.__name__
    assert len(calls) == 1
    assert list(tmp_path.iterdir()) == []


def test_row_41_a_file_size_limit_is_a_disk_error_with_nothing_left(tmp_path: Path) -> None:
    def limited() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
        for write in WRITES:
            with pytest.raises(DiskError):
                write(tmp_path / "file")

    assert not killed_at(1000, limited)
    assert list(tmp_path.iterdir()) == []
