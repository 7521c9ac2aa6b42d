"""Which artifact names are safe to write, and where every object lives in a store.

A name is checked before anything is written or fetched under it: manifests come over the wire, and
a name decides which file of this machine is touched.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from manifests.errors import UnsafeArtifactName

_SEGMENT = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,199}")
_SYMBOL = re.compile(r"symbols/[0-9a-f]{2}/([0-9a-f]{64})/([0-9]{2,3})")
# Names that Windows and some network file systems give a meaning of their own.
_RESERVED = {"con", "prn", "aux", "nul"} | {f"{p}{n}" for p in ("com", "lpt") for n in range(1, 10)}
MAX_NAME_LENGTH = 400


def check_artifact_names(names: Iterable[str]) -> None:
    """Refuse names that could leave the generation's folder or clash with one another.

    A name is one or two path segments of letters, digits, ``_``, ``.`` and ``-``, not starting
    with a dot or a hyphen; no two names may be equal when case is ignored, and none may be a
    folder of another.

    Raises:
        UnsafeArtifactName: naming the offender and the rule it breaks.
    """
    taken: dict[str, str] = {}
    folders: set[str] = set()
    for name in names:
        segments = name.split("/")
        if len(name) > MAX_NAME_LENGTH or not 1 <= len(segments) <= 2:
            raise UnsafeArtifactName(
                f"artifact name {name[:80]!r} is not one or two path segments", artifact=name
            )
        for segment in segments:
            if not _SEGMENT.fullmatch(segment):
                raise UnsafeArtifactName(
                    f"artifact name {name!r} has the unsafe segment {segment!r}", artifact=name
                )
            if segment.split(".")[0].lower() in _RESERVED:
                raise UnsafeArtifactName(
                    f"artifact name {name!r} uses the reserved word {segment!r}", artifact=name
                )
        folded = name.lower()
        if folded in taken:
            raise UnsafeArtifactName(
                f"artifact names {taken[folded]!r} and {name!r} differ only in case", artifact=name
            )
        taken[folded] = name
        if len(segments) == 2:
            folders.add(segments[0].lower())
    for folder in folders & set(taken):
        raise UnsafeArtifactName(
            f"{taken[folder]!r} is both an artifact and a folder of others", artifact=taken[folder]
        )


def symbol_key(artifact_id: str, number: int) -> str:
    """The store key of symbol ``number`` of an artifact: the same bytes always, anywhere."""
    return f"symbols/{artifact_id[:2]}/{artifact_id}/{number:02d}"


def symbol_of(key: str) -> tuple[str, int] | None:
    """The artifact and the number of which ``key`` is the :func:`symbol_key`, if it is one."""
    found = _SYMBOL.fullmatch(key)
    if found is None:
        return None
    artifact_id, number = found[1], int(found[2])
    return (artifact_id, number) if symbol_key(artifact_id, number) == key else None


def artifact_key(artifact_id: str) -> str:
    """The key under which a peer serves an artifact, whole."""
    return f"artifacts/{artifact_id}"


def table_key(artifact_id: str) -> str:
    """The key under which a peer serves the table of an artifact's chunk hashes."""
    return f"tables/{artifact_id}"


def manifest_target(generation_id: str) -> str:
    """The TUF target path of a generation's manifest."""
    return f"manifests/{generation_id}.json"


CONTROL_TARGET = "control.json"
"""The TUF target whose ``custom`` carries the control record."""


def metadata_key(file_name: str) -> str:
    """The store key of a TUF metadata file (``1.root.json``, ``timestamp.json`` …)."""
    return f"metadata/{file_name}"


def target_key(target_path: str, sha256: str) -> str:
    """The store key of a TUF target under consistent snapshots: the hash before the base name."""
    folder, slash, base = target_path.rpartition("/")
    return f"targets/{folder}{slash}{sha256}.{base}"
