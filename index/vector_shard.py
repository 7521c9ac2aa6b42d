"""Vector shards: usearch HNSW indexes, written once by a build, then only viewed.

Keys are rows. Deleted rows stay inside a shard, so a search asks for more than it needs and drops
the dead; it asks again for more until it has enough or the shard is exhausted.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from usearch.index import Index

from durable import files
from index.tombstones import are_dead
from manifests.errors import ActivationFailed
from manifests.generation import Quantization, VectorArtifact

EXACT_VECTORS = 2_000
BATCH_VECTORS = 10_000
"""usearch gives many vectors as so many arrays, which take more memory than the vectors."""

EXPANSION = 64
"""How many candidates a search through a graph keeps; usearch's default."""


def write_shard(
    path: Path, rows: NDArray[np.uint64], vectors: NDArray[Any], quantization: Quantization
) -> None:
    """Build an HNSW index over ``vectors`` (shape ``(n, D)``), keyed by ``rows`` (shape ``(n,)``).

    The vectors are float32, or as :meth:`VectorShard.vectors` gave them, and then stay as they are.
    Connectivity 16 and expansion 128/64 are usearch's defaults. One thread adds the vectors in
    order, so the same vectors give the same file, anywhere (ADR 0010).

    Raises:
        DiskError: the file cannot be written.
    """
    shard = Index(ndim=vectors.shape[1], metric="cos", dtype=quantization)
    shard.add(rows, vectors, threads=1)
    try:
        shard.save(str(path))
    except (RuntimeError, OSError) as error:
        raise files.write_failure(path.parent, f"usearch: {error}") from error


class VectorShard:
    """A verified shard, opened as a read-only view of its file."""

    def __init__(
        self,
        path: Path,
        artifact: VectorArtifact,
        tombstones: NDArray[np.uint64],
        expansion: int = EXPANSION,
    ) -> None:
        """View the file.

        Args:
            path: the file.
            artifact: what it is.
            tombstones: the dead among its rows, ascending.
            expansion: how many candidates a search through the graph keeps.

        Raises:
            ActivationFailed: it is not the index that the manifest describes.
        """
        try:
            shard = Index.restore(str(path), view=True)
        except RuntimeError as error:
            raise ActivationFailed(f"usearch refuses {artifact.name}: {error}") from error
        if shard is None or (len(shard), shard.ndim) != (artifact.vectors, artifact.dimensions):
            raise ActivationFailed(
                f"{artifact.name} is not a shard of {artifact.vectors} vectors of "
                f"{artifact.dimensions} dimensions",
                artifact=artifact.name,
            )
        self._index: Any = shard
        shard.expansion_search = expansion  # type: ignore[misc]
        self._size = artifact.vectors
        self._tombstones = tombstones

    @property
    def live(self) -> int:
        """How many of the shard's vectors are not tombstoned."""
        return self._size - len(self._tombstones)

    def nearest(
        self, vector: NDArray[np.float32], limit: int
    ) -> tuple[NDArray[np.uint64], NDArray[np.float32]]:
        """The up to ``limit`` live rows nearest to ``vector`` (shape ``(D,)``).

        Returns rows and cosine distances, nearest first, both of shape ``(hits,)``.
        """
        dead = len(self._tombstones)
        if not dead:
            matches = self._search(vector, min(limit, self._size))
            return matches.keys, matches.distances
        wanted = min(limit, self.live)
        # The dead are taken to be spread evenly; where they are not, the loop asks for more.
        asked = wanted + 1 + wanted * dead // max(self.live, 1)
        while True:
            asked = min(asked, self._size)
            matches = self._search(vector, asked)
            alive = ~are_dead(self._tombstones, matches.keys)
            if asked == self._size or int(alive.sum()) >= wanted:
                return matches.keys[alive][:limit], matches.distances[alive][:limit]
            asked *= 2

    def _search(self, vector: NDArray[np.float32], count: int) -> Any:
        """The ``count`` nearest, dead or alive; fewer are never taken for an answer.

        Small shards are scanned: up to ``EXACT_VECTORS`` that takes no longer than the graph. Many
        equal vectors can cut a graph into parts; where one comes up short, the shard is scanned.
        """
        if self._size <= EXACT_VECTORS:
            return self._index.search(vector, count, exact=True)
        matches = self._index.search(vector, count)
        return (
            matches if len(matches.keys) == count else self._index.search(vector, count, exact=True)
        )

    def vector(self, row: int) -> NDArray[np.float32]:
        """The stored vector of ``row`` (as precise as the quantization kept it), shape ``(D,)``."""
        found: NDArray[np.float32] = self._index.get(row)
        return found

    def vectors(self, rows: NDArray[np.uint64]) -> NDArray[Any]:
        """The stored vectors of ``rows``, as they are kept, shape ``(rows, D)``; at least one.

        Of type float32 for ``bf16``, which is a shorter form of it, else of the quantization's own.
        """
        batches = [
            np.stack(self._index.get(rows[start : start + BATCH_VECTORS]))
            for start in range(0, len(rows), BATCH_VECTORS)
        ]
        return np.concatenate(batches) if len(batches) > 1 else batches[0]
