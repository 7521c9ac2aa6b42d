"""A store in a folder: the embedded default, on a local disk or a mounted one.

An object is a file under its key. Objects appear by hard link (:func:`durable.files.create_file`),
mutable ones are replaced by rename under a lock on the file ``.genctl-store`` in the root. That
file also tells a store from a mount point whose disk is not there: a missing root, or one with
neither that file nor anything else in it, is ``StoreUnavailable`` and never "no such object".

Names that cannot be keys (temporary files, ``lost+found``) are not objects; neither are links,
which could lead out of the root, nor anything else that is not a plain file. Only the folder of
symbols may be a link, to a folder on another disk: ``StoreUnavailable`` when that is not there.
What stands in an object's place all the same is ``ObjectObstructed`` to whoever asks for the object
or writes it, and :meth:`FolderStore.delete` clears it away. Only a folder, in which there may be
something, stays, and is no object to whoever asks: ``stat`` and ``get_versioned`` give ``None``, a
swap does not take place, and ``put_if_absent`` alone, which would have to say that the object is
there, is ``ObjectObstructed``.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from durable.files import (
    TEMPORARY_PREFIX,
    create_file,
    fsync_folder,
    locked,
    make_folder,
    remove_empty_folder,
    remove_file,
    replace_file,
    translated,
)
from manifests.errors import (
    DiskError,
    LengthExceeded,
    ObjectMissing,
    ObjectObstructed,
    StoreUnavailable,
)
from manifests.identifiers import content_id
from store.keys import check_key, check_prefix, check_range, is_segment
from store.port import UNWATCHED, ObjectInfo, Transfer, VersionedBytes

LOCK_NAME = ".genctl-store"
PIECE_SIZE_BYTES = 1 << 20
LINKABLE_NAME = "symbols"
"""The one name in the root that may be a link: most of a store's bytes are under it."""

CREATE_ATTEMPTS = 100
MAX_MUTABLE_SIZE_BYTES = 64 << 20
"""The longest object that :meth:`FolderStore.compare_and_swap` reads to compare its version."""

# What the kernel says of a network file system that does not answer; a retry may succeed.
_UNREACHABLE = {
    errno.ECONNREFUSED,
    errno.ECONNRESET,
    errno.EHOSTDOWN,
    errno.EHOSTUNREACH,
    errno.ENETDOWN,
    errno.ENETUNREACH,
    errno.ENODEV,
    errno.ENOTCONN,
    errno.ESTALE,
    errno.ETIMEDOUT,
}


@dataclass(frozen=True, slots=True)
class CutOff:
    """What a write that was cut off left: a file that is no object, of so many bytes."""

    path: Path
    size_bytes: int

    def remove(self) -> None:
        """Remove it; one that is gone is no error.

        Raises:
            DiskError: the disk refuses.
        """
        remove_file(self.path)


_Entry = tuple[str, os.stat_result | None]


