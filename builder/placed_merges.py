"""Putting merges in the place of what they replace, while a generation is built.

Prepared merges are used where the parent still has all that they replace. A build merges itself
only what keeps the number of parts within its bound, and parts that are mostly dead if they are
small enough for a build.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from builder.draft import Draft, new_shards
from builder.merge import merge_rows, merge_text
from builder.merge_plan import Merge, MergePolicy, Part, plan_merges
from builder.parts import P, plan_stale, rows_parts, text_parts, untouched
from builder.prepared_merges import PreparedMerge
from index.heads import HeadTable
from index.residence import Residence
from index.snapshot import Snapshot
from index.verification import ReadFiles
from manifests.generation import HeadsArtifact, TombstonesArtifact


@dataclass(frozen=True, slots=True)
class PlacedMerges:
    """The merges that one build puts in place."""

    rows: tuple[PreparedMerge, ...] = ()
    text: tuple[PreparedMerge, ...] = ()

    @property
    def size_bytes(self) -> int:
        """What they made."""
        return sum(
            artifact.size_bytes
            for merge in (*self.rows, *self.text)
            for artifact in merge.artifacts
        )

    def replaces(self, name: str, artifact_id: str) -> bool:
        """Whether an artifact of the parent has its place taken."""
        return any(
            (each.name, each.blake3) == (name, artifact_id)
            for merge in (*self.rows, *self.text)
            for each in merge.replaced
        )


def place_merges(
    draft: Draft,
    parent: Snapshot,
    prepared: Sequence[PreparedMerge],
    policy: MergePolicy,
    new_documents: int,
    seen: ReadFiles,
) -> PlacedMerges:
    """Choose among the ``prepared`` merges, and do what else has to be merged in this build.

    A prepared merge of which anything is damaged is done again, as if it had not been.

    Raises:
        DiskFull, DiskError: the disk refuses.
        ActivationFailed: a library refuses the parent's files.
    """
    fitting = [
        merge
        for merge in prepared
        if merge.fits(parent.manifest) and draft.holds(merge.artifacts, seen)
    ]
    new = new_shards(new_documents)
    rows, row_merges = _chosen(
        rows_parts(parent.manifest, parent.tombstones),
        [merge for merge in fitting if merge.rows is not None],
        policy,
        new,
    )
    text, text_merges = _chosen(
        text_parts(parent.manifest, parent.folder),
        [merge for merge in fitting if merge.rows is None],
        policy,
        new,
    )
    for number, row_merge in enumerate(row_merges):
        folder = draft.folder / f"merge-rows-{number}"
        done, made = merge_rows(parent, row_merge, folder, draft.described)
        draft.take_in(made)
        rows.append(done)
    for number, text_merge in enumerate(text_merges):
        folder = draft.folder / f"merge-text-{number}"
        done, made = merge_text(parent.folder, text_merge, folder, draft.described)
        draft.take_in(made)
        text.append(done)
    return PlacedMerges(tuple(rows), tuple(text))


def _chosen(
    parts: Sequence[P], prepared: list[PreparedMerge], policy: MergePolicy, new_parts: int
) -> tuple[list[PreparedMerge], list[Merge[P]]]:
    """Which prepared merges of a kind to use, and which other ones to do."""
    left = untouched(parts, prepared)
    placed = sum(1 if merge.rows else len(merge.segments) for merge in prepared if merge.artifacts)
    count = sum(part.shards for part in left) + placed + new_parts
    if count <= policy.shards:
        return prepared, plan_stale(left, policy, policy.build_max_bytes)
    most = policy.shards - new_parts
    return [], plan_merges(parts, policy, most=most, max_bytes=policy.build_max_bytes, must=True)


def dropped_rows(
    merges: Sequence[PreparedMerge], tombstones: NDArray[np.uint64], residence: Residence
) -> NDArray[np.uint64]:
    """Those of the parent's ``tombstones`` whose rows are in no artifact after the merges."""
    dropped = [np.empty(0, np.uint64)]
    for merge in merges:
        if merge.rows is not None:
            first, end = merge.rows.first_row, merge.rows.end_row
            inside = tombstones[(tombstones >= first) & (tombstones < end)]
            held = [
                HeadTable(residence.artifact_path(table.blake3), table.first_row, table.rows).rows
                for table in merge.artifacts
                if isinstance(table, HeadsArtifact)
            ]
            dropped.append(np.setdiff1d(inside, np.concatenate([np.empty(0, np.uint64), *held])))
    return np.concatenate(dropped)


def place_tombstones(
    draft: Draft,
    before: Sequence[TombstonesArtifact],
    dropped: NDArray[np.uint64],
    gone: Sequence[int],
    policy: MergePolicy,
    high_seq: int,
) -> None:
    """Keep the tombstones of ``before`` but for ``dropped``, and add ``gone``.

    That makes at most ``policy.shards`` files. They are kept as they are where they can be; what is
    new or has to be written again becomes one file.
    """
    kept: list[tuple[TombstonesArtifact, NDArray[np.uint64]]] = []
    rewritten = [np.array(gone, dtype=np.uint64)]
    for artifact in before:
        rows = draft.tombstones(artifact)
        left = np.setdiff1d(rows, dropped, assume_unique=True)
        if len(left) == len(rows):
            kept.append((artifact, rows))
        else:
            rewritten.append(left)
    parts = [Part(each.name, each.rows, 0, each.size_bytes, 1) for each, _ in kept]
    merges = plan_merges(
        parts, policy, most=policy.shards - 1, max_bytes=policy.build_max_bytes, must=True
    )
    folded = {part.name for merge in merges for part in merge.parts}
    for artifact, rows in kept:
        if artifact.name in folded:
            rewritten.append(rows)
        else:
            draft.keep(artifact)
    if sum(map(len, rewritten)):
        draft.add_tombstones(high_seq, np.concatenate(rewritten).tolist())
