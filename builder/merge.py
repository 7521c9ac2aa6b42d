"""Merging: many parts of one generation into one, without their dead documents.

A merge is a function of the generation it was planned for. It takes vectors, heads and documents as
they are kept there, in order of rows, so the same parts give the same vector shard and head table.
What became dead since is dead in the merged part too; the build that puts it in place sees to that.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from builder.merge_plan import Merge
from builder.new_artifacts import Described, NewArtifact
from builder.parts import AnyPart, RowsPart, TextPart
from builder.prepared_merges import PreparedMerge, RowRange, TextSegment
from durable import files
from index import lexical
from index.heads import head_table_parts
from index.segments import link_segments, read_meta, segment_files, write_meta
from index.snapshot import Snapshot
from index.vector_shard import write_shard
from manifests.generation import HeadsArtifact, LexicalArtifact, VectorArtifact


def merge_rows(
    snapshot: Snapshot, merge: Merge[RowsPart], folder: Path, described: Described
) -> tuple[PreparedMerge, list[NewArtifact]]:
    """Write one vector shard and one head table of the merge's live rows, in an empty folder.

    Raises:
        DiskFull, DiskError: the disk refuses.
    """
    first, end = merge.parts[0].first_row, merge.parts[-1].end_row
    rows = snapshot.live_rows(first, end)
    made: list[NewArtifact] = []
    if rows:
        numbers = np.array(rows, dtype=np.uint64)
        shard = next(
            artifact
            for artifact in merge.parts[0].artifacts
            if isinstance(artifact, VectorArtifact)
        )
        shard_name, heads_name = f"vectors/{first:012d}.usearch", f"heads/{first:012d}.heads"
        for name in (shard_name, heads_name):
            files.make_folder((folder / name).parent)
        write_shard(folder / shard_name, numbers, snapshot.vectors(rows), shard.quantization)
        listed = None if rows[-1] - first + 1 == len(rows) else numbers
        records = snapshot.head_records(rows)
        files.replace_file(folder / heads_name, head_table_parts(records, listed))
        made = [
            NewArtifact(
                folder / shard_name,
                VectorArtifact(
                    **described(folder, shard_name),
                    first_row=first,
                    vectors=len(rows),
                    dimensions=shard.dimensions,
                    quantization=shard.quantization,
                    metric="cos",
                ),
            ),
            NewArtifact(
                folder / heads_name,
                HeadsArtifact(**described(folder, heads_name), first_row=first, rows=len(rows)),
            ),
        ]
    return _prepared(merge, made, RowRange(first_row=first, end_row=end)), made


def merge_text(
    generation: Path, merge: Merge[TextPart], folder: Path, described: Described
) -> tuple[PreparedMerge, list[NewArtifact]]:
    """Write a segment of the live documents of the merge's segments, in an empty folder.

    The documents are analysed anew. ``generation`` is the folder of the verified files.

    Raises:
        DiskFull, DiskError: the disk refuses.
        ActivationFailed: tantivy refuses the segments.
    """
    made: list[NewArtifact] = []
    segments: tuple[TextSegment, ...] = ()
    if merge.live:
        source, target = folder / "from", folder / lexical.FOLDER
        for each in (source, target):
            files.make_folder(each)
        old = generation / lexical.FOLDER
        merged = [part.segment for part in merge.parts]
        link_segments(old, merged, source)
        write_meta(source, read_meta(old).of(merged))
        documents = lexical.LexicalIndex(source).live_documents()
        new = lexical.add_documents(target, documents, threads=1).segments
        for name in segment_files(target, new):
            path = f"{lexical.FOLDER}/{name}"
            made.append(NewArtifact(folder / path, LexicalArtifact(**described(folder, path))))
        segments = tuple(
            TextSegment(segment_id=segment.segment_id, max_doc=segment.max_doc) for segment in new
        )
    return _prepared(merge, made, None, segments), made


def _prepared(
    merge: Merge[RowsPart] | Merge[TextPart],
    made: list[NewArtifact],
    rows: RowRange | None,
    segments: tuple[TextSegment, ...] = (),
) -> PreparedMerge:
    parts: tuple[AnyPart, ...] = merge.parts
    return PreparedMerge.of(
        [artifact for part in parts for artifact in part.artifacts],
        [each.artifact for each in made],
        rows,
        segments,
    )