class FolderStore:
    """A :class:`store.port.Store` in the folder ``root``; safe among threads and processes.

    Making the object touches nothing, so that a node starts while its store is unmounted; every
    method raises ``StoreUnavailable`` as long as there is no store. Use :meth:`create` to make one.

    The version token is the BLAKE3 of an object's bytes.
    """

    def __init__(self, root: Path) -> None:
        self._root = root.absolute()
        self._durable_folders: set[Path] = set()

    @classmethod
    def create(cls, root: Path) -> FolderStore:
        """Make a store in ``root``, durably; one that is already there is left as it is.

        Raises:
            DiskFull, DiskError: the folder cannot be made or written.
        """
        root = root.absolute()
        with translated(root):
            make_folder(root)
            create_file(root / LOCK_NAME, [])
        return cls(root)

    @property
    def url(self) -> str:
        """The root's absolute path, which :func:`store.locate.open_store` accepts as it is."""
        return str(self._root)

    def get(self, key: str, *, offset: int = 0, length: int) -> bytes:
        """See :meth:`store.port.Store.get`."""
        check_key(key)
        check_range(offset, length)
        with self._opened(key) as descriptor:
            if descriptor is None:
                raise self._missing(key)
            with self._answering(self._root / key):
                return _read(descriptor, offset, length)

    def read_into(
        self, key: str, *, offset: int, buffer: memoryview, transfer: Transfer = UNWATCHED
    ) -> int:
        """See :meth:`store.port.Store.read_into`."""
        check_key(key)
        check_range(offset, len(buffer))
        done = 0
        with self._opened(key) as descriptor:
            if descriptor is None:
                raise self._missing(key)
            while done < len(buffer):
                with self._answering(self._root / key):
                    piece = buffer[done : done + PIECE_SIZE_BYTES]
                    count = os.preadv(descriptor, [piece], offset + done)
                if count == 0:
                    break
                done += count
                transfer.arrived(count)
        return done

    def get_versioned(self, key: str, *, limit_bytes: int) -> VersionedBytes | None:
        """See :meth:`store.port.Store.get_versioned`."""
        check_key(key)
        with self._opened(key) as descriptor:
            if descriptor is None:
                return None
            with self._answering(self._root / key):
                data = _read(descriptor, 0, limit_bytes + 1)
        if len(data) > limit_bytes:
            raise LengthExceeded(
                f"{key} in {self.url} is longer than {limit_bytes} bytes",
                key=key,
                limit_bytes=limit_bytes,
            )
        return VersionedBytes(data, content_id(data))

    def put_if_absent(self, key: str, parts: Sequence[bytes | memoryview]) -> bool:
        """See :meth:`store.port.Store.put_if_absent`."""
        check_key(key)
        path = self._root / key
        with self._answering(path):
            self._check_mounted()
            for attempts_left in reversed(range(CREATE_ATTEMPTS)):
                try:
                    return self._created(key, parts)
                except DiskError as error:
                    # A deletion may have found the object's folder empty, and have removed it.
                    if not (attempts_left and isinstance(error.__cause__, FileNotFoundError)):
                        raise
        raise AssertionError("the last attempt returns or raises")

    def _created(self, key: str, parts: Sequence[bytes | memoryview]) -> bool:
        path = self._root / key
        self._make_durable(path.parent)
        if create_file(path, parts):
            return True
        if path.is_dir() and not path.is_symlink():
            raise self._obstructed(path, "a folder", "see what is in it and move it away")
        self.stat(key)  # refuses a link
        # Whoever created the object may have died before its name was durable.
        fsync_folder(path.parent)
        return False

    def compare_and_swap(self, key: str, data: bytes, expected: str | None) -> bool:
        """See :meth:`store.port.Store.compare_and_swap`."""
        check_key(key)
        path = self._root / key
        with self._answering(path), self._exclusive():
            current = self.get_versioned(key, limit_bytes=MAX_MUTABLE_SIZE_BYTES)
            if (None if current is None else current.version) != expected:
                if current is not None:
                    fsync_folder(path.parent)
                return False
            self._make_durable(path.parent)
            if expected is None:
                # put_if_absent does not take the lock.
                return create_file(path, [data])
            replace_file(path, [data])
            return True

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """See :meth:`store.port.Store.list`; one folder is read at a time."""
        check_prefix(prefix)
        self._check_mounted()
        base = prefix[: prefix.rfind("/") + 1]
        return self._walk(base, prefix)

    def stat(self, key: str) -> ObjectInfo | None:
        """See :meth:`store.port.Store.stat`."""
        check_key(key)
        path = self._root / key
        with self._answering(path):
            try:
                found = self._plain(path, path.lstat())
            except (FileNotFoundError, NotADirectoryError):
                found = None
        if found is None:
            self._check_mounted()
            return None
        return ObjectInfo(key, found.st_size)

    def delete(self, key: str) -> None:
        """See :meth:`store.port.Store.delete`; the folder that held the object goes if it is empty.

        A folder in the object's place stays, with or without something in it.
        A link or a device in the object's place is removed; what a link leads to is left alone.
        """
        check_key(key)
        path = self._root / key
        # Under the lock, or a swap in progress could bring the object back.
        with self._answering(path), self._exclusive():
            try:
                is_there = not stat.S_ISDIR(path.lstat().st_mode)
            except (FileNotFoundError, NotADirectoryError):
                is_there = False
            if is_there:
                remove_file(path)
                if path.parent != self._root and not path.parent.is_symlink():
                    remove_empty_folder(path.parent)

    def cut_off(self, before: datetime) -> Iterator[CutOff]:
        """What writes left that were begun before a time and never came to their end.

        Raises:
            StoreUnavailable, DiskError: the store does not answer.
        """
        self._check_mounted()
        with self._answering(self._root):
            for folder, folders, names in os.walk(self._root, followlinks=True):
                linked = LINKABLE_NAME if Path(folder) == self._root else None
                folders[:] = [
                    name
                    for name in folders
                    if name == linked or not Path(folder, name).is_symlink()
                ]
                for path in (Path(folder, name) for name in sorted(names)):
                    if path.name.startswith(TEMPORARY_PREFIX):
                        with contextlib.suppress(FileNotFoundError):
                            found = path.lstat()
                            changed_at = datetime.fromtimestamp(found.st_mtime, UTC)
                            if stat.S_ISREG(found.st_mode) and changed_at < before:
                                yield CutOff(path, found.st_size)

    def _missing(self, key: str) -> ObjectMissing:
        return ObjectMissing(f"{self.url} has no object {key}", store=self.url, key=key)

    @contextlib.contextmanager
    def _answering(self, path: Path) -> Iterator[None]:
        """Translate errors on ``path``; a file system that is out of reach is a matter of retry."""
        try:
            with translated(path):
                yield
        except DiskError as error:
            if isinstance(error.__cause__, OSError) and error.__cause__.errno in _UNREACHABLE:
                raise StoreUnavailable(
                    f"the store {self.url} does not answer: {error.message}", store=self.url
                ) from error
            raise

    @contextlib.contextmanager
    def _exclusive(self) -> Iterator[None]:
        self._check_mounted()
        with locked(self._root / LOCK_NAME, "write to the store", wait=True):
            yield

    def _check_mounted(self) -> None:
        linked = self._root / LINKABLE_NAME
        with self._answering(self._root):
            if linked.is_symlink() and not linked.is_dir():
                raise StoreUnavailable(
                    f"{linked} leads to no folder; mount its disk or correct the link, then try "
                    "again",
                    store=self.url,
                )
            if (self._root / LOCK_NAME).exists():
                return
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                # A copy of a store made by hand may lack the hidden file; an empty folder is none.
                if any(self._root.iterdir()):
                    return
        raise StoreUnavailable(
            f"there is no store in {self.url}: the folder is missing or empty; mount its disk or "
            "correct the path, then try again",
            store=self.url,
        )

    def _make_durable(self, folder: Path) -> None:
        """Make ``folder`` and those above it up to the root exist, and their names durable.

        Folders that are already there may be the work of a process that died before it synced
        them; each is synced once in the life of this object.
        """
        if folder in self._durable_folders and folder.is_dir():
            return
        if folder != self._root:
            self._make_durable(folder.parent)
            if folder.is_dir():
                fsync_folder(folder.parent)
            elif os.path.lexists(folder) and not folder.is_dir():
                raise self._obstructed(folder, "no folder", "move it away")
            else:
                make_folder(folder)
        self._durable_folders.add(folder)

    @contextlib.contextmanager
    def _opened(self, key: str) -> Iterator[int | None]:
        """A descriptor of the object, or ``None`` if the store is there and the object is not."""
        path = self._root / key
        descriptor = None
        with self._answering(path), contextlib.suppress(FileNotFoundError, NotADirectoryError):
            # Without O_NONBLOCK, opening a named pipe would wait for a writer.
            try:
                descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
            except OSError as error:
                if error.errno != errno.ELOOP:
                    raise
                raise self._obstructed(path, "a link", "remove it") from error
        if descriptor is None:
            self._check_mounted()
            yield None
            return
        try:
            with self._answering(path):
                found = self._plain(path, os.fstat(descriptor))
            yield None if found is None else descriptor
        finally:
            os.close(descriptor)

    def _obstructed(self, path: Path, what: str, advice: str) -> ObjectObstructed:
        return ObjectObstructed(
            f"{path} is {what} and stands where an object should be; {advice}",
            path=str(path),
            store=self.url,
        )

    def _plain(self, path: Path, found: os.stat_result) -> os.stat_result | None:
        """``found`` if it is a plain file's, ``None`` if a folder's; nothing else may be there."""
        if stat.S_ISREG(found.st_mode):
            return found
        if stat.S_ISDIR(found.st_mode):
            return None
        raise self._obstructed(path, "a link or a device", "remove it")

    def _walk(self, base: str, prefix: str) -> Iterator[ObjectInfo]:
        """The objects under ``prefix`` in the folder ``base`` (empty, or ending in a slash)."""
        for name, found in self._entries(base):
            key = base + name
            if found is None:
                if key.startswith(prefix) or prefix.startswith(key):
                    yield from self._walk(key, prefix)
            elif key.startswith(prefix):
                modified_at = datetime.fromtimestamp(found.st_mtime, UTC)
                yield ObjectInfo(key, found.st_size, modified_at)

    def _entries(self, base: str) -> Sequence[_Entry]:
        """The objects in one folder with what is known of them, and its folders (``name/``)."""
        entries: list[_Entry] = []
        folder = self._root / base
        with self._answering(folder):
            try:
                with os.scandir(folder) as found:
                    for entry in found:
                        if not is_segment(entry.name):
                            continue
                        linked = not base and entry.name == LINKABLE_NAME
                        if entry.is_dir(follow_symlinks=linked):
                            entries.append((f"{entry.name}/", None))
                        elif entry.is_file(follow_symlinks=False):
                            with contextlib.suppress(FileNotFoundError):
                                entries.append((entry.name, entry.stat(follow_symlinks=False)))
            except (FileNotFoundError, NotADirectoryError):
                self._check_mounted()
        # A slash sorts after "-" and ".", so a folder must be sorted with its slash.
        return sorted(entries, key=lambda entry: entry[0])


def _read(descriptor: int, offset: int, length: int) -> bytes:
    """Up to ``length`` bytes from ``offset`` on; fewer only at the end of the file."""
    remaining = min(length, max(0, os.fstat(descriptor).st_size - offset))
    pieces = []
    while remaining:
        piece = os.pread(descriptor, remaining, offset)
        if not piece:
            break
        pieces.append(piece)
        offset += len(piece)
        remaining -= len(piece)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)
