"""What nothing needs in a writer's home, and how many bytes its removal gives back."""

from __future__ import annotations

import re
import stat
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from controller.roots import UNPUBLISHED, WAITING_MERGE, Rooted
from controller.writer import WriterHome
from durable import files
from manifests.identifiers import GenerationId

_ARTIFACT_ID = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class HomeGarbage:
    """What nothing needs in the home.

    Attributes:
        generations: ids of generations.
        artifacts: ids of artifacts that no generation and no merge that stays names.
        shelved: ids of artifacts whose symbols wait for no publish.
        size_bytes: what removing it all gives back; files that stay under another name count not.
    """

    generations: tuple[GenerationId, ...]
    artifacts: tuple[str, ...]
    shelved: tuple[str, ...]
    size_bytes: int

    @property
    def parts(self) -> int:
        """How many there are."""
        return len(self.generations) + len(self.artifacts) + len(self.shelved)


def home_garbage(writer: WriterHome, rooted: Rooted) -> HomeGarbage:
    """What nothing needs in the home, while nobody builds or merges there.

    Raises:
        DiskError: the disk refuses.
    """
    residence = writer.residence
    waiting = {
        artifact.blake3
        for root in rooted.reach.roots
        if root.reasons in {(UNPUBLISHED,), (WAITING_MERGE,)}
        for artifact in root.artifacts
    }
    shelves = shelf_folder(writer)
    with files.translated(writer.home):
        shelved = [
            path
            for path in (sorted(shelves.iterdir()) if shelves.is_dir() else ())
            if _ARTIFACT_ID.fullmatch(path.name) and path.is_dir() and path.name not in waiting
        ]
        artifacts = [each for each, _ in residence.kept_artifacts() if each not in rooted.reach]
        resident = set(residence.resident_ids())
        leaving = [each for each in rooted.leaving if each in resident]
        paths = [residence.generations / each for each in leaving]
        paths += [residence.artifact_path(each) for each in artifacts]
        return HomeGarbage(
            generations=tuple(leaving),
            artifacts=tuple(artifacts),
            shelved=tuple(path.name for path in shelved),
            size_bytes=_given_back(chain(paths, shelved)),
        )


def shelf_folder(writer: WriterHome) -> Path:
    """Where symbols wait to be published."""
    return writer.home / "symbols"


def _given_back(paths: Iterable[Path]) -> int:
    """The bytes of the files that have no other name than those at and below ``paths``."""
    names: Counter[int] = Counter()
    found = {}
    for path in paths:
        for each in (path, *path.rglob("*")):
            entry = each.lstat()
            if stat.S_ISREG(entry.st_mode):
                names[entry.st_ino] += 1
                found[entry.st_ino] = entry
    return sum(each.st_size for inode, each in found.items() if each.st_nlink == names[inode])
