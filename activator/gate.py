"""The gate: what a verified generation must prove before the pointer moves to it.

Every check always runs; no manifest and no setting switches one off. Files were verified by the
time a ``VerifiedGeneration`` exists; here the generation is opened and asked.
"""

from __future__ import annotations

import numpy as np

from index.embedding import Embedder, embedder_like, embedder_record
from index.snapshot import Snapshot
from index.verification import VerifiedGeneration
from manifests.embedder_override import is_overridden
from manifests.errors import ActivationFailed
from manifests.generation import GenerationManifest, GoldenQuery
from manifests.invariants import (
    GOLDEN_DEPTH,
    check_counts,
    check_embedder,
    check_lineage,
)
from manifests.record import ControlRecord, GenerationEntry
from manifests.vectors import vector_from_text


def choose_embedder(
    manifest: GenerationManifest, record: ControlRecord, bound: Embedder | None
) -> Embedder:
    """What a node is to embed queries of this generation with; the gate then compares the two.

    That is what it is ``bound`` to. A node that is not bound yet, and any node where the signed
    record has an override for this generation, takes the generation's embedder, which it makes
    itself.

    Raises:
        EmbedderMismatch: it cannot make that one.
    """
    if bound is None or is_overridden(record, manifest):
        return embedder_like(manifest.embedder)
    return bound


def pass_gate(
    verified: VerifiedGeneration,
    record: ControlRecord,
    entry: GenerationEntry,
    embedder: Embedder,
) -> Snapshot:
    """Check every activation invariant and give the opened, warmed snapshot.

    Raises:
        GenerationRevoked: the record says that nobody is to read it.
        CommitRangeGap: the record's commit ranges are not continuous up to this generation.
        EmbedderMismatch: the node would embed queries with something else.
        ActivationFailed: it does not open, does not hold what it should, or does not find what its
            golden queries are to find.
    """
    record.refuse_revoked(entry.generation_id)
    check_lineage(record, entry)
    check_embedder(verified.manifest, embedder_record(embedder))
    snapshot = Snapshot(verified)
    check_counts(verified.manifest, snapshot.opened_counts())
    for query in verified.manifest.activation.golden_queries:
        _ask(snapshot, query)
    return snapshot


def _ask(snapshot: Snapshot, query: GoldenQuery) -> None:
    vector = np.array(vector_from_text(query.vector), np.float32) if query.vector else None
    hits = snapshot.search(text=query.text, vector=vector, mode=query.mode, limit=GOLDEN_DEPTH)
    if query.expected_id not in {hit.id for hit in hits}:
        raise ActivationFailed(
            f"{snapshot.manifest.generation_id}: a golden {query.mode} query does not find "
            f"{query.expected_id!r} among its first {GOLDEN_DEPTH} hits",
            generation_id=snapshot.manifest.generation_id,
            expected_id=query.expected_id,
        )
