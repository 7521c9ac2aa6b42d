"""A snapshot: one opened generation, from which queries are answered.

A query holds one snapshot from start to end, so it reads exactly one generation.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from typing import Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from index.fusion import reciprocal_rank_fusion
from index.heads import Head, HeadTable
from index.lexical import FOLDER, LexicalIndex, StoredDocument
from index.tombstones import read_tombstones
from index.vector_shard import VectorShard
from index.verification import VerifiedGeneration
from manifests.generation import HeadsArtifact, TombstonesArtifact, VectorArtifact
from manifests.invariants import OpenedCounts

Mode = Literal["hybrid", "lexical", "vector"]

FUSION_DEPTH = 100
"""How many hits of each half are fused, unless more are asked for."""


class Hit(msgspec.Struct, frozen=True):
    """One answer: BM25 (lexical), cosine similarity (vector) or the fused score (hybrid)."""

    id: str
    score: float
    title: str


class Snapshot:
    """A verified generation, opened read-only. Safe to use from several threads."""

    def __init__(self, verified: VerifiedGeneration) -> None:
        """Open it.

        Raises:
            ActivationFailed: a library refuses its files although they are the signed ones.
        """
        manifest, folder = verified.manifest, verified.folder
        self.manifest = manifest
        tombstones = read_tombstones(
            [folder / file.name for file in manifest.of_kind(TombstonesArtifact)]
        )
        self._tombstones = tombstones
        self._lexical = LexicalIndex(folder / FOLDER)
        # Names sort by first row, and together both kinds cover all rows.
        shards = manifest.of_kind(VectorArtifact)
        tables = manifest.of_kind(HeadsArtifact)
        self._shards = [VectorShard(folder / shard.name, shard, tombstones) for shard in shards]
        self._heads = [
            HeadTable(folder / table.name, table.first_row, table.rows) for table in tables
        ]
        self._shard_firsts = [shard.first_row for shard in shards]
        self._table_firsts = [table.first_row for table in tables]

    def search(
        self,
        *,
        text: str | None,
        vector: NDArray[np.float32] | None,
        mode: Mode,
        limit: int,
        syntax: bool = False,
    ) -> list[Hit]:
        """The ``limit`` best documents, best first; fewer when there are not so many.

        Args:
            text: the words to look for; needed for ``lexical`` and ``hybrid``.
            vector: shape ``(dimensions,)``; needed for ``vector`` and ``hybrid``.
            mode: which half answers, or both, fused by reciprocal rank.
            limit: 1 to 1,000.
            syntax: read ``text`` as tantivy's query language instead of plain words.

        Raises:
            BadQuery: ``syntax`` was asked for and the text does not parse.
        """
        scored: Iterator[tuple[int, float]]
        if mode == "lexical":
            scored = zip(*self._match(text, limit, syntax), strict=True)
        elif mode == "vector":
            scored = zip(*self._nearest(vector, limit), strict=True)
        else:
            depth = max(limit, FUSION_DEPTH)
            matched, _ = self._match(text, depth, syntax)
            nearest, _ = self._nearest(vector, depth)
            scored = iter(reciprocal_rank_fusion(matched, nearest, limit))
        find = self._heads[0].head if len(self._heads) == 1 else self.head
        return [Hit(head.id, score, head.title) for row, score in scored for head in (find(row),)]

    def document(self, identity: str) -> StoredDocument | None:
        """The document of this id as it was in this generation, or ``None``."""
        return self._lexical.document(identity)

    def rows_of(self, ids: list[str]) -> dict[str, int]:
        """The live rows of those of ``ids`` that this generation holds."""
        return {self.head(row).id: row for row in self._lexical.rows_of(ids)}

    def head(self, row: int) -> Head:
        """The id and title of a row."""
        return self._heads[bisect_right(self._table_firsts, row) - 1].head(row)

    def live_rows(self) -> list[int]:
        """Every live row, ascending."""
        rows = np.arange(self.manifest.counts.rows, dtype=np.uint64)
        live: list[int] = np.setdiff1d(rows, self._tombstones, assume_unique=True).tolist()
        return live

    def vector(self, row: int) -> NDArray[np.float32]:
        """The stored vector of a row, shape ``(dimensions,)``."""
        return self._shards[bisect_right(self._shard_firsts, row) - 1].vector(row)

    def opened_counts(self) -> OpenedCounts:
        """What the libraries say is in the files."""
        return OpenedCounts(
            lexical_documents=self._lexical.documents,
            live_vectors=sum(shard.live for shard in self._shards),
        )

    def _match(self, text: str | None, limit: int, syntax: bool) -> tuple[list[int], list[float]]:
        return self._lexical.search(text, limit, syntax=syntax) if text else ([], [])

    def _nearest(
        self, vector: NDArray[np.float32] | None, limit: int
    ) -> tuple[list[int], list[float]]:
        if vector is None or not self._shards:
            return [], []
        if len(self._shards) == 1:
            rows, distances = self._shards[0].nearest(vector, limit)
        else:
            found = [shard.nearest(vector, limit) for shard in self._shards]
            rows = np.concatenate([rows for rows, _ in found])
            distances = np.concatenate([distances for _, distances in found])
            best = np.argsort(distances, kind="stable")[:limit]
            rows, distances = rows[best], distances[best]
        return rows.tolist(), (1.0 - distances).tolist()
