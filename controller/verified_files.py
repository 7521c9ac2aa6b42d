"""Which files of a node's home other nodes may have: those that were verified, and no others."""

from __future__ import annotations

import contextlib
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path

from activator.state import StateFile
from controller.peer_service import Opened
from durable.files import translated
from store.port import ObjectInfo

KINDS = ("artifacts", "tables")
_VERIFIED_NAME = re.compile(r"[0-9a-f]{64}")


class VerifiedFiles:
    """A :class:`controller.peer_service.Offer` of a node's artifacts and of their tables.

    A file gets its name in these folders, the BLAKE3 of its bytes, only after they were verified;
    so the name is the proof and nothing is verified again. Every other name, whatever is not a
    plain file, and what a scrub found damaged and could not mend, is not there.
    """

    def __init__(self, home: Path) -> None:
        self._home = home
        self._state = StateFile(home)

    def open(self, key: str) -> Opened | None:
        """See :meth:`controller.peer_service.Offer.open`; the tag is the file's BLAKE3."""
        kind, _, name = key.partition("/")
        if kind not in KINDS or _VERIFIED_NAME.fullmatch(name) is None or name in self._damaged():
            return None
        path = self._home / kind / name
        with translated(path):
            try:
                # Without O_NONBLOCK, opening a named pipe would wait for a writer.
                descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
            except (FileNotFoundError, NotADirectoryError):
                return None
            except OSError:
                if path.is_symlink():
                    return None
                raise
            found = os.fstat(descriptor)
            if not stat.S_ISREG(found.st_mode):
                os.close(descriptor)
                return None
        return Opened(descriptor, found.st_size, name)

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """See :meth:`controller.peer_service.Offer.list`."""
        damaged = self._damaged()
        for kind in KINDS:
            base = f"{kind}/"
            if base.startswith(prefix) or prefix.startswith(base):
                for found in _verified_names(self._home / kind):
                    if (base + found.key).startswith(prefix) and found.key not in damaged:
                        yield ObjectInfo(base + found.key, found.size_bytes)

    def _damaged(self) -> set[str]:
        return {damage.artifact_id for damage in self._state.read().damage}


def _verified_names(folder: Path) -> Iterator[ObjectInfo]:
    """The files in one folder, by their names, in order."""
    sizes: dict[str, int] = {}
    with (
        translated(folder),
        contextlib.suppress(FileNotFoundError, NotADirectoryError),
        os.scandir(folder) as entries,
    ):
        for entry in entries:
            if _VERIFIED_NAME.fullmatch(entry.name) and entry.is_file(follow_symlinks=False):
                with contextlib.suppress(FileNotFoundError):
                    sizes[entry.name] = entry.stat(follow_symlinks=False).st_size
    return (ObjectInfo(name, sizes[name]) for name in sorted(sizes))
