"""Whether all that a node should have is there, and what every file in its home is for.

Names and sizes are compared, contents are not read: that is the scrub's work.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from controller.new_node import KNOWN_NAMES
from durable import files
from index.residence import MANIFEST_FILE
from manifests.errors import ArtifactHashMismatch, GenerationUnknown, ManifestError
from manifests.generation import GenerationManifest, parse_manifest
from manifests.record import ControlRecord, accept_manifest

if TYPE_CHECKING:
    from controller.node import NodeHome

_CONTENT_ID = re.compile(r"[0-9a-f]{64}")
# The text library's own, made wherever it opens a folder.
_LIBRARY_FILE = re.compile(r"\.tantivy-[a-z]+\.lock")


@dataclass(frozen=True, slots=True)
class MissingFile:
    """A file that a generation needs and that is not there, or not in its full length."""

    generation_id: str
    path: str
    reason: str


@dataclass(frozen=True, slots=True)
class Orphan:
    """A file that nothing needs; the next command that comes by there removes it."""

    path: str
    size_bytes: int
    reason: str


@dataclass(slots=True)
class NodeFsck:
    """What was found; paths are relative to the home."""

    generations: list[str] = field(default_factory=list)
    missing: list[MissingFile] = field(default_factory=list)
    orphans: list[Orphan] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)

    @property
    def orphan_bytes(self) -> int:
        """What the orphans occupy."""
        return sum(each.size_bytes for each in self.orphans)

    def refuse_missing(self, home: Path) -> None:
        """Refuse a home in which something is missing.

        Raises:
            ArtifactHashMismatch: something is.
        """
        if self.missing:
            first = self.missing[0]
            raise ArtifactHashMismatch(
                f"{len(self.missing)} files of {home} are missing or not of their size, first "
                f"{first.path} of {first.generation_id}; `genctl node repair {home}` fetches what "
                "the active generation lacks, `genctl node scrub` that of all",
                path=str(home / first.path),
                generation_id=first.generation_id,
                missing=len(self.missing),
            )


def check(node: NodeHome) -> NodeFsck:
    """Look at every file of a node's home.

    Raises:
        HomeLocked: another command is at work in the node.
        PointerCorrupt, TrustStateCorrupt: what should be there is not known; bootstrap the node.
        DiskError: the disk refuses.
    """
    with files.locked(node.home / "lock", "check"), files.translated(node.home):
        found = NodeFsck(generations=node.residence.resident_ids())
        record = node.record()
        active = node.pointer().active.generation_id
        if active not in found.generations:
            found.missing.append(MissingFile(active, f"generations/{active}", "it is not there"))
        needed: set[str] = set()
        for generation_id in found.generations:
            manifest = _manifest(node, generation_id, record, found)
            if manifest is not None:
                needed |= {artifact.blake3 for artifact in manifest.artifacts}
                _check_generation(node, manifest, found)
        _account_for(node.home, needed, found)
        return found


def _manifest(
    node: NodeHome, generation_id: str, record: ControlRecord, found: NodeFsck
) -> GenerationManifest | None:
    entry = next((e for e in record.published if e.generation_id == generation_id), None)
    try:
        data = node.residence.manifest_bytes(generation_id)
        if entry is None:
            return parse_manifest(data)
        return accept_manifest(data, entry, record.shard)
    except (GenerationUnknown, ManifestError) as error:
        path = f"generations/{generation_id}/{MANIFEST_FILE}"
        found.missing.append(MissingFile(generation_id, path, f"{error.name}: {error.message}"))
        return None


def _check_generation(node: NodeHome, manifest: GenerationManifest, found: NodeFsck) -> None:
    """Have noted what is missing of a generation, and what is in its folder besides."""
    generation_id = manifest.generation_id
    folder = node.residence.folder(generation_id)
    for artifact in manifest.artifacts:
        for path in (node.residence.artifact_path(artifact.blake3), folder / artifact.name):
            reason = _fault(path, artifact.size_bytes)
            if reason:
                where = str(path.relative_to(node.home))
                found.missing.append(MissingFile(generation_id, where, reason))
    names = {f"files/{artifact.name}" for artifact in manifest.artifacts} | {MANIFEST_FILE}
    for path in _files_below(folder.parent):
        name = str(path.relative_to(folder.parent))
        if name not in names and not _LIBRARY_FILE.fullmatch(path.name):
            _note(node.home, path, found)


def _fault(path: Path, size_bytes: int) -> str | None:
    """How a file is not what it should be; ``None`` if it is."""
    try:
        entry = path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return "it is not there"
    if not stat.S_ISREG(entry.st_mode):
        return "it is no plain file"
    if entry.st_size != size_bytes:
        return f"it has {entry.st_size} bytes, and should have {size_bytes}"
    return None


def _account_for(home: Path, needed: AbstractSet[str], found: NodeFsck) -> None:
    """Have noted what nothing needs, and what nobody here made."""
    for path in sorted(home.iterdir()):
        if path.name not in KNOWN_NAMES:
            for each in _files_below(path):
                _note(home, each, found)
    for path in _files_below(home / "generations"):
        if path.relative_to(home / "generations").parts[0] not in found.generations:
            _note(home, path, found)
    for kind, reason in (
        ("artifacts", "no generation names it"),
        ("tables", "no generation names its artifact"),
        ("incoming", "a fetch that was cut off left it, and may go on with it"),
    ):
        for path in _files_below(home / kind):
            if not _CONTENT_ID.fullmatch(path.name) or path.parent != home / kind:
                _note(home, path, found)
            elif kind == "incoming" or path.name not in needed:
                _orphan(home, path, reason, found)


def _note(home: Path, path: Path, found: NodeFsck) -> None:
    """Have noted a file of an unknown name: what a write that was cut off left, or somebody's."""
    parts = path.relative_to(home).parts
    if any(part.startswith(files.TEMPORARY_PREFIX) for part in parts):
        _orphan(home, path, "a write that was cut off left it", found)
    else:
        found.unknown.append(str(path.relative_to(home)))


def _orphan(home: Path, path: Path, reason: str, found: NodeFsck) -> None:
    found.orphans.append(Orphan(str(path.relative_to(home)), path.lstat().st_size, reason))


def _files_below(folder: Path) -> Iterator[Path]:
    """All that is no folder in ``folder``, or itself if it is none; links are not followed."""
    if folder.is_dir() and not folder.is_symlink():
        for path in sorted(folder.iterdir()):
            yield from _files_below(path)
    elif os.path.lexists(folder):
        yield folder
