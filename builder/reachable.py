"""What is reachable: from roots to artifacts, and from an artifact back to what keeps it (pure).

A root is a generation that somebody may still read or publish, or a merge that waits for the next
build. Whatever no root names may be collected.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from manifests.generation import ArtifactFile
from symbols.geometry import Geometry, from_manifest

_FIELDS = tuple(ArtifactFile.model_fields)


@dataclass(frozen=True, slots=True)
class Root:
    """Something that keeps artifacts.

    Attributes:
        name: a generation's id, or ``merge`` and the merge's.
        reasons: why it is kept, in words.
        artifacts: what it consists of.
        manifest_key: the key of its manifest in a store; a merge has none.
        is_stored: whether all of it must be in the stores, not only in the home.
    """

    name: str
    reasons: tuple[str, ...]
    artifacts: tuple[ArtifactFile, ...]
    manifest_key: str | None = None
    is_stored: bool = False


class ArtifactLists:
    """Reads the artifacts of one manifest after the other; those that are shared, once."""

    def __init__(self) -> None:
        self._known: dict[tuple[object, ...], ArtifactFile] = {}

    def read(self, manifest: bytes) -> tuple[ArtifactFile, ...]:
        """The artifacts of a manifest, without the fields that only one kind has.

        ``manifest`` was accepted before, by :func:`manifests.generation.parse_manifest`, and its
        bytes were just found to be the same: nothing but the artifacts is looked at, which takes a
        tenth of the time.
        """
        return tuple(map(self._known_or_new, json.loads(manifest)["artifacts"]))

    def _known_or_new(self, document: dict[str, object]) -> ArtifactFile:
        symbols = document["symbols"]
        assert isinstance(symbols, dict)  # noqa: S101 - the manifest was accepted
        identity = (document["blake3"], symbols["m"], symbols["k"], symbols["chunk_size_bytes"])
        if identity not in self._known:
            fields = {name: document[name] for name in _FIELDS}
            self._known[identity] = ArtifactFile.model_validate(fields)
        return self._known[identity]


class Reach:
    """All that some roots reach."""

    def __init__(self, roots: Sequence[Root]) -> None:
        self.roots = tuple(roots)
        self._keepers: dict[str, list[Root]] = {}
        self._manifests: dict[str, Root] = {}
        self._cuts: dict[str, set[Geometry]] = {}
        seen: set[int] = set()
        for root in roots:
            if root.manifest_key is not None:
                self._manifests[root.manifest_key] = root
            for artifact in root.artifacts:
                keepers = self._keepers.setdefault(artifact.blake3, [])
                if not keepers or keepers[-1] is not root:
                    keepers.append(root)
                if id(artifact) not in seen:  # lists share the artifacts that manifests share
                    seen.add(id(artifact))
                    cut = from_manifest(artifact.size_bytes, artifact.symbols)
                    self._cuts.setdefault(artifact.blake3, set()).add(cut)

    def __contains__(self, artifact_id: object) -> bool:
        return artifact_id in self._keepers

    def keepers(self, artifact_id: str) -> list[Root]:
        """The roots that name an artifact, in their order."""
        return self._keepers.get(artifact_id, [])

    def keeper_of_manifest(self, key: str) -> Root | None:
        """The root whose manifest is under this key."""
        return self._manifests.get(key)

    def symbol_sizes(self, artifact_id: str, number: int) -> set[int]:
        """The sizes in bytes that the object of a symbol may have; none if it is not reached.

        There is more than one only where an artifact was cut anew, for another number of stores.
        """
        return {
            cut.object_size_bytes(number)
            for cut in self._cuts.get(artifact_id, ())
            if number < cut.m
        }

    def stored_symbols(self) -> Iterator[tuple[str, int]]:
        """Of each artifact that must be in the stores, its id and how many symbols it has."""
        for artifact_id, keepers in self._keepers.items():
            if any(root.is_stored for root in keepers):
                yield artifact_id, max(cut.m for cut in self._cuts[artifact_id])

    def stored_manifests(self) -> Iterator[str]:
        """The keys of the manifests that must be in the stores."""
        return (key for key, root in self._manifests.items() if root.is_stored)
