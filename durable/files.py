"""All durable file work of genctl: what is on disk after a crash is decided here and nowhere else.

(Large files, by the same recipe: :mod:`durable.bulk_file`.)

The recipe (after Pillai et al., "All File Systems Are Not Created Equal", OSDI 2014): write a
temporary file in the same folder, fsync it, rename or link it into place, fsync the folder. A name
therefore never shows a half-written file, and a name that was reported written survives a power
cut. Every function calls :func:`step` before each change it makes to the disk, so that a test can
record the sequence or stop the process at any point of it.

Operating system errors are translated: a full disk is ``DiskFull``, everything else ``DiskError``.
A failed fsync is never tried again: the kernel may have dropped the pages it could not write.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from manifests.errors import DiskError, DiskFull, HomeLocked

STAT_BLOCK_SIZE_BYTES = 512
"""The unit of ``st_blocks`` (stat(2)), whatever the file system's own is."""

TEMPORARY_PREFIX = ".tmp-"
REMOVE_ATTEMPTS = 10
NEARLY_FULL_BYTES = 64 * 1024

_observers: list[Callable[[str, Path], None]] = []


def observe(observer: Callable[[str, Path], None]) -> None:
    """Have ``observer(step, path)`` called before every change to the disk (for crash tests)."""
    _observers.append(observer)


def step(what: str, path: Path) -> None:
    """Tell the observers of a change to the disk that is about to be made."""
    for observer in _observers:
        observer(what, path)


@contextlib.contextmanager
def translated(path: Path) -> Iterator[None]:
    """Turn an ``OSError`` on ``path`` into ``DiskFull`` or ``DiskError``."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFull(f"no space left to write {path}; free some and run it again") from error
        if error.errno == errno.ELOOP:
            raise DiskError(
                f"{path} is a link that is not followed; remove it", path=str(path)
            ) from error
        raise DiskError(f"{path}: {error.strerror or error}", path=str(path)) from error


def write_failure(folder: Path, what: str) -> DiskFull | DiskError:
    """The error for a library that could not write in ``folder`` and does not say why."""
    if shutil.disk_usage(folder).free < NEARLY_FULL_BYTES or "os error 28" in what:
        return DiskFull(f"no space left to write in {folder} ({what}); free some and run it again")
    return DiskError(f"{folder}: {what}", path=str(folder))


@contextlib.contextmanager
def opened_file(path: Path) -> Iterator[BinaryIO]:
    """Yield the stream of a regular file, through links; what else is there is only looked at.

    Raises:
        OSError: it cannot be opened, or is something else: a named pipe would keep its reader
            waiting for ever.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        mode = os.fstat(descriptor).st_mode
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        if not stat.S_ISREG(mode):
            raise OSError(errno.EINVAL, "This is no regular file; remove it", str(path))
        with open(descriptor, "rb", closefd=False) as stream:
            yield stream
    finally:
        os.close(descriptor)


def read_file(path: Path) -> bytes:
    """The bytes of a regular file; see :func:`opened_file`."""
    with opened_file(path) as stream:
        return stream.read()


def fsync_folder(folder: Path) -> None:
    """Make the names in ``folder`` durable."""
    step("fsync-folder", folder)
    with translated(folder):
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def fsync_file(path: Path) -> None:
    """Make the content of an existing file durable."""
    step("fsync", path)
    with translated(path):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def make_folder(folder: Path, *, private: bool = False) -> None:
    """Create ``folder`` and its missing parents, durably; an existing one is left alone."""
    if folder.is_dir():
        return
    make_folder(folder.parent)
    step("mkdir", folder)
    with translated(folder):
        folder.mkdir(mode=0o700 if private else 0o777, exist_ok=True)
    fsync_folder(folder.parent)


def _write_temporary(target: Path, parts: Iterable[bytes | memoryview], mode: int) -> Path:
    step("write", target)
    with translated(target):
        descriptor, name = tempfile.mkstemp(prefix=TEMPORARY_PREFIX, dir=target.parent)
        try:
            with open(descriptor, "wb") as stream:
                os.fchmod(descriptor, mode)
                stream.writelines(parts)
                stream.flush()
                os.fsync(descriptor)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
    return Path(name)


def replace_file(path: Path, parts: Iterable[bytes | memoryview], *, mode: int = 0o644) -> None:
    """Make ``path`` hold exactly ``parts``, atomically and durably: the old bytes or the new."""
    temporary = _write_temporary(path, parts, mode)
    step("rename", path)
    with translated(path):
        temporary.replace(path)
    fsync_folder(path.parent)


def create_file(path: Path, parts: Iterable[bytes | memoryview], *, mode: int = 0o644) -> bool:
    """Make ``path`` hold ``parts`` if nothing is there; say whether this call created it."""
    if path.exists():
        return False
    temporary = _write_temporary(path, parts, mode)
    step("link", path)
    try:
        with translated(path):
            os.link(temporary, path)
    except DiskError as error:
        if isinstance(error.__cause__, FileExistsError):
            return False
        raise
    finally:
        temporary.unlink(missing_ok=True)
    fsync_folder(path.parent)
    return True


def link_file(source: Path, target: Path) -> None:
    """Give ``source`` a second name (a hard link); an existing ``target`` is left alone.

    The new name is durable after the next :func:`fsync_folder` of its folder.
    """
    step("link", target)
    with translated(target), contextlib.suppress(FileExistsError):
        os.link(source, target)


