"""Golden queries: a few questions with known answers, asked again by every node before a swap."""

from __future__ import annotations

from index.snapshot import Snapshot
from index.words import words
from manifests.generation import GoldenQuery
from manifests.invariants import GOLDEN_DEPTH
from manifests.vectors import vector_to_text

SAMPLED_DOCUMENTS = 3
WORDS_A_QUERY = 12


def golden_queries(snapshot: Snapshot) -> tuple[GoldenQuery, ...]:
    """Sample documents spread over the generation and record what finds them best.

    The expected answer is what the built files answer, not the sampled document: two documents may
    have the same text or the same vector. It is asked for exactly as a node's gate will ask.
    """
    rows = snapshot.live_rows()
    step = max(1, len(rows) // SAMPLED_DOCUMENTS)
    queries: list[GoldenQuery] = []
    for row in rows[step // 2 :: step][:SAMPLED_DOCUMENTS]:
        document = snapshot.document(snapshot.head(row).id)
        body = f"{document.title} {document.text}" if document else ""
        text = " ".join(words(body)[:WORDS_A_QUERY])
        vector = snapshot.vector(row)
        queries += [
            GoldenQuery(mode="lexical", text=text, vector=None, expected_id=hit.id)
            for hit in snapshot.search(text=text, vector=None, mode="lexical", limit=GOLDEN_DEPTH)[
                :1
            ]
        ]
        queries += [
            GoldenQuery(
                mode="vector",
                text=None,
                vector=vector_to_text(vector.tolist()),
                expected_id=hit.id,
            )
            for hit in snapshot.search(text=None, vector=vector, mode="vector", limit=GOLDEN_DEPTH)[
                :1
            ]
        ]
    return tuple(queries)
