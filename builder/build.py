"""Build one generation: the parent's artifacts, new ones for the new commits, and a manifest.

A build is a function of the parent generation and the commits after it. It works in a draft folder
that is thrown away when the command is run again, and ends with one rename that makes the
generation resident; until then there is nothing to see of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from builder.changes import BuildPlan
from builder.draft import Draft
from builder.golden import golden_queries
from builder.merge_plan import DEFAULT_POLICY, MergePolicy
from builder.new_artifacts import Encode
from builder.placed_merges import PlacedMerges, dropped_rows, place_merges, place_tombstones
from builder.prepared_merges import PreparedMerge
from builder.scale_out import Workforce, in_threads
from commits.documents import Upsert
from index import lexical
from index.embedding import Embedder, embedder_record
from index.heads import Head
from index.residence import Residence
from index.snapshot import Snapshot
from index.verification import ReadFiles, verify_generation
from manifests.canonical import to_canonical
from manifests.generation import (
    INVARIANTS,
    Activation,
    CommitRange,
    Counts,
    GenerationBody,
    GenerationManifest,
    HeadsArtifact,
    LexicalArtifact,
    Quantization,
    TombstonesArtifact,
    VectorArtifact,
    seal,
)
from manifests.invariants import check_counts


@dataclass(frozen=True, slots=True)
class BuildReport:
    """What a build made, and what it could keep.

    ``merged_bytes`` is that part of ``new_bytes`` which merges wrote, in this build or before it.
    """

    manifest: GenerationManifest
    new_bytes: int
    merged_bytes: int
    reused_bytes: int


@dataclass(frozen=True, slots=True)
class BuildSettings:
    """What stays the same from build to build."""

    shard: str
    quantization: Quantization
    embedder: Embedder
    encode: Encode
    workforce: Workforce = field(default_factory=in_threads)
    merge_policy: MergePolicy = DEFAULT_POLICY


def build_generation(
    plan: BuildPlan,
    parent: Snapshot | None,
    residence: Residence,
    draft_folder: Path,
    settings: BuildSettings,
    built_at: str,
    *,
    prepared: Sequence[PreparedMerge] = (),
    seen: ReadFiles | None = None,
) -> BuildReport:
    """Build the generation that ``plan`` leads to from ``parent`` and make it resident.

    Args:
        plan: the net change since the parent.
        parent: the opened generation to build upon, or ``None`` to take nothing over.
        residence: where artifacts and generations are kept.
        draft_folder: a folder of this build alone, on the same file system.
        settings: shard, quantization, embedder, encoder.
        built_at: when, in UTC (RFC 3339); recorded in the manifest.
        prepared: merges to be put in place, where they fit the parent.
        seen: artifacts that are known to be intact; those that are read here are added.

    Raises:
        DiskFull, DiskError: the disk refuses.
        ActivationFailed: what was built does not open, or does not hold what it should.
    """
    seen = ReadFiles() if seen is None else seen
    gone = parent.rows_of(list(plan.touched)) if parent else {}
    before = parent.manifest.counts if parent else Counts(documents=0, rows=0, tombstones=0)
    with Draft(residence, draft_folder, settings.encode) as draft:
        merges = PlacedMerges()
        dropped = np.empty(0, np.uint64)
        if parent is not None:
            upserts = len(plan.upserts)
            merges = place_merges(draft, parent, prepared, settings.merge_policy, upserts, seen)
            dropped = dropped_rows(merges.rows, parent.tombstones, residence)
        _write_text(draft, plan, parent, merges, gone)
        _write_rows(draft, plan, parent, merges, settings)
        place_tombstones(
            draft,
            parent.manifest.of_kind(TombstonesArtifact) if parent else [],
            dropped,
            list(gone.values()),
            settings.merge_policy,
            plan.high_seq,
        )
        counts = Counts(
            documents=before.documents - len(gone) + len(plan.upserts),
            rows=before.rows + len(plan.upserts),
            tombstones=before.tombstones + len(gone) - len(dropped),
        )
        manifest = _manifest(plan, draft, settings, counts, built_at, seen)
        residence.assemble(manifest, to_canonical(manifest), seen)

    inherited = {a.blake3 for a in parent.manifest.artifacts} if parent else set()
    reused_bytes = sum(a.size_bytes for a in manifest.artifacts if a.blake3 in inherited)
    return BuildReport(
        manifest, manifest.size_bytes - reused_bytes, merges.size_bytes, reused_bytes
    )


def _write_text(
    draft: Draft,
    plan: BuildPlan,
    parent: Snapshot | None,
    merges: PlacedMerges,
    gone: dict[str, int],
) -> None:
    """Put text merges in place, take out what is gone, add what is new."""
    first_row = parent.manifest.counts.rows if parent else 0
    draft.change_lexical(
        parent.manifest.of_kind(LexicalArtifact) if parent else [],
        merges.text,
        parent.live_rows if parent else list,
        (
            (row, lexical.StoredDocument(upsert.id, upsert.title, upsert.text, upsert.fields))
            for row, upsert in enumerate(plan.upserts, first_row)
        ),
        len(plan.upserts),
        list(gone),
    )


def _write_rows(
    draft: Draft,
    plan: BuildPlan,
    parent: Snapshot | None,
    merges: PlacedMerges,
    settings: BuildSettings,
) -> None:
    """Keep the parent's vectors and heads, put merges in place, add what is new."""
    for artifact in parent.manifest.artifacts if parent else ():
        kept = isinstance(artifact, VectorArtifact | HeadsArtifact)
        if kept and not merges.replaces(artifact.name, artifact.blake3):
            draft.keep(artifact)
    for merge in merges.rows:
        for artifact in merge.artifacts:
            draft.keep(artifact)
    if plan.upserts:
        draft.add_rows(
            parent.manifest.counts.rows if parent else 0,
            _vectors(plan.upserts, settings.embedder, settings.workforce),
            [Head(upsert.id, upsert.title) for upsert in plan.upserts],
            settings.quantization,
            settings.workforce,
        )


