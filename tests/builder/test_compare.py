"""Two generations compared, and two rankings."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from builder.agreement import Agreement, agreement, bm25, overlap
from builder.compare import compare_artifacts, compare_documents, compare_embedders
from controller.compaction import compact
from controller.settings import MergeSettings
from index.contents import Contents, Fingerprint
from index.embedding import HashingEmbedder, PrecomputedEmbedder, embedder_record
from index.verification import verify_generation
from manifests.generation import GenerationManifest, GoldenEmbedding
from tests.support.corpus import DIMENSIONS, delete, upserts
from tests.support.homes import TestableWriter, built, make_writer

SAME = Fingerprint(b"title", b"text", b"fields", b"vector")


def contents(writer: TestableWriter, manifest: GenerationManifest) -> Contents:
    folder = writer.residence.folder(manifest.generation_id)
    return Contents(verify_generation(manifest, folder))


def test_documents_are_added_changed_and_removed() -> None:
    before = {"a": SAME, "b": SAME, "c": SAME, "d": SAME}
    after = {"b": SAME, "c": SAME._replace(text=b"other", vector=b"other"), "d": SAME, "e": SAME}
    changes = compare_documents(before, after)
    assert changes.added == ("e",)
    assert changes.removed == ("a",)
    assert changes.changed == {"c": ("text", "vector")}
    assert changes.unchanged == 2
    assert changes
    assert not compare_documents(before, dict(reversed(before.items())))


@pytest.mark.parametrize("part", Fingerprint._fields)
def test_each_part_of_a_document_counts(part: str) -> None:
    changes = compare_documents({"a": SAME}, {"a": SAME._replace(**{part: b"other"})})
    assert changes.changed == {"a": (part,)}


def test_a_comparison_from_documents_is_exact_whatever_was_merged_meanwhile(
    tmp_path: Path,
) -> None:
    seed = 5
    print("seed", seed)  # noqa: T201
    chance = random.Random(seed)
    writer = make_writer(tmp_path, embedder="precomputed", quantization="bf16")
    merges = MergeSettings(shards=4, dead_documents_percent=5)
    writer.settings = writer.settings.model_copy(update={"merges": merges})
    versions = dict.fromkeys(range(80), 0)
    manifests = [built(writer, upserts(versions, dimensions=DIMENSIONS))]
    history = [dict(versions)]
    for version in range(1, 9):
        gone = chance.sample(sorted(versions), 4)
        changed = chance.sample(sorted(set(versions) - set(gone)), 8)
        added = range(100 * version, 100 * version + 6)
        for number in gone:
            del versions[number]
        versions |= dict.fromkeys([*changed, *added], version)
        operations = upserts([*changed, *added], version, dimensions=DIMENSIONS)
        manifests.append(built(writer, [*operations, *map(delete, gone)]))
        history.append(dict(versions))
        if version == 6:
            compact(writer, None, send=False, on_start=lambda _: lambda _: None)
    assert manifests[-1].counts.dropped, "merges have rewritten shards and segments"
    found = [contents(writer, manifest).fingerprints() for manifest in manifests]
    for early, late in ((0, 8), (3, 8), (7, 8), (8, 2)):
        changes = compare_documents(found[early], found[late])
        old, new = history[early], history[late]
        assert set(changes.added) == {f"d{number}" for number in new.keys() - old.keys()}
        assert set(changes.removed) == {f"d{number}" for number in old.keys() - new.keys()}
        assert set(changes.changed) == {
            f"d{number}" for number in old.keys() & new.keys() if old[number] != new[number]
        }
        assert set(changes.changed.values()) == {("text", "fields", "vector")}


def test_artifacts_are_shared_new_and_gone_by_content(tmp_path: Path) -> None:
    writer = make_writer(tmp_path)
    before = built(writer, upserts(range(50)))
    after = built(writer, [*upserts(range(5), 1), delete(9)])
    changes = compare_artifacts(before, after)
    total = changes.total
    assert total.shared_bytes + total.new_bytes == after.size_bytes
    assert total.shared_bytes + total.gone_bytes == before.size_bytes
    assert total.shared_artifacts + total.new_artifacts == len(after.artifacts)
    assert {artifact.name for artifact in changes.gone} == {"lexical/meta.json"}
    assert changes.by_kind["tombstones"].new_artifacts == 1
    assert changes.by_kind["vectors"].shared_artifacts == 1
    back = compare_artifacts(after, before)
    assert (back.total.new_bytes, back.total.gone_bytes) == (total.gone_bytes, total.new_bytes)
    assert compare_artifacts(after, after).total.new_artifacts == 0


def test_every_difference_of_embedders_is_named() -> None:
    one = embedder_record(HashingEmbedder(16))
    assert compare_embedders(one, one) == {}
    other = embedder_record(PrecomputedEmbedder(8))
    assert set(compare_embedders(one, other)) == {"name", "revision", "dimensions", "golden"}
    text = one.golden[0].text
    drifted = one.model_copy(
        update={"golden": (GoldenEmbedding(text=text, vector="AAAA"), *one.golden[1:])}
    )
    assert compare_embedders(one, drifted) == {"golden": ([text], [text])}


def test_bm25_is_what_tantivy_computes(tmp_path: Path) -> None:
    writer = make_writer(tmp_path)
    side = contents(writer, built(writer, upserts(range(300))))
    text = "river summit valley unique7 unique12"
    hits = side.snapshot.search(text=text, vector=None, mode="lexical", limit=50)
    evidence = side.evidence(text, [hit.id for hit in hits])
    for hit in hits:
        score = bm25(evidence.occurrences[hit.id], evidence.statistics)
        assert score == pytest.approx(hit.score, rel=1e-5)


def test_evidence_is_of_the_documents_asked_for_that_match(tmp_path: Path) -> None:
    writer = make_writer(tmp_path)
    side = contents(writer, built(writer, upserts(range(10))))
    evidence = side.evidence("unique3 unique4 absent", ["d3", "d4", "d5", "nowhere"])
    assert set(evidence.occurrences) == {"d3", "d4"}
    assert [each.documents_with_term for each in evidence.statistics.values()] == [1, 1]
    assert side.evidence("", ["d3"]).occurrences == {}
    assert side.evidence("unique3", []).occurrences == {}


def test_equal_rankings_agree_and_a_missing_hit_does_not() -> None:
    scores = {f"d{number}": 1.0 / number for number in range(1, 21)}
    assert agreement(scores, dict(scores), 10) == Agreement(1, 20, 20)
    without = {identity: score for identity, score in scores.items() if identity != "d3"}
    # d3 is missed by the other, whose tenth, d11, is not among these ten.
    assert agreement(scores, without, 10) == Agreement(1, 20, 18)


def test_hits_of_one_score_have_no_order() -> None:
    tied = {f"d{number}": 1.0 for number in range(30)}
    nearly = {identity: 1.0 + 1e-9 * place for place, identity in enumerate(tied)}
    assert agreement(tied, nearly, 10).percent == 100
    apart = {identity: 1.0 + 1e-3 * place for place, identity in enumerate(tied)}
    assert agreement(tied, apart, 10).percent < 100


def test_an_empty_ranking_agrees_with_an_empty_one_only() -> None:
    assert agreement({}, {}, 10) == Agreement(1, 0, 0)
    assert Agreement(1, 0, 0).percent == 100
    assert agreement({"a": 1.0}, {}, 10) == agreement({}, {"a": 1.0}, 10) == Agreement(1, 1, 0)


def test_agreements_add_up() -> None:
    total = Agreement(1, 20, 20) + Agreement(1, 20, 19)
    assert total == Agreement(2, 40, 39)
    assert total.percent == pytest.approx(97.5)


def test_overlap_counts_ids_of_both_lists() -> None:
    assert overlap(["a", "b", "c"], ["b", "c", "d"]) == Agreement(1, 6, 4)
    assert overlap([], []) == Agreement(1, 0, 0)
