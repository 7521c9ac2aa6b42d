"""A snapshot: one opened generation, from which queries are answered.

A query holds one snapshot from start to end, so it reads exactly one generation.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from index.fusion import reciprocal_rank_fusion
from index.heads import Head, HeadTable
from index.lexical import FOLDER, LexicalIndex, StoredDocument
from index.tombstones import are_dead, read_tombstones
from index.vector_shard import EXPANSION, VectorShard
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
        self.folder = folder
        tombstones = read_tombstones(
            [folder / file.name for file in manifest.of_kind(TombstonesArtifact)]
        )
        self._tombstones = tombstones
        self._lexical = LexicalIndex(folder / FOLDER)
        # Each holds rows from its first one up to the next one's.
        shards = sorted(manifest.of_kind(VectorArtifact), key=lambda shard: shard.first_row)
        tables = sorted(manifest.of_kind(HeadsArtifact), key=lambda table: table.first_row)
        self._shard_firsts = [shard.first_row for shard in shards]
        self._table_firsts = [table.first_row for table in tables]
        dead = _split(tombstones, self._shard_firsts)
        vectors = sum(shard.vectors for shard in shards)
        self._shards = [
            VectorShard(folder / shard.name, shard, dead_rows, _expansion(shard.vectors / vectors))
            for shard, dead_rows in zip(shards, dead, strict=False)
        ]
        self._heads = [
            HeadTable(folder / table.name, table.first_row, table.rows) for table in tables
        ]

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

    @property
    def tombstones(self) -> NDArray[np.uint64]:
        """Every dead row that the generation still holds, ascending."""
        return self._tombstones

    def live_rows(self, first_row: int = 0, end_row: int | None = None) -> list[int]:
        """The live rows from ``first_row`` up to ``end_row``, ascending; by default all of them."""
        end = self.manifest.counts.rows if end_row is None else end_row
        live: list[int] = []
        for table in self._heads[max(0, bisect_right(self._table_firsts, first_row) - 1) :]:
            if table.first_row >= end:
                break
            rows = table.rows
            rows = _split(rows, [0, first_row, end])[1]
            if len(self._tombstones):
                rows = rows[~are_dead(self._tombstones, rows)]
            live += rows.tolist()
        return live

    def vector(self, row: int) -> NDArray[np.float32]:
        """The stored vector of a row, shape ``(dimensions,)``."""
        return self._shards[bisect_right(self._shard_firsts, row) - 1].vector(row)

    def vectors(self, rows: Sequence[int]) -> NDArray[Any]:
        """The stored vectors of ascending ``rows``, at least one; see :meth:`VectorShard.vectors`.

        Shape ``(rows, dimensions)``.
        """
        parts = _split(np.array(rows, dtype=np.uint64), self._shard_firsts)
        return np.concatenate(
            [
                shard.vectors(part)
                for shard, part in zip(self._shards, parts, strict=True)
                if len(part)
            ]
        )

    def head_records(self, rows: Sequence[int]) -> list[msgspec.Raw]:
        """The records of ascending ``rows`` as their head tables hold them."""
        ends = [bisect_left(rows, first) for first in self._table_firsts[1:]] + [len(rows)]
        records: list[msgspec.Raw] = []
        for table, end in zip(self._heads, ends, strict=True):
            records += table.records(rows[len(records) : end])
        return records

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


def _expansion(share: float) -> int:
    """How broadly to search a shard with this share of all vectors.

    A first build makes two shards of half of the vectors each, and what both find together is more
    than what one shard of all of them finds (ADR 0010). After a merge it must not be less.
    """
    return round(EXPANSION * max(1.0, 2 * share))


def _split(rows: NDArray[np.uint64], firsts: Sequence[int]) -> list[NDArray[np.uint64]]:
    """Cut ascending ``rows`` before each of ``firsts`` but the first one."""
    return np.split(rows, np.searchsorted(rows, np.array(firsts[1:], dtype=np.uint64)))
