"""An artifact's chunks as they were signed: what decides whether bytes count."""

from __future__ import annotations

import threading
from collections.abc import Callable

from manifests.errors import GenctlError
from manifests.generation import ArtifactFile
from manifests.identifiers import content_id
from symbols.geometry import from_manifest
from symbols.table import check_chunk


class SignedChunks:
    """One artifact on its way here. Safe to use from several threads.

    An artifact that is a single chunk needs no table: the chunk's hash is the artifact's id. Its
    table is only asked for when the chunk must be rebuilt.

    Raises:
        ManifestMalformed: the manifest describes impossible symbols.
    """

    def __init__(self, artifact: ArtifactFile, find_table: Callable[[SignedChunks], bytes]) -> None:
        self.artifact = artifact
        self.geometry = from_manifest(artifact.size_bytes, artifact.symbols)
        self.unavailable: GenctlError | None = None
        """Why a source could not be asked, if one could not: then nothing is known to be lost."""
        self._find_table = find_table
        self._table: bytes | None = None
        self._lock = threading.Lock()

    @property
    def artifact_id(self) -> str:
        """What the artifact is called wherever it is kept."""
        return self.artifact.blake3

    @property
    def is_single(self) -> bool:
        """Whether the artifact is one chunk."""
        return self.geometry.k == 1 and self.geometry.column_count == 1

    @property
    def table(self) -> bytes:
        """The table that the manifest pins, found when it is first needed."""
        with self._lock:
            if self._table is None:
                self._table = self._find_table(self)
            return self._table

    def good(self, number: int, chunk: int, data: memoryview) -> bool:
        """Whether ``data`` is this chunk, to the last byte."""
        if self.is_single and number == 0:
            return content_id(data) == self.artifact.blake3
        return check_chunk(self.geometry, self.table, number, chunk, data)