def rename_file(source: Path, target: Path) -> None:
    """Rename a file within one file system.

    The new name is durable after the next :func:`fsync_folder` of its folder.
    """
    step("rename", target)
    with translated(target):
        source.replace(target)


def cache_file(path: Path, data: bytes) -> None:
    """Make ``path`` hold ``data``, whole or not at all; whether it survives a crash is left open.

    For what can be had again and is checked whenever it is read.
    """
    step("write", path)
    temporary = path.with_name(f"{TEMPORARY_PREFIX}{path.name}")
    with translated(path):
        try:
            temporary.write_bytes(data)
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


def move(source: Path, target: Path) -> None:
    """Rename a file or folder within one file system, durably."""
    step("rename", target)
    with translated(target):
        source.rename(target)
    fsync_folder(target.parent)
    if source.parent != target.parent:
        fsync_folder(source.parent)


def remove_tree(folder: Path) -> None:
    """Remove ``folder`` and all in it; a missing one is left alone."""
    if folder.exists():
        step("remove", folder)
        with translated(folder):
            # A library's thread may put its lock file into a folder that is being emptied.
            for attempts_left in reversed(range(REMOVE_ATTEMPTS)):
                shutil.rmtree(folder, ignore_errors=attempts_left > 0)
                if not folder.exists():
                    break


def remove_file(path: Path) -> None:
    """Remove ``path``; a missing one is left alone."""
    step("remove", path)
    with translated(path):
        path.unlink(missing_ok=True)


def clear(path: Path) -> None:
    """Remove what is there, be it a file, a folder or a link; nothing may be."""
    if path.is_dir() and not path.is_symlink():
        remove_tree(path)
    else:
        remove_file(path)


def plain_size_bytes(path: Path) -> int | None:
    """The size of a plain file; ``None`` where there is none, but a link or a folder perhaps."""
    with contextlib.suppress(OSError):
        found = path.lstat()
        if stat.S_ISREG(found.st_mode):
            return found.st_size
    return None


def held_size_bytes(path: Path) -> int:
    """What a plain file takes of its disk, holes left out, and never more than its size; else 0."""
    with contextlib.suppress(OSError):
        found = path.lstat()
        if stat.S_ISREG(found.st_mode):
            return min(found.st_size, found.st_blocks * STAT_BLOCK_SIZE_BYTES)
    return 0


def remove_empty_folder(folder: Path) -> None:
    """Remove ``folder`` if it is there and nothing is in it."""
    step("rmdir", folder)
    with translated(folder):
        try:
            folder.rmdir()
        except OSError as error:
            if error.errno not in {errno.ENOTEMPTY, errno.EEXIST, errno.ENOENT}:
                raise


def remove_temporaries(folder: Path) -> None:
    """Remove what writes that were cut off left in ``folder``. The caller holds its lock."""
    for leftover in folder.glob(f"{TEMPORARY_PREFIX}*"):
        if leftover.is_dir():
            remove_tree(leftover)
        else:
            remove_file(leftover)


@contextlib.contextmanager
def locked(
    path: Path,
    purpose: str,
    *,
    wait: bool = False,
    keep_waiting: Callable[[], bool] = lambda: False,
) -> Iterator[None]:
    """Hold an exclusive lock on the file ``path``; the kernel lets go of it if the process dies.

    Args:
        path: the lock file.
        purpose: what for, as an imperative, for the message.
        wait: wait as long as it takes; for locks that are held for single file operations only.
        keep_waiting: pauses and says whether to try again.

    Raises:
        HomeLocked: another process holds it, and nothing said to go on waiting.
    """
    with translated(path):
        # A link could lead anywhere, and what is missing there would be made.
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)
    try:
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
                break
            except BlockingIOError as error:
                if not keep_waiting():
                    raise HomeLocked(
                        f"another genctl command is at work in {path.parent}; wait for it, then "
                        f"{purpose} again",
                        home=str(path.parent),
                    ) from error
        yield
    finally:
        os.close(descriptor)


class WritableFile:
    """An existing file, kept open for writes at offsets that the caller has verified.

    What was written is durable when :meth:`fsync` has returned, and not before. After a failed
    call the caller must not go on as if the bytes were there: it closes the file and reads it anew.

    Raises:
        DiskFull, DiskError: from every method.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        with translated(path):
            self._descriptor = os.open(path, os.O_WRONLY)

    def write_at(self, offset_bytes: int, data: bytes) -> None:
        """Put ``data`` at ``offset_bytes``, growing the file as needed."""
        step("write-at", self._path)
        rest = memoryview(data)
        with translated(self._path):
            while rest:
                written = os.pwrite(self._descriptor, rest, offset_bytes)
                offset_bytes += written
                rest = rest[written:]

    def fsync(self) -> None:
        """Make everything written so far durable."""
        step("fsync", self._path)
        with translated(self._path):
            os.fsync(self._descriptor)

    def truncate(self, size_bytes: int) -> None:
        """Cut the file to ``size_bytes``, durably."""
        step("truncate", self._path)
        with translated(self._path):
            os.ftruncate(self._descriptor, size_bytes)
        self.fsync()

    def close(self) -> None:
        """Let go of the file; says nothing about durability."""
        os.close(self._descriptor)
