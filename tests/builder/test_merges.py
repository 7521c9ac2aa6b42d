"""Merges in real homes: whatever is merged, and whenever, the answers are the same."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from builder.prepared_merges import PreparedMerges
from builder.publish import Progress
from controller import compaction
from controller.compaction import CompactReport
from controller.settings import MergeSettings
from controller.writer import WriterHome
from index.snapshot import Snapshot
from index.verification import verify_generation
from manifests.errors import HomeLocked, NothingToBuild
from manifests.generation import (
    GenerationManifest,
    HeadsArtifact,
    LexicalArtifact,
    Quantization,
    TombstonesArtifact,
    VectorArtifact,
)
from manifests.names import symbol_key
from tests.index.builds import opened
from tests.index.test_snapshot_model import Model, check, random_change
from tests.support.corpus import delete, upserts
from tests.support.homes import (
    TestableWriter,
    add,
    built,
    commit,
    flip,
    make_node,
    make_writer,
    store_of,
)


def unwatched(_: int) -> None:
    pass


def compact(
    writer: WriterHome, max_bytes: int | None = None, *, send: bool = False
) -> CompactReport:
    return compaction.compact(writer, max_bytes, send=send, on_start=lambda _: unwatched)


def merging(writer: TestableWriter, **policy: int) -> TestableWriter:
    """The same home with another policy of merging."""
    merges = MergeSettings(**policy)
    writer.settings = writer.settings.model_copy(update={"merges": merges})
    return writer


def segments_of(manifest: GenerationManifest) -> set[str]:
    names = {artifact.name for artifact in manifest.of_kind(LexicalArtifact)}
    return {name.removesuffix(".store") for name in names if name.endswith(".store")}


def files_of(manifest: GenerationManifest) -> set[tuple[str, str]]:
    return {(artifact.name, artifact.blake3) for artifact in manifest.artifacts}


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    change_seed=st.integers(0, 1 << 32),
    shards=st.integers(4, 6),
    compactions=st.lists(st.sampled_from(["no", "all", "some"]), min_size=6, max_size=12),
)
def test_any_order_of_builds_and_merges_gives_what_a_dictionary_holds(
    tmp_path_factory: pytest.TempPathFactory,
    change_seed: int,
    shards: int,
    compactions: list[str],
) -> None:
    chance = random.Random(change_seed)
    folder = tmp_path_factory.mktemp("merges")
    writer = merging(make_writer(folder, embedder="precomputed"), shards=shards)
    model: Model = {}
    history = []
    for serial, compaction_after in enumerate(compactions):
        manifest = built(writer, random_change(chance, model, serial))
        assert len(manifest.of_kind(VectorArtifact)) <= writer.settings.merges.shards
        assert len(manifest.of_kind(HeadsArtifact)) <= writer.settings.merges.shards
        assert len(manifest.of_kind(TombstonesArtifact)) <= writer.settings.merges.shards
        assert len(segments_of(manifest)) <= writer.settings.merges.shards
        check(opened(writer, manifest), model)
        history.append((manifest, dict(model)))
        if compaction_after != "no":
            compact(writer, 6_000 if compaction_after == "some" else None)
    for manifest, earlier in history:
        check(opened(writer, manifest), earlier)


def test_a_merge_keeps_vectors_bit_by_bit_and_drops_the_dead(tmp_path: Path) -> None:
    quantizations: tuple[Quantization, ...] = ("bf16", "f16", "f32", "i8")
    for quantization in quantizations:
        writer = make_writer(
            tmp_path / quantization,
            embedder="precomputed",
            quantization=quantization,
        )
        merging(writer, shards=4)
        built(writer, upserts(range(4), dimensions=16))
        before = built(writer, upserts(range(4, 8), dimensions=16))
        built(writer, [delete(3), *upserts([7], 1, dimensions=16)])
        assert compact(writer).planned.plan.rows
        first = opened(writer, before)
        last = opened(writer, built(writer, [delete(1)]))
        assert last.manifest.counts.dropped == 2
        assert last.head(1).id == "d1", "died after the merge, so it is still held"
        assert last.tombstones.tolist() == [1]
        assert last.live_rows() == [0, 2, 4, 5, 6, 8]
        for row in set(last.live_rows()) & set(first.live_rows()):
            assert last.vector(row).tobytes() == first.vector(row).tobytes()
            assert last.head(row) == first.head(row)


def test_the_same_builds_and_merges_give_the_same_vector_files_and_head_tables(
    tmp_path: Path,
) -> None:
    made = []
    for name in ("one", "two"):
        writer = merging(make_writer(tmp_path / name, embedder="precomputed"), shards=4)
        for version in range(7):
            built(writer, upserts(range(version, version + 30), version, dimensions=16))
            compact(writer)
        last = writer.built()[-1]
        assert last.counts.dropped
        made.append(
            {each for each in files_of(last) if each[0].startswith(("vectors", "heads", "tomb"))}
        )
    assert made[0] == made[1]


def test_a_build_after_a_compaction_puts_it_in_place_and_merges_nothing_itself(
    tmp_path: Path,
) -> None:
    writer = merging(make_writer(tmp_path), shards=6)
    for start in range(5):
        built(writer, upserts(range(10 * start, 10 * start + 10)))
    before = writer.built()[-1]
    report = compact(writer)
    assert [len(merge.parts) for merge in report.planned.plan.merges] == [5, 5]
    assert compact(writer).planned.plan.merges == (), "what waits is not done again"
    assert writer.built()[-1] == before, "until a build, nothing changes"
    commit(writer, upserts([99]))
    done = writer.build().report
    assert done is not None
    assert done.merged_bytes == report.written_bytes
    assert len(done.manifest.of_kind(VectorArtifact)) == 2
    assert len(segments_of(done.manifest)) == 2
    assert PreparedMerges(writer.home, writer.residence).all() == []
    assert not (writer.home / "merges/draft").exists()


def test_without_new_commits_a_compaction_waits(tmp_path: Path) -> None:
    writer = merging(make_writer(tmp_path), shards=4)
    for start in range(3):
        built(writer, upserts([start]))
    last = writer.built()[-1]
    compact(writer)
    assert (writer.build().manifest, writer.build().report) == (last, None)
    assert len(PreparedMerges(writer.home, writer.residence).all()) == 2


def test_builds_between_a_compaction_and_the_one_that_uses_it_lose_nothing(
    tmp_path: Path,
) -> None:
    """A compaction may take as long as several builds; what died meanwhile is dead in it too."""
    writer = merging(make_writer(tmp_path), shards=12)
    for start in range(11):
        built(writer, upserts(range(4 * start, 4 * start + 4)))
    compact(writer)
    waiting = writer.home / "merges"
    aside = tmp_path / "aside"
    waiting.rename(aside)
    built(writer, [delete(5), *upserts([6], 1)])
    aside.rename(waiting)
    manifest = built(writer, [delete(7), delete(6)])
    assert len(manifest.of_kind(VectorArtifact)) <= 3
    snapshot = opened(writer, manifest)
    assert {snapshot.head(row).id for row in snapshot.live_rows()} == {
        f"d{n}" for n in range(44) if n not in {5, 6, 7}
    }
    for gone in (5, 6, 7):
        assert snapshot.document(f"d{gone}") is None
        assert snapshot.search(text=f"unique{gone}", vector=None, mode="lexical", limit=9) == []
    assert snapshot.document("d8") is not None


def test_a_compaction_that_no_longer_fits_is_forgotten(tmp_path: Path) -> None:
    writer = merging(make_writer(tmp_path), shards=4)
    for start in range(3):
        built(writer, upserts([start]))
    compact(writer)
    waiting, aside = writer.home / "merges", tmp_path / "aside"
    waiting.rename(aside)
    for start in range(3, 6):
        built(writer, upserts([start]))  # merges by itself
    aside.rename(waiting)
    manifest = built(writer, upserts([9]))
    assert manifest.counts.documents == 7
    assert list(waiting.glob("*.json")) == []


def spoil(writer: WriterHome, lists: list[Path], damage: str) -> None:
    """Damage what a compaction left."""
    merges = PreparedMerges(writer.home, writer.residence).all()
    made = [artifact for merge in merges for artifact in merge.artifacts]
    for number, path in enumerate(lists):
        match damage:
            case "the list":
                flip(path, 100, 1)
            case "its name":
                path.rename(path.with_name(f"{number:064d}.json"))
            case "no list":
                path.unlink()
    if damage == "an artifact":
        for merge in merges:
            writer.residence.artifact_path(merge.artifacts[0].blake3).unlink()
    if damage == "a byte":
        for artifact in made:
            flip(writer.residence.artifact_path(artifact.blake3), artifact.size_bytes // 2)


@pytest.mark.parametrize("damage", ["the list", "its name", "an artifact", "no list", "a byte"])
def test_row_62_a_damaged_or_lost_merge_is_as_if_it_had_not_been_done(
    tmp_path: Path, damage: str
) -> None:
    writer = merging(make_writer(tmp_path), shards=4)
    for start in range(3):
        built(writer, upserts([start]))
    compact(writer)
    lists = sorted((writer.home / "merges").glob("*.json"))
    waiting = PreparedMerges(writer.home, writer.residence).all()
    assert len(lists) == len(waiting) == 2
    spoil(writer, lists, damage)
    left = PreparedMerges(writer.home, writer.residence).all()
    assert left == (waiting if damage == "a byte" else []), "the rest is found by reading"
    manifest = built(writer, upserts([9]))
    assert manifest.counts.documents == 4
    used = {a.blake3 for merge in waiting for a in merge.artifacts}
    if damage == "a byte":
        assert not used & {artifact.blake3 for artifact in manifest.artifacts}
    verify_generation(manifest, writer.residence.folder(manifest.generation_id))


def test_small_builds_rewrite_nothing_and_only_merges_do(tmp_path: Path) -> None:
    writer = make_writer(tmp_path)
    before = built(writer, upserts(range(100)))
    for number in range(10):
        manifest = built(writer, upserts([number, 200 + number], 1))
        kept = {each for each in files_of(before) if not each[0].endswith((".del", "meta.json"))}
        assert kept <= files_of(manifest)
        before = manifest
    assert len(segments_of(before)) == len(before.of_kind(VectorArtifact)) == 11


def test_many_builds_without_a_compaction_stay_within_the_bound(tmp_path: Path) -> None:
    writer = merging(make_writer(tmp_path, dimensions=16), shards=4)
    for manifest in [built(writer, upserts([number % 7])) for number in range(30)]:
        assert len(manifest.of_kind(VectorArtifact)) <= 4
        assert len(manifest.of_kind(TombstonesArtifact)) <= 4
        assert len(segments_of(manifest)) <= 4
    assert writer.built()[-1].counts.documents == 7


def test_a_compaction_reads_no_more_than_it_may(tmp_path: Path) -> None:
    writer = merging(make_writer(tmp_path), shards=4)
    for start in range(4):
        built(writer, upserts(range(10 * start, 10 * start + 10)))
    full = compaction.plan(writer).plan
    assert sum(merge.read_bytes for merge in full.merges) > 9_000
    for max_bytes in (1, 5_000, 9_000):
        plan = compaction.plan(writer, max_bytes).plan
        assert sum(merge.read_bytes for merge in plan.merges) <= max_bytes
    assert compaction.plan(writer, 1).plan.merges == ()


def test_what_is_sent_ahead_is_not_sent_by_the_publish(tmp_path: Path) -> None:
    writer = merging(make_writer(tmp_path), shards=4)
    for start in range(3):
        add(writer, upserts(range(10 * start, 10 * start + 10)))
    report = compact(writer, send=True)
    assert report.sent_bytes > report.written_bytes
    assert compact(writer, send=True).sent_bytes == 0
    before = {found.key for found in store_of(writer).list("")}
    commit(writer, upserts([99]))
    done = writer.build().report
    assert done is not None
    (published,) = writer.publish(done.manifest.generation_id)
    assert published.uploaded_artifacts == len(
        {
            artifact.blake3
            for artifact in done.manifest.artifacts
            if symbol_key(artifact.blake3, 0) not in before
        }
    )
    assert published.uploaded_bytes < report.sent_bytes


def test_a_node_that_catches_up_after_a_merge_fetches_what_was_merged_and_no_more(
    tmp_path: Path,
) -> None:
    writer = merging(make_writer(tmp_path), shards=5)
    add(writer, upserts(range(300)))
    for start in range(3):
        add(writer, upserts(range(300 + start, 301 + start)))
    node = make_node(writer)
    before = writer.built()[-1]
    here = {path.name for path in node.residence.artifacts.iterdir()}
    compact(writer)
    add(writer, upserts([400]))
    after = writer.built()[-1]
    merged = {each.blake3 for each in after.artifacts if each.name.startswith("vectors/")}
    assert len(after.of_kind(VectorArtifact)) < len(before.of_kind(VectorArtifact))
    node.bootstrap()
    fetched = {path.name for path in node.residence.artifacts.iterdir()} - here
    assert fetched == {a.blake3 for a in after.artifacts} - {a.blake3 for a in before.artifacts}
    base = next(each for each in before.of_kind(VectorArtifact) if each.first_row == 0)
    assert base.blake3 in merged, "the large old part is not merged with small new ones"
    assert base.blake3 in here


def test_two_compactions_at_once_are_refused_and_a_home_without_generations_too(
    tmp_path: Path,
) -> None:
    writer = make_writer(tmp_path)
    with pytest.raises(NothingToBuild):
        compact(writer)
    with pytest.raises(NothingToBuild):
        compaction.plan(writer)
    built(writer, upserts([1]))

    def while_it_runs(_: int) -> Progress:
        with pytest.raises(HomeLocked):
            compact(writer)
        return unwatched

    compaction.compact(writer, None, send=False, on_start=while_it_runs)


def test_ingest_and_build_go_on_while_a_compaction_is_at_work(tmp_path: Path) -> None:
    writer = merging(make_writer(tmp_path), shards=4)
    for start in range(4):
        built(writer, upserts(range(10 * start, 10 * start + 10)))
    made: list[GenerationManifest] = []

    def while_it_runs(_: int) -> Progress:
        made.append(built(writer, [delete(0), *upserts([50])]))
        return unwatched

    report = compaction.compact(writer, None, send=False, on_start=while_it_runs)
    assert report.planned.plan.merges
    assert made[0].counts.documents == 40
    manifest = built(writer, [delete(1)])
    snapshot = opened(writer, manifest)
    assert snapshot.document("d0") is None
    assert snapshot.document("d1") is None
    assert manifest.counts.documents == 39


def nearest(snapshot: Snapshot, question: NDArray[np.float32]) -> list[str]:
    hits = snapshot.search(text=None, vector=question, mode="vector", limit=10)
    return [hit.id for hit in hits]


def test_parts_of_large_shards_are_found_as_well_after_a_merge(tmp_path: Path) -> None:
    """Beyond what is scanned, where a merge is a graph of its own."""
    random_numbers = np.random.default_rng(3)
    vectors = random_numbers.standard_normal((5_000, 8)).astype(np.float32)
    writer = merging(make_writer(tmp_path, embedder="precomputed", dimensions=8), shards=4)
    for start in (0, 2_000, 3_500):
        built(
            writer,
            [
                {"id": f"d{n}", "vector": vectors[n].tolist()}
                for n in range(start, min(5_000, start + 2_000))
            ],
        )
    assert compact(writer).planned.plan.rows
    snapshot = opened(writer, built(writer, [{"id": "d4999", "op": "delete"}]))
    assert max(each.vectors for each in snapshot.manifest.of_kind(VectorArtifact)) > 4_000
    unit = vectors[:-1] / np.linalg.norm(vectors[:-1], axis=1, keepdims=True)
    found = [
        len(
            set(nearest(snapshot, question))
            & {f"d{place}" for place in np.argsort(-(unit @ question))[:10]}
        )
        for question in random_numbers.standard_normal((50, 8)).astype(np.float32)
    ]
    assert sum(found) / 500 > 0.98