def _vectors(
    upserts: Sequence[Upsert], embedder: Embedder, workforce: Workforce
) -> NDArray[np.float32]:
    if embedder.computes:
        return workforce.embed([f"{upsert.title} {upsert.text}" for upsert in upserts], embedder)
    packed = b"".join(upsert.vector or b"" for upsert in upserts)
    vectors = np.frombuffer(packed, dtype="<f4").reshape(len(upserts), embedder.dimensions)
    # Cosine similarity ignores lengths, but half-precision numbers overflow at 65,504.
    lengths = np.sqrt(np.einsum("ij,ij->i", vectors, vectors, dtype=np.float64))
    scaled: NDArray[np.float32] = (vectors / lengths[:, None]).astype(np.float32)
    return scaled


def _manifest(
    plan: BuildPlan,
    draft: Draft,
    settings: BuildSettings,
    counts: Counts,
    built_at: str,
    seen: ReadFiles,
) -> GenerationManifest:
    body = GenerationBody(
        shard=settings.shard,
        built_at=built_at,
        commits=CommitRange(
            low_seq=plan.low_seq,
            high_seq=plan.high_seq,
            head_commit_id=plan.head_commit_id,
            parent_generation_id=plan.parent_generation_id,
        ),
        embedder=embedder_record(settings.embedder),
        lexical=lexical.SETTINGS,
        counts=counts,
        artifacts=tuple(sorted(draft.artifacts, key=lambda artifact: artifact.name)),
        activation=Activation(invariants=INVARIANTS, golden_queries=()),
    )
    # The golden answers come from the very files that are about to be signed.
    snapshot = Snapshot(verify_generation(seal(body), draft.folder, seen))
    check_counts(snapshot.manifest, snapshot.opened_counts())
    activation = Activation(invariants=INVARIANTS, golden_queries=golden_queries(snapshot))
    return seal(body.model_copy(update={"activation": activation}))
