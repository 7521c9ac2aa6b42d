"""Generations against a dictionary: whatever the order of changes, both halves agree with it."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest

from index.snapshot import Snapshot
from manifests.invariants import OpenedCounts, check_complete, check_counts
from tests.index.builds import opened
from tests.support.corpus import VOCABULARY, Operation, delete, text_of, upsert, vector_of
from tests.support.homes import built, make_writer

Model = dict[int, int]
"""The version of every live document, by its number."""

POPULATION = 60


def random_change(chance: random.Random, model: Model, serial: int) -> list[Operation]:
    """Upserts, replacements and deletes, of absent documents too; ``model`` follows."""
    operations = []
    for number in chance.sample(range(POPULATION), chance.randrange(1, POPULATION)):
        if chance.random() < 0.45:
            operations.append(delete(number))
            model.pop(number, None)
        else:
            operations.append(upsert(number, serial, dimensions=16))
            model[number] = serial
    return operations


def check(snapshot: Snapshot, model: Model) -> None:
    everything = POPULATION * 10
    assert snapshot.manifest.counts.documents == len(model)
    check_complete(snapshot.manifest)
    check_counts(snapshot.manifest, snapshot.opened_counts())
    heads = {snapshot.head(row).id: snapshot.head(row).title for row in snapshot.live_rows()}
    assert heads == {f"d{number}": f"Title {number}" for number in model}
    for number in range(POPULATION):
        document = snapshot.document(f"d{number}")
        version = model.get(number)
        if version is None:
            assert document is None
        else:
            assert document is not None
            assert document.text == text_of(number, version)
            assert document.fields == {"number": number, "version": version}
    for word in VOCABULARY:
        hits = snapshot.search(text=word, vector=None, mode="lexical", limit=everything)
        expected = {f"d{n}" for n, version in model.items() if word in text_of(n, version).split()}
        assert {hit.id for hit in hits} == expected
        assert len(hits) == len(expected)
    check_nearest(snapshot, model)


def check_nearest(snapshot: Snapshot, model: Model) -> None:
    numbers = list(model)
    vectors = np.array([vector_of(n, v) for n, v in model.items()]).reshape(len(model), 16)
    for question in (vector_of(10_000 + asked) for asked in range(8)):
        for limit in (1, 10, 1000):
            hits = snapshot.search(text=None, vector=question, mode="vector", limit=limit)
            lengths = np.linalg.norm(vectors, axis=1) * np.linalg.norm(question)
            cosines = vectors @ question / lengths
            order = np.argsort(-cosines)[:limit]
            assert [hit.id for hit in hits] == [f"d{numbers[place]}" for place in order]
            assert np.allclose([hit.score for hit in hits], cosines[order], atol=1e-5)


@pytest.mark.parametrize("seed", range(4))
def test_any_sequence_of_upserts_and_deletes_gives_what_a_dictionary_holds(
    tmp_path: Path, seed: int
) -> None:
    print("seed", seed)  # noqa: T201
    chance = random.Random(seed)
    writer = make_writer(tmp_path, embedder="precomputed")
    model: Model = {}
    history = []
    for serial in range(4):
        manifest = built(writer, random_change(chance, model, serial))
        history.append((manifest, dict(model)))
        check(opened(writer, manifest), model)
    for manifest, earlier in history:
        check(opened(writer, manifest), earlier)


def test_more_tombstones_than_live_documents(tmp_path: Path) -> None:
    writer = make_writer(tmp_path, embedder="precomputed")
    built(writer, [upsert(n, dimensions=16) for n in range(POPULATION)])
    built(writer, [upsert(n, 1, dimensions=16) for n in range(POPULATION)])
    manifest = built(writer, [delete(n) for n in range(3, POPULATION)])
    assert manifest.counts.tombstones == POPULATION - 3
    assert manifest.counts.dropped == POPULATION, "a part without live rows is dropped for nothing"
    check(opened(writer, manifest), dict.fromkeys(range(3), 1))


def test_a_generation_of_which_every_document_was_deleted_answers_with_nothing(
    tmp_path: Path,
) -> None:
    writer = make_writer(tmp_path, embedder="precomputed")
    built(writer, [upsert(n, dimensions=16) for n in range(POPULATION)])
    snapshot = opened(writer, built(writer, [delete(n) for n in range(POPULATION)]))
    assert snapshot.opened_counts() == OpenedCounts(lexical_documents=0, live_vectors=0)
    check(snapshot, {})
    hits = snapshot.search(text="anchor", vector=vector_of(1), mode="hybrid", limit=10)
    assert hits == []
    revived = opened(writer, built(writer, [upsert(7, 5, dimensions=16)]))
    check(revived, {7: 5})


def test_a_first_generation_of_deletes_alone_is_empty_and_can_be_built_upon(tmp_path: Path) -> None:
    writer = make_writer(tmp_path, embedder="precomputed")
    snapshot = opened(writer, built(writer, [delete(1), delete(2)]))
    assert snapshot.manifest.counts.rows == 0
    check(snapshot, {})
    check(opened(writer, built(writer, [upsert(1, dimensions=16)])), {1: 0})


def test_hybrid_fuses_the_two_halves_by_rank(tmp_path: Path) -> None:
    writer = make_writer(tmp_path, embedder="precomputed")
    snapshot = opened(writer, built(writer, [upsert(n, dimensions=16) for n in range(POPULATION)]))
    question = vector_of(10_001)
    text = "glacier river"
    first = snapshot.search(text=text, vector=None, mode="lexical", limit=100)
    second = snapshot.search(text=None, vector=question, mode="vector", limit=100)
    scores: dict[str, float] = {}
    for ranking in (first, second):
        for rank, hit in enumerate(ranking, 1):
            scores[hit.id] = scores.get(hit.id, 0.0) + 1 / (60 + rank)
    hits = snapshot.search(text=text, vector=question, mode="hybrid", limit=10)
    assert [hit.score for hit in hits] == sorted(scores.values(), reverse=True)[:10]
    assert all(hit.score == scores[hit.id] for hit in hits)


def test_nearest_neighbours_are_found_with_a_recall_of_95_percent(tmp_path: Path) -> None:
    seed = 32
    print("seed", seed)  # noqa: T201
    generator = np.random.default_rng(seed)
    vectors = generator.standard_normal((2000, 32)).astype(np.float32)
    writer = make_writer(tmp_path, embedder="precomputed", dimensions=32, quantization="bf16")
    operations = [
        {"id": str(row), "text": "x", "vector": vector.tolist()}
        for row, vector in enumerate(vectors)
    ]
    snapshot = opened(writer, built(writer, operations))
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    common = 0
    for question in generator.standard_normal((100, 32)).astype(np.float32):
        exact = {str(row) for row in np.argsort(-(unit @ question))[:10]}
        hits = snapshot.search(text=None, vector=question, mode="vector", limit=10)
        common += len(exact & {hit.id for hit in hits})
    assert common / 1000 >= 0.95
