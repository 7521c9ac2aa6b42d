"""Reciprocal rank fusion (Cormack, Clarke, Buettcher: SIGIR 2009), k = 60."""

from __future__ import annotations

from collections.abc import Sequence

RRF_K = 60
_WEIGHTS = tuple(1.0 / (RRF_K + rank) for rank in range(1, 1001))


def reciprocal_rank_fusion(
    first: Sequence[int], second: Sequence[int], limit: int
) -> list[tuple[int, float]]:
    """Fuse two rankings of rows (best first, each row at most once per ranking).

    A row's score is the sum over the rankings of ``1 / (60 + rank)``, ranks counted from 1. Returns
    the ``limit`` best as ``(row, score)``, best first; equal scores are ordered by row, so the
    result never depends on anything but the rankings. Each ranking has at most 1,000 entries.
    """
    scores = dict(zip(first, _WEIGHTS, strict=False))
    for row, weight in zip(second, _WEIGHTS, strict=False):
        scores[row] = scores[row] + weight if row in scores else weight
    if len(scores) > limit:
        # Sorting bare floats is several times faster than sorting with a key; only the rows that
        # can be among the best are then put in order.
        least = sorted(scores.values(), reverse=True)[limit - 1]
        scores = {row: score for row, score in scores.items() if score >= least}
    return sorted(scores.items(), key=_best_first)[:limit]


def _best_first(scored: tuple[int, float]) -> tuple[float, int]:
    return -scored[1], scored[0]
