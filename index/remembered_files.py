"""Which files were found intact, remembered from one command to the next.

A build reads a few artifacts of its parent and hands on the others as they are; to hash all of them
at every build would make its cost follow the corpus. Here a writer remembers the files that it has
hashed, each by device, inode, size and time of its last change. Where one of these is another, the
file is read again. What changes none of them, rot on the disk, is for a scrub to find: a node
checks what it fetches, and publishing checks what it sends, whatever is remembered here.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import msgspec

from durable import files
from index.verification import ReadFiles
from manifests.errors import DiskError

FILE = "intact.json"

State = tuple[int, int, int, int]
"""Device, inode, size in bytes, time of the last change in ns."""


class RememberedFiles(ReadFiles):
    """The files that a home's builds have read and found to be what they should."""

    def __init__(self, home: Path) -> None:
        """Recall them; nothing is known if the file cannot be read."""
        super().__init__()
        self._path = home / FILE
        self._known: dict[State, str] = {}
        try:
            with files.translated(self._path):
                data = files.read_file(self._path)
            self._known = dict(msgspec.json.decode(data, type=list[tuple[State, str]]))
        except (DiskError, msgspec.DecodeError):
            pass

    def knows(self, found: State, digest: str) -> bool:
        """Whether this very file was found to have ``digest``."""
        return self._known.get(found) == digest

    def remember(self, found: State, digest: str) -> None:
        """Note what this file was found to have."""
        self._known[found] = digest

    @property
    def digests(self) -> set[str]:
        """The ids of all artifacts that something is known of."""
        return set(self._known.values())

    def save(self, artifact_ids: Collection[str]) -> None:
        """Keep what is known of these artifacts for the next command, and forget the rest.

        Raises:
            DiskFull, DiskError: the disk refuses.
        """
        kept = [(list(state), digest) for state, digest in self._known.items()]
        kept = [each for each in kept if each[1] in artifact_ids]
        files.cache_file(self._path, msgspec.json.encode(kept))
