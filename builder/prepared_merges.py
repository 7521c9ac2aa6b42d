"""Merges that are done but not part of any generation yet.

``HOME/merges/<id>.json`` names the artifacts that a merge made, which are in the home like any
others, and those whose place they take; ``<id>`` is the BLAKE3 of its bytes. The next build puts
them in place if all that they replace is still there, and removes the file either way.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from durable import files
from index.residence import Residence
from manifests.canonical import Frozen, parse_document, to_canonical
from manifests.errors import GenctlError
from manifests.generation import Artifact, ArtifactFile, Count, GenerationManifest, Positive
from manifests.identifiers import Blake3Hex, content_id

FOLDER = "merges"
SCHEMA_VERSION = 1
_NAME = re.compile(r"[0-9a-f]{64}\.json")


class Replaced(Frozen):
    """An artifact of a generation. Two may have the same bytes, but not the same name."""

    name: str
    blake3: Blake3Hex


class RowRange(Frozen):
    """The rows from ``first_row`` up to ``end_row``."""

    first_row: Count
    end_row: Positive


class TextSegment(Frozen):
    """A segment without deletes, as ``meta.json`` names it."""

    segment_id: str
    max_doc: Positive


class PreparedMerge(Frozen):
    """What a merge made, and of what: of a range of rows, or of text segments."""

    schema_version: Literal[1] = 1
    replaced: tuple[Replaced, ...]
    artifacts: tuple[Artifact, ...]
    rows: RowRange | None
    segments: tuple[TextSegment, ...]

    @classmethod
    def of(
        cls,
        replaced: Sequence[ArtifactFile],
        artifacts: Sequence[Artifact],
        rows: RowRange | None,
        segments: Sequence[TextSegment],
    ) -> PreparedMerge:
        """What a merge of all ``replaced`` artifacts made; their deletes may change meanwhile."""
        return cls(
            replaced=tuple(
                Replaced(name=artifact.name, blake3=artifact.blake3)
                for artifact in replaced
                if not artifact.name.endswith(".del")
            ),
            artifacts=tuple(artifacts),
            rows=rows,
            segments=tuple(segments),
        )

    @property
    def id(self) -> str:
        """The BLAKE3 of its bytes."""
        return content_id(to_canonical(self))

    def fits(self, manifest: GenerationManifest) -> bool:
        """Whether a generation has all that it replaces."""
        there = {(artifact.name, artifact.blake3) for artifact in manifest.artifacts}
        return all((each.name, each.blake3) in there for each in self.replaced)


class PreparedMerges:
    """The merges that wait in one home. Who changes them holds the home's lock."""

    def __init__(self, home: Path, residence: Residence) -> None:
        self._folder = home / FOLDER
        self._residence = residence

    def all(self) -> list[PreparedMerge]:
        """Those that can be used; the rest is as if it were not there.

        One is left out if its bytes are not those that its name says, or if a newer genctl wrote
        it, or if one of its artifacts is gone: it can be done again.
        """
        return [
            merge
            for path in self._paths()
            if (merge := _read(path)) is not None
            and all(map(self._residence.has_its_size, merge.artifacts))
        ]

    def add(self, merge: PreparedMerge) -> None:
        """Remember a merge whose artifacts were taken in.

        Raises:
            DiskFull, DiskError: the disk refuses.
        """
        files.make_folder(self._folder)
        files.remove_temporaries(self._folder)
        files.replace_file(self._folder / f"{merge.id}.json", [to_canonical(merge)])

    def clear(self) -> None:
        """Forget them all: a build has put them in place, or has found that they do not fit.

        Raises:
            DiskError: the disk refuses.
        """
        files.remove_temporaries(self._folder)
        for path in self._paths():
            files.remove_file(path)

    def _paths(self) -> list[Path]:
        if not self._folder.is_dir():
            return []
        return sorted(path for path in self._folder.iterdir() if _NAME.fullmatch(path.name))


def _read(path: Path) -> PreparedMerge | None:
    try:
        with files.translated(path):
            data = files.read_file(path)
        if path.stem == content_id(data):
            return parse_document(data, PreparedMerge, SCHEMA_VERSION)
    except GenctlError:
        pass
    return None
