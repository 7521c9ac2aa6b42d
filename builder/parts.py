"""The parts of a generation, as :mod:`builder.merge_plan` sees them: rows, and text segments."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from builder.merge_plan import NEW_PARTS, Merge, MergePolicy, Part, plan_merges
from builder.prepared_merges import PreparedMerge
from index.lexical import FOLDER
from index.segments import Segment, read_meta
from manifests.generation import (
    Artifact,
    GenerationManifest,
    HeadsArtifact,
    LexicalArtifact,
    VectorArtifact,
)


@dataclass(frozen=True, slots=True)
class RowsPart(Part):
    """The vector shards and head tables of the rows from ``first_row`` up to ``end_row``."""

    first_row: int
    end_row: int
    artifacts: tuple[VectorArtifact | HeadsArtifact, ...]


@dataclass(frozen=True, slots=True)
class TextPart(Part):
    """One segment of the text index; its artifacts do not include ``meta.json``."""

    segment: Segment
    artifacts: tuple[LexicalArtifact, ...]


AnyPart = RowsPart | TextPart
P = TypeVar("P", RowsPart, TextPart)


@dataclass(frozen=True, slots=True)
class MergePlan:
    """What is to be merged in one generation."""

    rows: tuple[Merge[RowsPart], ...]
    text: tuple[Merge[TextPart], ...]

    @property
    def merges(self) -> tuple[Merge[RowsPart] | Merge[TextPart], ...]:
        """All of them."""
        return (*self.rows, *self.text)


def rows_parts(manifest: GenerationManifest, tombstones: NDArray[np.uint64]) -> list[RowsPart]:
    """The rows' parts, oldest first, given the generation's dead rows, ascending.

    A part begins where both a vector shard and a head table begin.
    """
    shards = {shard.first_row: shard for shard in manifest.of_kind(VectorArtifact)}
    tables = {table.first_row: table for table in manifest.of_kind(HeadsArtifact)}
    firsts = sorted(shards.keys() & tables.keys())
    parts = []
    for first, end in zip(firsts, [*firsts[1:], manifest.counts.rows], strict=False):
        inside = [shard for row, shard in shards.items() if first <= row < end]
        heads = [table for row, table in tables.items() if first <= row < end]
        low, high = np.searchsorted(tombstones, np.array([first, end], dtype=np.uint64)).tolist()
        held = sum(table.rows for table in heads)
        parts.append(
            RowsPart(
                name=f"rows {first} to {end - 1}",
                live=held - (high - low),
                dead=high - low,
                size_bytes=sum(artifact.size_bytes for artifact in (*inside, *heads)),
                shards=len(inside),
                first_row=first,
                end_row=end,
                artifacts=(*inside, *heads),
            )
        )
    return parts


def text_parts(manifest: GenerationManifest, folder: Path) -> list[TextPart]:
    """The text segments in the order of ``meta.json``, which is that of their age.

    ``folder`` has the verified files of the generation.

    Raises:
        DiskError: ``meta.json`` cannot be read.
    """
    return segment_parts(read_meta(folder / FOLDER).segments, manifest.artifacts)


def segment_parts(segments: Sequence[Segment], artifacts: Sequence[Artifact]) -> list[TextPart]:
    """The parts that these segments are, with their files among ``artifacts``."""
    owned: dict[str, list[LexicalArtifact]] = {segment.name: [] for segment in segments}
    for artifact in artifacts:
        file_name = artifact.name.partition("/")[2]
        if isinstance(artifact, LexicalArtifact) and file_name.partition(".")[0] in owned:
            owned[file_name.partition(".")[0]].append(artifact)
    return [
        TextPart(
            name=f"segment {segment.name[:8]}",
            live=segment.live,
            dead=segment.dead,
            size_bytes=sum(artifact.size_bytes for artifact in owned[segment.name]),
            shards=1,
            segment=segment,
            artifacts=tuple(owned[segment.name]),
        )
        for segment in segments
    ]


def plan_compaction(
    rows: Sequence[RowsPart],
    text: Sequence[TextPart],
    prepared: Sequence[PreparedMerge],
    policy: MergePolicy,
    max_bytes: int,
) -> MergePlan:
    """What to merge ahead of the next build, so that it need not merge anything itself.

    The parts of ``prepared`` merges, which wait for that build, are left alone.
    """
    of_rows = _of_kind(rows, prepared, policy, max_bytes)
    left_bytes = max_bytes - sum(merge.read_bytes for merge in of_rows)
    return MergePlan(tuple(of_rows), tuple(_of_kind(text, prepared, policy, left_bytes)))


def _of_kind(
    parts: Sequence[P], prepared: Sequence[PreparedMerge], policy: MergePolicy, max_bytes: int
) -> list[Merge[P]]:
    left = untouched(parts, prepared)
    if len(left) == len(parts):
        most = policy.shards - NEW_PARTS
        return plan_merges(parts, policy, most=most, max_bytes=max_bytes, must=False)
    return plan_stale(left, policy, max_bytes)


def untouched(parts: Sequence[P], merges: Sequence[PreparedMerge]) -> list[P]:
    """The parts that none of the merges replaces; they need not be neighbours any more."""
    replaced = {(each.name, each.blake3) for merge in merges for each in merge.replaced}
    return [
        part
        for part in parts
        if not any((each.name, each.blake3) in replaced for each in part.artifacts)
    ]


def plan_stale(parts: Sequence[P], policy: MergePolicy, max_bytes: int) -> list[Merge[P]]:
    """Which parts to write again, each by itself, because too many of their documents are dead."""
    return plan_merges(parts, policy, most=sys.maxsize, max_bytes=max_bytes, must=False)
