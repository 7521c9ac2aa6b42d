"""What a build makes and what it keeps."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from index.verification import verify_generation
from manifests.errors import CommitRangeGap, LogCorrupt, NothingToBuild
from manifests.generation import GenerationManifest, HeadsArtifact, LexicalArtifact, VectorArtifact
from tests.support.corpus import delete, upserts
from tests.support.homes import TestableWriter, add, built, commit, make_writer


def by_name(manifest: GenerationManifest) -> dict[str, str]:
    return {artifact.name: artifact.blake3 for artifact in manifest.artifacts}


def test_a_change_of_one_percent_keeps_every_big_artifact(tmp_path: Path) -> None:
    writer = make_writer(tmp_path, dimensions=64)
    base = built(writer, upserts(range(1000)))
    commit(writer, [*upserts(range(5), 1), delete(500), *upserts(range(1000, 1005))])
    report = writer.build().report
    assert report is not None
    after = report.manifest
    kept, now = by_name(base), by_name(after)
    unchanged = {name for name in kept if now.get(name) == kept[name]}
    assert unchanged == set(kept) - {"lexical/meta.json"}
    assert {name.partition("/")[0] for name in set(now) - set(kept)} == {
        "heads",
        "lexical",
        "tombstones",
        "vectors",
    }
    assert report.reused_bytes == base.size_bytes - size_of(base, "lexical/meta.json")
    assert report.new_bytes + report.reused_bytes == after.size_bytes
    assert report.new_bytes < base.size_bytes * 0.05
    assert (after.counts.documents, after.counts.tombstones) == (1004, 6)


def size_of(manifest: GenerationManifest, name: str) -> int:
    return next(each.size_bytes for each in manifest.artifacts if each.name == name)


def test_only_new_rows_get_heads_and_vectors(tmp_path: Path) -> None:
    writer = make_writer(tmp_path)
    built(writer, upserts(range(10)))
    built(writer, upserts(range(8, 13)))
    manifest = built(writer, [delete(0)])
    assert [(h.first_row, h.rows) for h in manifest.of_kind(HeadsArtifact)] == [(0, 10), (10, 5)]
    assert [(v.first_row, v.vectors) for v in manifest.of_kind(VectorArtifact)] == [
        (0, 10),
        (10, 5),
    ]


def test_a_build_without_new_commits_is_the_generation_that_is_there(tmp_path: Path) -> None:
    writer = make_writer(tmp_path)
    manifest = built(writer, upserts(range(10)))
    files = sorted(path for path in writer.residence.artifacts.iterdir())
    again = writer.build()
    assert (again.manifest, again.report) == (manifest, None)
    assert sorted(path for path in writer.residence.artifacts.iterdir()) == files
    assert writer.residence.resident_ids() == [manifest.generation_id]


def test_commits_that_change_nothing_make_a_generation_of_the_same_documents(
    tmp_path: Path,
) -> None:
    writer = make_writer(tmp_path)
    first = built(writer, upserts(range(10)))
    second = built(writer, [delete(99)])
    assert second.counts == first.counts
    assert second.commits.low_seq == second.commits.high_seq == 2
    kept = set(by_name(first)) - {"lexical/meta.json"}
    assert {name for name, artifact in by_name(second).items() if name in kept} == kept
    assert second.commits.parent_generation_id == first.generation_id


def test_generations_cover_the_log_without_a_gap(tmp_path: Path) -> None:
    writer = make_writer(tmp_path)
    ends = []
    for start in (0, 10, 20):
        commit(writer, upserts(range(start, start + 10)), commits=5)
        ends.append(writer.build().manifest.commits)
    assert [(each.low_seq, each.high_seq) for each in ends] == [(1, 5), (6, 10), (11, 15)]
    assert ends[0].parent_generation_id is None
    head = writer.log().head
    assert (ends[2].high_seq, ends[2].head_commit_id) == (head.commit_seq, head.commit_id)


def test_an_empty_log_is_nothing_to_build(tmp_path: Path) -> None:
    with pytest.raises(NothingToBuild):
        make_writer(tmp_path).build()


def test_many_small_builds_keep_every_document_and_older_generations_whole(
    tmp_path: Path,
) -> None:
    writer = make_writer(tmp_path)
    manifests = [built(writer, upserts(range(n, n + 3))) for n in range(0, 60, 3)]
    segments = {
        artifact.name.split("/")[1].split(".")[0]
        for artifact in manifests[-1].of_kind(LexicalArtifact)
    }
    assert len(segments) < 20, "tantivy merged some of the small segments"
    for manifest in manifests:
        verify_generation(manifest, writer.residence.folder(manifest.generation_id))
    assert manifests[-1].counts.documents == 60


def test_the_same_log_builds_the_same_vectors_heads_and_counts(tmp_path: Path) -> None:
    first, second = make_writer(tmp_path / "1"), make_writer(tmp_path / "2")
    one, two = (built(each, upserts(range(20))) for each in (first, second))
    assert one.counts == two.counts
    heads = [[h.blake3 for h in each.of_kind(HeadsArtifact)] for each in (one, two)]
    assert heads[0] == heads[1]


def test_row_64_a_damaged_log_is_not_built_upon(tmp_path: Path) -> None:
    writer = make_writer(tmp_path)
    commit(writer, upserts(range(40)), commits=4)
    (segment,) = (path for path in (writer.home / "log").iterdir() if path.stat().st_size > 2000)
    data = bytearray(segment.read_bytes())
    data[len(data) // 3] ^= 1
    segment.write_bytes(data)
    with pytest.raises(LogCorrupt):
        writer.build()
    assert writer.residence.resident_ids() == []


def test_row_7_another_homes_log_is_not_built_upon(tmp_path: Path) -> None:
    writer, other = make_writer(tmp_path / "1"), make_writer(tmp_path / "2")
    add(writer, upserts(range(3)))
    commit(other, upserts(range(3, 9)), commits=2)
    shutil.rmtree(writer.home / "log")
    shutil.copytree(other.home / "log", writer.home / "log")
    with pytest.raises(CommitRangeGap):
        TestableWriter(writer.home).build()
    assert len(writer.residence.resident_ids()) == 1


def test_row_34_what_an_interrupted_build_left_is_thrown_away(tmp_path: Path) -> None:
    writer = make_writer(tmp_path)
    built(writer, upserts(range(3)))
    draft = writer.home / "draft/lexical"
    draft.mkdir(parents=True)
    (draft / "meta.json").write_text("half")
    (writer.residence.generations / ".tmp-g1").mkdir()
    (writer.residence.artifacts / ".tmp-xyz").write_bytes(b"half")
    manifest = built(writer, upserts([7]))
    assert manifest.counts.documents == 4
    assert not (writer.home / "draft").exists()
    assert not list(writer.home.glob("*/.tmp-*"))
