"""How far two rankings of the same documents agree (pure).

Scores of two indexes are comparable only if they count the same way. BM25 counts documents that
were deleted but not yet merged away, so two indexes of the very same documents score differently;
here both are scored by :func:`bm25` under one set of statistics.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from index.contents import Occurrence, TermStatistics

SCORE_TOLERANCE = 1e-6
"""Scores nearer than this, relative to the larger of them and 1, are one and the same."""

K1 = 1.2
B = 0.75


@dataclass(frozen=True, slots=True)
class Agreement:
    """Of so many hits, counted from both sides, so many that the other side agrees with."""

    queries: int = 0
    hits: int = 0
    agreed: int = 0

    def __add__(self, other: Agreement) -> Agreement:
        return Agreement(
            self.queries + other.queries, self.hits + other.hits, self.agreed + other.agreed
        )

    @property
    def percent(self) -> float:
        """The share of hits that agree; 100 where there are none."""
        return 100.0 * self.agreed / self.hits if self.hits else 100.0


def agreement(one: Mapping[str, float], other: Mapping[str, float], limit: int) -> Agreement:
    """How far the ``limit`` best of two rankings, scores by document id, agree.

    A hit agrees if the other ranking has it, too, among its ``limit`` best. Equal scores have no
    order: it is enough to be as good as the last of them. The rankings must therefore hold scores
    of each other's best, not only of their own.
    """
    found = Agreement(queries=1)
    for mine, theirs in ((one, other), (other, one)):
        best = sorted(mine, key=lambda identity: (-mine[identity], identity))[:limit]
        least = _least(theirs, limit)
        agreed = sum(theirs[identity] >= least for identity in best if identity in theirs)
        found += Agreement(hits=len(best), agreed=agreed)
    return found


def overlap(one: Sequence[str], other: Sequence[str]) -> Agreement:
    """How many document ids two lists of hits have in common."""
    common = len(set(one) & set(other))
    return Agreement(queries=1, hits=len(one) + len(other), agreed=2 * common)


def _least(scores: Mapping[str, float], limit: int) -> float:
    """The score of the last of the ``limit`` best, less the tolerance."""
    last = min(sorted(scores.values(), reverse=True)[:limit], default=0.0)
    return last - SCORE_TOLERANCE * max(1.0, abs(last))


def bm25(occurrences: Mapping[str, Occurrence], statistics: Mapping[str, TermStatistics]) -> float:
    """The BM25 score (Robertson et al., TREC-3) of a document, as tantivy computes it.

    Args:
        occurrences: by term, how often it is in the document and how long that is.
        statistics: of each of those terms.
    """
    score = 0.0
    for term, (frequency, length) in occurrences.items():
        known = statistics[term]
        rarity = math.log(
            1
            + (known.documents - known.documents_with_term + 0.5)
            / (known.documents_with_term + 0.5)
        )
        norm = K1 * (1 - B + B * length / known.average_length)
        score += rarity * (1 + K1) * frequency / (frequency + norm)
    return score
