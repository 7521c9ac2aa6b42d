"""New artifacts: flushed, named by content, encoded, then taken into the home."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from durable import files
from index.verification import file_id
from manifests.generation import Artifact, SymbolSet

Encode = Callable[[Path, str], SymbolSet]
"""Makes the repair symbols of an artifact, given its file and its id."""

Described = Callable[[Path, str], dict[str, Any]]
"""What every artifact has, given its folder and its name; see :func:`describe`."""


@dataclass(frozen=True, slots=True)
class NewArtifact:
    """An artifact and the file that holds it until it is taken in."""

    path: Path
    artifact: Artifact


def describe(folder: Path, name: str, encode: Encode) -> dict[str, Any]:
    """Flush and encode the file ``name`` of ``folder``; the fields that every artifact has.

    Raises:
        DiskFull, DiskError: the disk refuses.
    """
    path = folder / name
    files.fsync_file(path)
    artifact_id = file_id(path)
    return {
        "name": name,
        "size_bytes": path.stat().st_size,
        "blake3": artifact_id,
        "symbols": encode(path, artifact_id),
    }
