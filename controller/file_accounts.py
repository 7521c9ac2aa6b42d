"""What the files of a home are: those that should be there, orphans, and others' (fsck).

Names and lengths are compared, contents are not read: that is a scrub's work.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Container, Iterator
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from pathlib import Path

from builder.presence import NOT_THERE, Missing
from durable import files
from manifests.generation import GenerationManifest

MAX_TOLD = 1000
"""So many of each kind are told by name; the others are counted."""

CUT_OFF = "a write that was cut off left it"

# The text library's own, made wherever it opens a folder.
_LIBRARY_FILE = re.compile(r"\.tantivy-[a-z]+\.lock")
_CONTENT_ID = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Orphan:
    """A file that nothing needs; the next command that comes by there removes it."""

    path: str
    size_bytes: int
    reason: str


@dataclass(slots=True)
class FileAccounts:
    """What was found in one home; paths are relative to it.

    Of each kind the first :data:`MAX_TOLD` are there by name.

    Attributes:
        home: the home's folder.
        missing: what should be there.
        orphans: what nothing needs.
        unknown: what genctl has not put there.
    """

    home: Path
    missing: list[Missing] = field(default_factory=list)
    missing_count: int = 0
    orphans: list[Orphan] = field(default_factory=list)
    orphan_count: int = 0
    orphan_bytes: int = 0
    unknown: list[str] = field(default_factory=list)
    unknown_count: int = 0

    def lacks(self, path: Path, what: str) -> None:
        """Note that something is missing; ``what`` says how."""
        self.missing_count += 1
        if len(self.missing) < MAX_TOLD:
            self.missing.append(Missing(str(self.home), self._named(path), what))

    def orphan(self, path: Path, reason: str) -> None:
        """Note a file that nothing needs."""
        try:
            size_bytes = path.lstat().st_size
        except FileNotFoundError:
            return  # a command at work was done with it
        self.orphan_count += 1
        self.orphan_bytes += size_bytes
        if len(self.orphans) < MAX_TOLD:
            self.orphans.append(Orphan(self._named(path), size_bytes, reason))

    def stray(self, path: Path) -> None:
        """Note a file that nobody here would name so: a cut-off write's, or somebody else's."""
        parts = path.relative_to(self.home).parts
        if any(part.startswith(files.TEMPORARY_PREFIX) for part in parts):
            self.orphan(path, CUT_OFF)
            return
        self.unknown_count += 1
        if len(self.unknown) < MAX_TOLD:
            self.unknown.append(self._named(path))

    def check(self, path: Path, size_bytes: int) -> None:
        """Note a file that is not a plain one of this size."""
        what = _fault(path, size_bytes)
        if what is not None:
            self.lacks(path, what)

    def check_files(self, folder: Path, manifest: GenerationManifest, own: tuple[str, ...]) -> None:
        """Look at a generation's folder: what it lacks, and what is in it besides ``own`` files."""
        names = set(own)
        for artifact in manifest.artifacts:
            names.add(f"files/{artifact.name}")
            self.check(folder / "files" / artifact.name, artifact.size_bytes)
        for path in files_below(folder):
            if str(path.relative_to(folder)) not in names and not _LIBRARY_FILE.fullmatch(
                path.name
            ):
                self.stray(path)

    def check_unknown_names(self, known: AbstractSet[str]) -> None:
        """Note what is in the home under other names than the ``known``."""
        for path in sorted(self.home.iterdir()):
            if path.name not in known:
                for each in files_below(path):
                    self.stray(each)

    def check_by_content(self, folder: Path, needed: Container[str], reason: str) -> None:
        """Look at a folder of files that are named by content: what is not ``needed``, and why."""
        for path in files_below(folder):
            if path.parent != folder or not _CONTENT_ID.fullmatch(path.name):
                self.stray(path)
            elif path.name not in needed:
                self.orphan(path, reason)

    def _named(self, path: Path) -> str:
        return str(path.relative_to(self.home))


def files_below(folder: Path) -> Iterator[Path]:
    """All that is no folder in ``folder``, or itself if it is none; links are not followed."""
    if folder.is_dir() and not folder.is_symlink():
        for path in sorted(folder.iterdir()):
            yield from files_below(path)
    elif os.path.lexists(folder):
        yield folder


def _fault(path: Path, size_bytes: int) -> str | None:
    """How a file is not what it should be; ``None`` if it is."""
    try:
        entry = path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return NOT_THERE
    if not stat.S_ISREG(entry.st_mode):
        return "it is no plain file"
    if entry.st_size != size_bytes:
        return f"it has {entry.st_size} bytes, and should have {size_bytes}"
    return None
