"""What the parts of a generation are, by its manifest."""

from __future__ import annotations

import numpy as np

from builder.merge_plan import DEFAULT_POLICY
from builder.parts import plan_compaction, rows_parts, segment_parts, untouched
from builder.prepared_merges import PreparedMerge
from index.segments import Deletes, Segment
from manifests.generation import Counts, seal
from tests.manifests import samples


def test_a_part_begins_where_a_shard_and_a_head_table_begin() -> None:
    """A first build once made one head table over two shards; they are merged as one."""
    artifacts = (
        samples.heads(0, 8),
        samples.heads(8, 2),
        samples.heads(12, 1),
        samples.lexical(),
        samples.tombstones(9, 3),
        samples.vectors(0, 4),
        samples.vectors(4, 4),
        samples.vectors(8, 2),
        samples.vectors(12, 1),
    )
    counts = Counts(documents=8, rows=13, tombstones=3)
    manifest = seal(samples.body(artifacts=artifacts, counts=counts))
    parts = rows_parts(manifest, np.array([1, 7, 9], np.uint64))
    assert [(p.first_row, p.end_row, p.shards, p.live, p.dead) for p in parts] == [
        (0, 8, 2, 6, 2),
        (8, 12, 1, 1, 1),
        (12, 13, 1, 1, 0),
    ]
    assert [part.size_bytes for part in parts] == [300, 200, 200]
    assert {a.name for part in parts for a in part.artifacts} == {
        a.name for a in artifacts if a.kind in {"heads", "vectors"}
    }


def test_a_generation_without_rows_has_no_parts() -> None:
    empty = Counts(documents=0, rows=0, tombstones=0)
    manifest = seal(samples.body(artifacts=(samples.lexical(),), counts=empty))
    assert rows_parts(manifest, np.empty(0, np.uint64)) == []


def test_a_segments_part_is_all_of_its_files() -> None:
    names = ["0a.idx", "0a.store", "0a.17.del", "0b.store", "meta.json"]
    artifacts = [samples.lexical(f"lexical/{name}") for name in names]
    segments = [Segment("0-b", 3), Segment("0-a", 5, Deletes(2, 17))]
    parts = segment_parts(segments, artifacts)
    assert [[a.name for a in part.artifacts] for part in parts] == [
        ["lexical/0b.store"],
        ["lexical/0a.idx", "lexical/0a.store", "lexical/0a.17.del"],
    ]
    assert [(part.live, part.dead, part.size_bytes) for part in parts] == [(3, 0, 100), (3, 2, 300)]


def test_superseded_deletes_are_not_a_segments_own() -> None:
    segment = Segment("0-a", 5, Deletes(2, 17))
    assert segment.owns("0a.17.del")
    assert segment.owns("0a.store")
    assert not segment.owns("0a.9.del")
    assert not segment.owns("0ab.store")
    assert not Segment("0-a", 5).owns("0a.9.del")


def test_what_waits_for_a_build_is_not_planned_again() -> None:
    """Its neighbours are no neighbours any more, so only single parts are planned beside it."""
    segments = [Segment(f"0-{n:x}", 4, Deletes(3, 1) if n == 0 else None) for n in range(12)]
    artifacts = [samples.lexical(f"lexical/{each.name}.store") for each in segments]
    parts = segment_parts(segments, artifacts)
    before = plan_compaction([], parts, [], DEFAULT_POLICY, 1 << 40)
    assert [merge.reason for merge in before.merges] == ["too many parts"]
    waits = PreparedMerge.of(artifacts[5:8], [], None, [])
    assert untouched(parts, [waits]) == [*parts[:5], *parts[8:]]
    after = plan_compaction([], parts, [waits], DEFAULT_POLICY, 1 << 40)
    assert [(merge.reason, merge.parts) for merge in after.merges] == [
        ("dead documents", (parts[0],))
    ]
