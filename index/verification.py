"""The verifier: the only maker of a :class:`VerifiedGeneration`.

A native library must never open a byte that was not checked against a signed record. Opening and
swapping therefore take a ``VerifiedGeneration`` and nothing else, and one comes only from
:func:`verify_generation`, which has read every file of it. The same function serves after a
download and after a restart.
"""

from __future__ import annotations

import stat
from pathlib import Path
from typing import final

from blake3 import blake3

from durable import files
from durable.files import translated
from manifests.errors import ArtifactHashMismatch, DiskError
from manifests.generation import ArtifactFile, GenerationManifest
from manifests.invariants import check_complete

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


def verify_generation(manifest: GenerationManifest, folder: Path) -> VerifiedGeneration:
    """Read every artifact of ``manifest`` in ``folder`` and check it.

    Raises:
        ArtifactHashMismatch: a file is missing, is not a plain file, or is not the one signed.
        ManifestIncomplete: the artifact list does not explain the counts.
        DiskError: a file cannot be read.
    """
    check_complete(manifest)
    for artifact in manifest.artifacts:
        check_artifact(folder / artifact.name, artifact)
    return VerifiedGeneration(_MAKER, manifest, folder)


def move_verified(verified: VerifiedGeneration, source: Path, target: Path) -> VerifiedGeneration:
    """Rename ``source``, which holds the verified folder, to ``target``; the bytes stay verified.

    Raises:
        DiskError: it cannot be renamed.
    """
    place = verified.folder.relative_to(source)
    files.move(source, target)
    return VerifiedGeneration(_MAKER, verified.manifest, target / place)


def check_artifact(path: Path, artifact: ArtifactFile) -> None:
    """Refuse ``path`` unless it is a plain file of exactly the artifact's bytes.

    Raises:
        ArtifactHashMismatch: it is not; the facts tell what was found.
        DiskError: it cannot be read.
    """
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
    digest = file_id(path)
    if digest != artifact.blake3:
        raise ArtifactHashMismatch(
            f"{artifact.name} hashes to {digest}, the manifest says {artifact.blake3} ({path})",
            **facts,
        )


def file_id(path: Path) -> str:
    """The BLAKE3 hex of a file, read through a memory map.

    Raises:
        DiskError: it cannot be read.
    """
    with translated(path):
        return blake3(max_threads=blake3.AUTO).update_mmap(path).hexdigest()
