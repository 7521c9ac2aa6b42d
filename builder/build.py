"""Build one generation: the parent's artifacts, new ones for the new commits, and a manifest.

A build is a function of the parent generation and the commits after it. It works in a draft folder
that is thrown away when the command is run again, and ends with one rename that makes the
generation resident; until then there is nothing to see of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from builder.changes import BuildPlan
from builder.draft import Draft, Encode
from builder.golden import golden_queries
from commits.documents import Upsert
from index import lexical
from index.embedding import Embedder, embedder_record
from index.heads import Head
from index.residence import Residence
from index.snapshot import Snapshot
from index.verification import verify_generation
from manifests.canonical import to_canonical
from manifests.generation import (
    INVARIANTS,
    Activation,
    CommitRange,
    Counts,
    GenerationBody,
    GenerationManifest,
    LexicalArtifact,
    Quantization,
    seal,
)
from manifests.invariants import check_counts


@dataclass(frozen=True, slots=True)
class BuildReport:
    """What a build made, and what it could keep."""

    manifest: GenerationManifest
    new_bytes: int
    reused_bytes: int


@dataclass(frozen=True, slots=True)
class BuildSettings:
    """What stays the same from build to build."""

    shard: str
    quantization: Quantization
    embedder: Embedder
    encode: Encode


def build_generation(
    plan: BuildPlan,
    parent: Snapshot | None,
    residence: Residence,
    draft_folder: Path,
    settings: BuildSettings,
    built_at: str,
) -> BuildReport:
    """Build the generation that ``plan`` leads to from ``parent`` and make it resident.

    Args:
        plan: the net change since the parent.
        parent: the opened parent generation, or ``None`` for the first.
        residence: where artifacts and generations are kept.
        draft_folder: a folder of this build alone, on the same file system.
        settings: shard, quantization, embedder, encoder.
        built_at: when, in UTC (RFC 3339); recorded in the manifest.

    Raises:
        DiskFull, DiskError: the disk refuses.
        ActivationFailed: what was built does not open, or does not hold what it should.
    """
    gone = parent.rows_of(list(plan.touched)) if parent else {}
    first_row = parent.manifest.counts.rows if parent else 0
    rows = first_row + len(plan.upserts)
    tombstones = (parent.manifest.counts.tombstones if parent else 0) + len(gone)
    counts = Counts(documents=rows - tombstones, rows=rows, tombstones=tombstones)
    with Draft(residence, draft_folder, settings.encode) as draft:
        _write(draft, plan, parent, gone, settings)
        manifest = _manifest(plan, parent, draft, settings, counts, built_at)
        residence.assemble(manifest, to_canonical(manifest))

    inherited = {a.blake3 for a in parent.manifest.artifacts} if parent else set()
    reused_bytes = sum(a.size_bytes for a in manifest.artifacts if a.blake3 in inherited)
    return BuildReport(manifest, manifest.size_bytes - reused_bytes, reused_bytes)


def _write(
    draft: Draft,
    plan: BuildPlan,
    parent: Snapshot | None,
    gone: dict[str, int],
    settings: BuildSettings,
) -> None:
    """Write what the plan adds and takes out; keep the rest of the parent."""
    inherited = parent.manifest.artifacts if parent else ()
    first_row = parent.manifest.counts.rows if parent else 0
    draft.change_lexical(
        [artifact for artifact in inherited if isinstance(artifact, LexicalArtifact)],
        (
            (row, lexical.StoredDocument(upsert.id, upsert.title, upsert.text, upsert.fields))
            for row, upsert in enumerate(plan.upserts, first_row)
        ),
        len(plan.upserts),
        list(gone),
    )
    for artifact in inherited:
        if not isinstance(artifact, LexicalArtifact):
            draft.keep(artifact)
    if plan.upserts:
        vectors = _vectors(plan.upserts, settings.embedder)
        draft.add_vectors(first_row, vectors, settings.quantization)
        draft.add_heads(first_row, [Head(upsert.id, upsert.title) for upsert in plan.upserts])
    if gone:
        draft.add_tombstones(plan.high_seq, list(gone.values()))


def _vectors(upserts: Sequence[Upsert], embedder: Embedder) -> NDArray[np.float32]:
    if embedder.computes:
        return embedder.embed([f"{upsert.title} {upsert.text}" for upsert in upserts])
    packed = b"".join(upsert.vector or b"" for upsert in upserts)
    vectors = np.frombuffer(packed, dtype="<f4").reshape(len(upserts), embedder.dimensions)
    # Cosine similarity ignores lengths, but half-precision numbers overflow at 65,504.
    lengths = np.sqrt(np.einsum("ij,ij->i", vectors, vectors, dtype=np.float64))
    scaled: NDArray[np.float32] = (vectors / lengths[:, None]).astype(np.float32)
    return scaled


def _manifest(
    plan: BuildPlan,
    parent: Snapshot | None,
    draft: Draft,
    settings: BuildSettings,
    counts: Counts,
    built_at: str,
) -> GenerationManifest:
    body = GenerationBody(
        shard=settings.shard,
        built_at=built_at,
        commits=CommitRange(
            low_seq=plan.low_seq,
            high_seq=plan.high_seq,
            head_commit_id=plan.head_commit_id,
            parent_generation_id=parent.manifest.generation_id if parent else None,
        ),
        embedder=embedder_record(settings.embedder),
        lexical=lexical.SETTINGS,
        counts=counts,
        artifacts=tuple(sorted(draft.artifacts, key=lambda artifact: artifact.name)),
        activation=Activation(invariants=INVARIANTS, golden_queries=()),
    )
    # The golden answers come from the very files that are about to be signed.
    snapshot = Snapshot(verify_generation(seal(body), draft.folder))
    check_counts(snapshot.manifest, snapshot.opened_counts())
    activation = Activation(invariants=INVARIANTS, golden_queries=golden_queries(snapshot))
    return seal(body.model_copy(update={"activation": activation}))
