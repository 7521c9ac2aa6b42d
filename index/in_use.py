"""Which generations of a home are open, in whatever process, and when each was opened last.

Whoever opens a generation holds a shared lock (``flock``) on its folder, and whoever would remove
it needs that lock for itself: the kernel lets go of it when the process ends, however it ends. The
folder's modification time is when it was opened last; a power failure may set that back. On a file
system without such locks nothing can be held, and nothing is removed either.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from durable.files import translated
from index.verification import VerifiedGeneration
from manifests.errors import DiskError, GenerationUnknown

MAX_ROUNDS = 10
"""How often a folder is looked at anew because another took its place meanwhile."""


class Hold:
    """A generation that stays where it is until this is closed or no more, or its process ends."""

    def __init__(self, descriptor: int) -> None:
        self._close = weakref.finalize(self, os.close, descriptor)
        self._close.atexit = False

    def close(self) -> None:
        """Let go; again is no error."""
        self._close()

    def keep_with(self, user: object) -> None:
        """Let go when ``user`` is no more, and not before."""
        weakref.finalize(user, self.close).atexit = False


@dataclass(frozen=True, slots=True)
class HeldGeneration:
    """A verified generation that stays as long as it is held."""

    verified: VerifiedGeneration
    hold: Hold


def hold(folder: Path) -> Hold:
    """Hold the generation in ``folder``, and take note that it is opened now.

    Waits for whoever is just renaming it away.

    Raises:
        GenerationUnknown: it is not here, or not any more.
        DiskError: its folder cannot be opened.
    """
    for _ in range(MAX_ROUNDS):
        descriptor = _open(folder)
        held = Hold(descriptor)
        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.flock(descriptor, fcntl.LOCK_SH)
        if _is_still(folder, descriptor):
            with contextlib.suppress(OSError):  # somebody else's, or a disk that is only read
                os.utime(descriptor)
            return held
        held.close()
    raise _unknown(folder)


@contextlib.contextmanager
def unless_held(folder: Path) -> Iterator[bool]:
    """Yield whether nobody holds the generation in ``folder``; nobody does while the block runs.

    Raises:
        GenerationUnknown: it is not here.
        DiskError: its folder cannot be opened.
    """
    descriptor = _open(folder)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            yield False
        else:
            yield True
    finally:
        os.close(descriptor)


def last_opened_ns(folder: Path) -> int:
    """When the generation in ``folder`` was opened last, or came here: nanoseconds since 1970.

    Raises:
        DiskError: it cannot be told.
    """
    with translated(folder):
        return folder.stat().st_mtime_ns


def _open(folder: Path) -> int:
    try:
        return os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except FileNotFoundError as error:
        raise _unknown(folder) from error
    except OSError as error:
        raise DiskError(f"{folder}: {error.strerror or error}", path=str(folder)) from error


def _is_still(folder: Path, descriptor: int) -> bool:
    """Whether the folder of that name is the one that was opened."""
    try:
        return os.path.samestat(folder.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _unknown(folder: Path) -> GenerationUnknown:
    return GenerationUnknown(
        f"generation {folder.name} is not here; `genctl generations` at the writer and `genctl "
        "node status` at a node list what is",
        generation_id=folder.name,
    )
