"""The verifier: the only maker of a :class:`VerifiedGeneration`.

A native library must never open a byte that was not checked against a signed record. Opening and
swapping therefore take a ``VerifiedGeneration`` and nothing else, and one comes only from
:func:`verify_generation`, which has read every file of it, or seen its bytes on their way to the
disk. The same function serves after a download and after a restart.
"""

from __future__ import annotations

import mmap
import os
import stat
from pathlib import Path
from typing import NamedTuple, final

from blake3 import blake3

from durable import files
from durable.files import translated
from manifests.errors import ArtifactHashMismatch, DiskError
from manifests.generation import ArtifactFile, GenerationManifest
from manifests.invariants import check_complete

WINDOW_SIZE_BYTES = 64 << 20
"""How much of a file is mapped at a time to hash it, and so the memory that hashing takes."""

_MAKER = object()


@final
class VerifiedGeneration:
    """A manifest and a folder whose files were all just found to be what the manifest says."""

    __slots__ = ("_folder", "_manifest")

    def __init__(self, maker: object, manifest: GenerationManifest, folder: Path) -> None:
        if maker is not _MAKER:
            raise TypeError("only verify_generation makes a VerifiedGeneration")
        self._manifest = manifest
        self._folder = folder

    @property
    def manifest(self) -> GenerationManifest:
        """What was verified."""
        return self._manifest

    @property
    def folder(self) -> Path:
        """Where its files are, under their names."""
        return self._folder


class _File(NamedTuple):
    """What tells one state of one file from any other; a rename or a link changes none of it."""

    device: int
    inode: int
    size_bytes: int
    modified_ns: int


class ReadFiles:
    """The files that one operation has read and found to be what they should, so far.

    Handed from step to step, it keeps a file from being read again while it gets its names. It
    lives no longer than the operation: a disk may rot under a file that nobody writes.
    """

    def __init__(self) -> None:
        self._digests: dict[_File, str] = {}

    def knows(self, found: _File, digest: str) -> bool:
        """Whether this very file was found to have ``digest``."""
        return self._digests.get(found) == digest

    def remember(self, found: _File, digest: str) -> None:
        """Note what this file was found to have."""
        self._digests[found] = digest


def verify_generation(
    manifest: GenerationManifest, folder: Path, seen: ReadFiles | None = None
) -> VerifiedGeneration:
    """Read every artifact of ``manifest`` in ``folder`` that was not ``seen``, and check it.

    Raises:
        ArtifactHashMismatch: a file is missing, is not a plain file, or is not the one signed.
        ManifestIncomplete: the artifact list does not explain the counts.
        DiskError: a file cannot be read.
    """
    check_complete(manifest)
    for artifact in manifest.artifacts:
        check_artifact(folder / artifact.name, artifact, seen)
    return VerifiedGeneration(_MAKER, manifest, folder)


def move_verified(verified: VerifiedGeneration, source: Path, target: Path) -> VerifiedGeneration:
    """Rename ``source``, which holds the verified folder, to ``target``; the bytes stay verified.

    Raises:
        DiskError: it cannot be renamed.
    """
    place = verified.folder.relative_to(source)
    files.move(source, target)
    return VerifiedGeneration(_MAKER, verified.manifest, target / place)


def check_artifact(path: Path, artifact: ArtifactFile, seen: ReadFiles | None = None) -> None:
    """Refuse ``path`` unless it is a plain file of exactly the artifact's bytes.

    Raises:
        ArtifactHashMismatch: it is not; the facts tell what was found.
        DiskError: it cannot be read.
    """
    found = _look_at(path, artifact)
    if seen is None or not seen.knows(found, artifact.blake3):
        _accept(path, artifact, seen, file_id(path))


class StreamedArtifact:
    """An artifact's bytes on their way to the disk, hashed in the order of their offsets."""

    def __init__(self, artifact: ArtifactFile) -> None:
        self._artifact = artifact
        self._hasher = blake3()
        self._size_bytes = 0

    def update(self, offset_bytes: int, data: memoryview) -> None:
        """Take bytes; those that do not follow the ones before make the hash useless."""
        if offset_bytes == self._size_bytes:
            self._hasher.update(data)
            self._size_bytes += len(data)

    def confirm(self, path: Path, seen: ReadFiles) -> None:
        """Accept the file that the bytes were written to, which nobody writes any more.

        If not all of them went by here in order, the file is read.

        Raises:
            ArtifactHashMismatch: it is not the artifact.
            DiskError: it cannot be read.
        """
        whole = self._size_bytes == self._artifact.size_bytes
        digest = self._hasher.hexdigest() if whole else file_id(path)
        _accept(path, self._artifact, seen, digest)


def file_id(path: Path) -> str:
    """The BLAKE3 hex of a file, read through a memory map, one window after the other.

    Raises:
        DiskError: it cannot be read.
    """
    with translated(path), files.opened_file(path) as stream:
        size_bytes = os.fstat(stream.fileno()).st_size
        # For less, waking a pool of threads costs more than it gives.
        hasher = blake3(max_threads=blake3.AUTO if size_bytes > WINDOW_SIZE_BYTES else 1)
        for offset in range(0, size_bytes, WINDOW_SIZE_BYTES):
            length = min(WINDOW_SIZE_BYTES, size_bytes - offset)
            with mmap.mmap(stream.fileno(), length, prot=mmap.PROT_READ, offset=offset) as window:
                hasher.update(window)
    return hasher.hexdigest()


def _look_at(path: Path, artifact: ArtifactFile) -> _File:
    facts: dict[str, object] = {"artifact": artifact.name, "path": str(path)}
    try:
        with translated(path):
            found = path.lstat()
    except DiskError as error:
        if not isinstance(error.__cause__, FileNotFoundError):
            raise
        raise ArtifactHashMismatch(f"{artifact.name} is missing ({path})", **facts) from error
    if not stat.S_ISREG(found.st_mode) or found.st_size != artifact.size_bytes:
        raise ArtifactHashMismatch(
            f"{artifact.name} is not a file of {artifact.size_bytes} bytes ({path})", **facts
        )
    return _File(found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)


def _accept(path: Path, artifact: ArtifactFile, seen: ReadFiles | None, digest: str) -> None:
    found = _look_at(path, artifact)
    if digest != artifact.blake3:
        raise ArtifactHashMismatch(
            f"{artifact.name} hashes to {digest}, the manifest says {artifact.blake3} ({path})",
            artifact=artifact.name,
            path=str(path),
        )
    if seen is not None:
        seen.remember(found, digest)
