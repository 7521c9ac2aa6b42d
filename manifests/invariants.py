"""The activation invariants, as pure predicates.

A manifest names all of them (:data:`manifests.generation.INVARIANTS`). Each function looks at one
invariant and raises the error that names its violation; none is ever left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from manifests.errors import (
    ActivationFailed,
    CommitRangeGap,
    EmbedderMismatch,
    ManifestIncomplete,
)
from manifests.generation import (
    EmbedderRecord,
    GenerationManifest,
    HeadsArtifact,
    LexicalArtifact,
    TombstonesArtifact,
    VectorArtifact,
)
from manifests.record import CollectedCommits, ControlRecord, GenerationEntry
from manifests.vectors import vector_from_text

GOLDEN_TOLERANCE = 1e-4
"""How far two machines' float32 arithmetic may differ in one component of a unit vector."""

GOLDEN_DEPTH = 10
"""A golden query must find its document among this many hits."""


@dataclass(frozen=True, slots=True)
class OpenedCounts:
    """What the libraries say of an opened generation."""

    lexical_documents: int
    live_vectors: int


def check_complete(manifest: GenerationManifest) -> None:
    """The artifact list explains the counts: every row that was not dropped has head and vector.

    Raises:
        ManifestIncomplete: naming what is missing or too much.
    """
    rows, held = manifest.counts.rows, manifest.counts.rows - manifest.counts.dropped
    heads = [(head.first_row, head.rows) for head in manifest.of_kind(HeadsArtifact)]
    vectors = [(shard.first_row, shard.vectors) for shard in manifest.of_kind(VectorArtifact)]
    for what, ranges in (("heads", heads), ("vectors", vectors)):
        if not _account_for(sorted(ranges), rows, held):
            raise ManifestIncomplete(
                f"{manifest.generation_id}: the {what} artifacts do not hold {held} of the rows 0 "
                f"to {rows}, each once",
                generation_id=manifest.generation_id,
            )
    tombstones = sum(file.rows for file in manifest.of_kind(TombstonesArtifact))
    if tombstones != manifest.counts.tombstones:
        raise ManifestIncomplete(
            f"{manifest.generation_id}: the artifacts hold {tombstones} tombstones, the counts say "
            f"{manifest.counts.tombstones}",
            generation_id=manifest.generation_id,
        )
    for shard in manifest.of_kind(VectorArtifact):
        if shard.dimensions != manifest.embedder.dimensions:
            raise ManifestIncomplete(
                f"{shard.name} has {shard.dimensions} dimensions, the embedder "
                f"{manifest.embedder.dimensions}",
                generation_id=manifest.generation_id,
            )
    for artifact in manifest.artifacts:
        if not artifact.name.startswith(f"{artifact.kind}/"):
            raise ManifestIncomplete(
                f"{artifact.name} is not in the folder of its kind, {artifact.kind}/",
                generation_id=manifest.generation_id,
            )
    if "lexical/meta.json" not in {file.name for file in manifest.of_kind(LexicalArtifact)}:
        raise ManifestIncomplete(
            f"{manifest.generation_id}: the text index has no lexical/meta.json",
            generation_id=manifest.generation_id,
        )


def _account_for(ranges: Sequence[tuple[int, int]], rows: int, held: int) -> bool:
    """Whether so many artifacts, ``(first row, rows held)``, can hold ``held`` of ``rows`` rows."""
    ends = [first for first, _ in ranges[1:]] + [rows]
    fit = all(first + count <= end for (first, count), end in zip(ranges, ends, strict=False))
    return fit and sum(count for _, count in ranges) == held


def check_counts(manifest: GenerationManifest, opened: OpenedCounts) -> None:
    """What was opened holds as many documents and live vectors as the manifest says.

    Raises:
        ActivationFailed: the counts differ.
    """
    expected = manifest.counts.documents
    if opened != OpenedCounts(lexical_documents=expected, live_vectors=expected):
        raise ActivationFailed(
            f"{manifest.generation_id} should hold {expected} documents; its text index has "
            f"{opened.lexical_documents} and its vector shards {opened.live_vectors}",
            generation_id=manifest.generation_id,
        )


def check_lineage(record: ControlRecord, entry: GenerationEntry) -> None:
    """The record's commit ranges are continuous from the first commit up to this generation.

    A lagging node may jump over generations, and a collection may have taken some out; the record
    must still account for every commit, and a generation that directly follows another name that
    as its parent.

    Raises:
        CommitRangeGap: two neighbours leave out or repeat commits.
    """
    known: list[GenerationEntry | CollectedCommits] = [*record.published, *record.collected]
    lineage = sorted(
        (each for each in known if each.high_seq <= entry.high_seq), key=lambda each: each.low_seq
    )
    ends, before = 0, "the shard"
    parent: str | None = None
    for each in lineage:
        name = f"commit {each.low_seq}"
        is_child = True
        if isinstance(each, GenerationEntry):
            name = each.generation_id
            is_child = parent is None or each.parent_generation_id == parent
            parent = each.generation_id
        else:
            parent = None
        if each.low_seq != ends + 1 or not is_child:
            raise CommitRangeGap(
                f"{before} ends at commit {ends}, but {name} starts at {each.low_seq}",
                generation_id=entry.generation_id,
            )
        ends, before = each.high_seq, name


def check_embedder(manifest: GenerationManifest, node: EmbedderRecord) -> None:
    """The generation was embedded with exactly what this node embeds queries with.

    Name, revision and dimensions must be equal, and the node's own golden vectors must be the
    writer's: a model swapped for another of the same dimensions would pass the first three.

    Raises:
        EmbedderMismatch: naming the first difference.
    """
    writer = manifest.embedder
    for what in ("name", "revision", "dimensions"):
        if getattr(writer, what) != getattr(node, what):
            raise EmbedderMismatch(
                f"{manifest.generation_id} was embedded with {what} {getattr(writer, what)}; this "
                f"node has {getattr(node, what)}",
                generation_id=manifest.generation_id,
                field=what,
            )
    if len(writer.golden) != len(node.golden):
        raise EmbedderMismatch(
            f"{manifest.generation_id} has {len(writer.golden)} golden texts; this node's embedder "
            f"has {len(node.golden)}",
            generation_id=manifest.generation_id,
            field="golden",
        )
    for theirs, ours in zip(writer.golden, node.golden, strict=True):
        if theirs.text != ours.text or not _same_vector(theirs.vector, ours.vector):
            raise EmbedderMismatch(
                f"{manifest.generation_id}: the golden text {theirs.text!r} gets another vector "
                "from this node's embedder",
                generation_id=manifest.generation_id,
                field="golden",
            )


def _same_vector(one: str, other: str) -> bool:
    first, second = vector_from_text(one), vector_from_text(other)
    return len(first) == len(second) and all(
        abs(a - b) <= GOLDEN_TOLERANCE for a, b in zip(first, second, strict=True)
    )
