"""What happens to a home besides its own commands: kills, and a copy of it that hangs."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from builder.publish import PublishReport
from durable import files
from store.port import ObjectInfo
from tests.builder.raced_store import RacedStore
from tests.support.homes import TestableWriter


class Killed(BaseException):
    """The process ends here."""


class Killer:
    """Ends the process before one of its changes to the disk; nothing it does after that counts.

    ``spared`` are folders in which another process, which is not ended, makes its changes.
    """

    def __init__(self) -> None:
        self._left: int | None = None
        self.spared: tuple[Path, ...] = ()
        files.observe(self._observe)

    def run(self, act: Callable[[], object], kill_at: int | None) -> bool:
        """Run ``act``; whether it was killed."""
        self._left = kill_at
        try:
            act()
        except Killed:
            return True
        finally:
            self._left = None
        return False

    def _observe(self, _: str, path: Path) -> None:
        if self._left is None or any(path.is_relative_to(each) for each in self.spared):
            return
        if self._left <= 0:
            raise Killed
        self._left -= 1


class Watched(RacedStore):
    """The store behind, which remembers what it was asked for."""

    is_swapping = False
    has_swapped = False
    is_sweeping = False
    is_deleting = False

    def compare_and_swap(self, key: str, data: bytes, expected: str | None) -> bool:
        self.is_swapping = True
        has_swapped = super().compare_and_swap(key, data, expected)
        self.has_swapped = True
        return has_swapped

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        self.is_sweeping = self.has_swapped and prefix == ""
        return super().list(prefix)

    def delete(self, key: str) -> None:
        self.is_deleting = True
        super().delete(key)


@dataclass
class Stalled:
    """A copy of the home that hangs in a publish or a collection.

    ``begun`` is the token of the collection that it had begun, and ``version`` the timestamp's that
    it had signed then.
    """

    writer: TestableWriter
    collects: bool
    thread: threading.Thread
    hangs: threading.Event
    store: Watched
    begun: str | None = None
    version: str | None = None
    steps: int = 0
    go_on: threading.Event = field(default_factory=threading.Event)
    reports: list[PublishReport] = field(default_factory=list)
    errors: list[BaseException] = field(default_factory=list)
