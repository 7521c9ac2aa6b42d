"""A generation that is intact but wrong is not activated: rows 7, 8 and 60."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from activator.gate import choose_embedder, pass_gate
from controller.node import NodeHome
from index.embedding import HashingEmbedder, PrecomputedEmbedder, embedder_record
from index.verification import VerifiedGeneration
from manifests.canonical import to_canonical
from manifests.embedder_override import is_overridden, with_embedder_override
from manifests.errors import (
    ActivationFailed,
    CommitRangeGap,
    EmbedderMismatch,
    GenctlError,
)
from manifests.generation import (
    INVARIANTS,
    Activation,
    Counts,
    EmbedderRecord,
    GenerationBody,
    GenerationManifest,
    GoldenEmbedding,
    GoldenQuery,
    VectorArtifact,
    seal,
)
from manifests.identifiers import content_id
from manifests.record import ControlRecord, entry_of
from manifests.record_changes import with_published
from manifests.vectors import vector_from_text, vector_to_text
from query.request import Request
from tests.manifests.samples import NOW
from tests.support.corpus import DIMENSIONS, delete, upserts
from tests.support.homes import TestableWriter, add, built, make_node, make_writer, release
from tests.support.watching import asking, hearing

Edit = Callable[[GenerationBody], GenerationBody]


@pytest.fixture
def writer(tmp_path: Path) -> TestableWriter:
    """One generation released, a second built."""
    home = make_writer(tmp_path)
    add(home, upserts(range(12)))
    built(home, [delete(1), *upserts([20])])
    return home


def resealed(writer: TestableWriter, edit: Edit) -> GenerationManifest:
    """The newest generation under another manifest: the work of a faulty builder."""
    manifest = writer.built()[-1]
    body = GenerationBody(**{name: getattr(manifest, name) for name in GenerationBody.model_fields})
    sealed = seal(edit(body))
    writer.residence.assemble(sealed, to_canonical(sealed))
    shutil.rmtree(writer.residence.generations / manifest.generation_id)
    return sealed


def golden(query: GoldenQuery) -> Edit:
    return lambda body: body.model_copy(
        update={"activation": Activation(invariants=INVARIANTS, golden_queries=(query,))}
    )


def with_counts(**counts: int) -> Edit:
    return lambda body: body.model_copy(update={"counts": Counts(**counts)})


BAD_GOLDEN = [
    GoldenQuery(mode="lexical", text="unique20", vector=None, expected_id="d3"),
    GoldenQuery(mode="lexical", text="unique1v0", vector=None, expected_id="d1"),
    GoldenQuery(mode="lexical", text="nosuchword", vector=None, expected_id="d3"),
    GoldenQuery(
        mode="vector", text=None, vector=vector_to_text([1.0] * DIMENSIONS), expected_id="d1"
    ),
]


@pytest.mark.parametrize("query", BAD_GOLDEN)
def test_row_60_a_golden_query_that_does_not_find_its_document_stops_the_activation(
    writer: TestableWriter, query: GoldenQuery
) -> None:
    node = make_node(writer)
    resealed(writer, golden(query))
    release(writer)
    refused(node, ActivationFailed)


def refused(node: NodeHome, error: type[GenctlError]) -> None:
    """Twice: a generation that failed is not taken at the second look, and the old one serves."""
    before = node.pointer()
    for _ in range(2):
        with pytest.raises(error) as caught:
            node.bootstrap()
        assert caught.value.name == error.__name__
        assert NodeHome(node.home).pointer() == before
        answer = NodeHome(node.home).query(node.reader(), Request(text="unique3", mode="lexical"))
        assert (answer.hits[0].id, answer.commit_seq) == ("d3", 1)


def test_row_60_after_a_failed_activation_the_next_good_generation_is_taken(
    writer: TestableWriter,
) -> None:
    node = make_node(writer)
    resealed(writer, golden(BAD_GOLDEN[0]))
    release(writer)
    refused(node, ActivationFailed)
    writer.rollback(None, "bad")
    assert not node.bootstrap().activated
    assert node.pointer().active.high_seq == 1


def gate(
    writer: TestableWriter, verified: VerifiedGeneration, record: ControlRecord | None = None
) -> None:
    manifest = verified.manifest
    entry = entry_of(manifest, to_canonical(manifest))
    base = writer.current().signed.record
    pass_gate(verified, record or with_published(base, entry, NOW), entry, writer.embedder())


def test_what_was_built_passes(writer: TestableWriter) -> None:
    manifest = writer.built()[-1]
    gate(writer, writer.residence.assemble(manifest, to_canonical(manifest)))
    assert len(manifest.activation.golden_queries) == 6


def test_counts_that_the_files_do_not_hold_stop_the_activation(writer: TestableWriter) -> None:
    # One more tombstone stated, and one row less of documents: complete by its list, but false.
    def edit(body: GenerationBody) -> GenerationBody:
        artifacts = tuple(
            artifact.model_copy(update={"rows": 2}) if artifact.kind == "tombstones" else artifact
            for artifact in body.artifacts
        )
        counts = Counts(documents=11, rows=13, tombstones=2)
        return body.model_copy(update={"artifacts": artifacts, "counts": counts})

    sealed = resealed(writer, edit)
    verified = writer.residence.assemble(sealed, to_canonical(sealed))
    with pytest.raises(ActivationFailed, match="should hold 11 documents"):
        gate(writer, verified)


def embedded_by(**fields: object) -> Edit:
    """The generation as if its embedder had been another one in these fields."""
    return lambda body: body.model_copy(
        update={"embedder": body.embedder.model_copy(update=fields)}
    )


def shifted(embedder: EmbedderRecord, by: float) -> tuple[GoldenEmbedding, ...]:
    """Golden vectors of which the last one differs in one component."""
    *others, last = embedder.golden
    first, *rest = vector_from_text(last.vector)
    vector = vector_to_text([first + by, *rest])
    return (*others, last.model_copy(update={"vector": vector}))


HASHING = embedder_record(HashingEmbedder(DIMENSIONS))
PRECOMPUTED = embedder_record(PrecomputedEmbedder(DIMENSIONS))
DRIFTS: list[tuple[str, dict[str, object]]] = [
    ("name", {"name": "other"}),
    ("name", {"name": PRECOMPUTED.name, "revision": PRECOMPUTED.revision, "golden": ()}),
    ("revision", {"revision": content_id(b"another version of the model")}),
    ("golden", {"golden": shifted(HASHING, 0.001)}),
    ("golden", {"golden": HASHING.golden[:-1]}),
    ("golden", {"golden": ()}),
    ("golden", {"golden": tuple(reversed(HASHING.golden))}),
]


@pytest.mark.parametrize(("field", "fields"), DRIFTS)
def test_row_8_each_difference_of_the_embedder_alone_stops_the_activation(
    writer: TestableWriter, field: str, fields: dict[str, object]
) -> None:
    """The dimensions are the same: nothing but these three would tell."""
    node = make_node(writer)
    sealed = resealed(writer, embedded_by(**fields))
    release(writer)
    before = node.pointer()
    with hearing() as events, asking(node, "unique3") as answers:
        with pytest.raises(EmbedderMismatch) as caught:
            node.bootstrap()
        assert caught.value.facts["field"] == field
        refused(node, EmbedderMismatch)
    assert set(answers) == {"d3"}
    assert node.pointer() == before
    told = events.of("generation_activation_failed")
    assert [(each["generation_id"], each["error"]) for each in told] == (
        3 * [(sealed.generation_id, "EmbedderMismatch")]
    )
    assert "generation_activation_succeeded" not in events.names


def test_golden_vectors_that_differ_by_rounding_alone_are_the_same(writer: TestableWriter) -> None:
    node = make_node(writer)
    resealed(writer, embedded_by(golden=shifted(HASHING, 0.00001)))
    release(writer)
    with hearing() as events:
        assert node.bootstrap().activated
    (told,) = events.of("generation_activation_succeeded")
    assert told["generation_id"] == node.pointer().active.generation_id


def test_row_8_the_golden_vectors_are_computed_by_the_node_and_not_taken_from_the_manifest(
    writer: TestableWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = make_node(writer)
    release(writer)
    embed = HashingEmbedder.embed
    monkeypatch.setattr(HashingEmbedder, "embed", lambda self, texts: -embed(self, texts))
    before = node.pointer()
    with pytest.raises(EmbedderMismatch) as caught:
        node.bootstrap()
    assert caught.value.facts["field"] == "golden"
    assert NodeHome(node.home).pointer() == before


def test_row_8_a_new_node_compares_as_well(
    writer: TestableWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has no embedder of its own yet, and makes what the manifest names: still itself."""
    resealed(writer, embedded_by(golden=shifted(HASHING, 0.001)))
    release(writer)
    with pytest.raises(EmbedderMismatch):
        make_node(writer)


def test_an_override_chooses_the_generations_embedder_and_the_gate_still_compares(
    writer: TestableWriter,
) -> None:
    manifest = writer.built()[-1]
    data = to_canonical(manifest)
    entry = entry_of(manifest, data)
    verified = writer.residence.assemble(manifest, data)
    record = with_published(writer.current().signed.record, entry, NOW)
    bound = PrecomputedEmbedder(DIMENSIONS)
    assert choose_embedder(manifest, record, bound) is bound
    overridden = with_embedder_override(record, manifest, [], "why")
    assert choose_embedder(manifest, overridden, bound).name == "hashing"
    pass_gate(verified, overridden, entry, choose_embedder(manifest, overridden, bound))
    with pytest.raises(EmbedderMismatch):
        pass_gate(verified, overridden, entry, bound)


@pytest.mark.parametrize("fields", [{"name": "other"}, {"revision": "0" * 64}, {"dimensions": 7}])
def test_an_override_of_another_embedder_than_the_generations_counts_for_nothing(
    writer: TestableWriter, fields: dict[str, object]
) -> None:
    manifest = writer.built()[0]
    record = with_embedder_override(writer.current().signed.record, manifest, [], "why")
    assert is_overridden(record, manifest)
    (override,) = record.embedder_overrides
    other = override.model_copy(update=fields)
    assert not is_overridden(record.model_copy(update={"embedder_overrides": (other,)}), manifest)


def test_an_override_is_for_one_generation_and_the_way_back_from_it(
    writer: TestableWriter,
) -> None:
    first, second = writer.built()
    record = with_published(
        writer.current().signed.record, entry_of(second, to_canonical(second)), NOW
    )
    alike = with_embedder_override(record, second, [first], "why")
    assert [each.generation_id for each in alike.embedder_overrides] == [second.generation_id]
    other = first.model_copy(update={"embedder": PRECOMPUTED})
    both = with_embedder_override(record, second, [other], "why")
    assert {each.generation_id: each.name for each in both.embedder_overrides} == {
        first.generation_id: "precomputed",
        second.generation_id: "hashing",
    }
    assert with_embedder_override(both, second, [other], "why") is both
    assert (both.kind, both.reason, both.active) == (record.kind, record.reason, record.active)


def test_row_8_a_generation_whose_embedder_cannot_be_made_here_is_a_mismatch(
    writer: TestableWriter,
) -> None:
    """With an override, and on a node that is not bound to any other."""
    sealed = resealed(writer, embedded_by(name="sentence-model"))
    node = make_node(writer)
    release(writer)
    writer.override_embedder(sealed.generation_id, "a better model")
    refused(node, EmbedderMismatch)
    with pytest.raises(EmbedderMismatch, match="cannot be made here"):
        make_node(writer, "fresh")


def test_row_8_a_node_with_another_embedder_does_not_activate(writer: TestableWriter) -> None:
    manifest = writer.built()[-1]
    verified = writer.residence.assemble(manifest, to_canonical(manifest))
    entry = entry_of(manifest, to_canonical(manifest))
    record = with_published(writer.current().signed.record, entry, NOW)
    for other in (HashingEmbedder(DIMENSIONS + 1), PrecomputedEmbedder(DIMENSIONS)):
        with pytest.raises(EmbedderMismatch):
            pass_gate(verified, record, entry, other)


def test_row_8_an_embedder_of_the_same_name_that_embeds_otherwise_is_a_mismatch(
    writer: TestableWriter,
) -> None:
    class Drifted(HashingEmbedder):
        def embed(self, texts: object) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
            return -super().embed(texts)  # type: ignore[arg-type]

    manifest = writer.built()[-1]
    verified = writer.residence.assemble(manifest, to_canonical(manifest))
    entry = entry_of(manifest, to_canonical(manifest))
    record = with_published(writer.current().signed.record, entry, NOW)
    with pytest.raises(EmbedderMismatch) as caught:
        pass_gate(verified, record, entry, Drifted(DIMENSIONS))
    assert caught.value.facts["field"] == "golden"


def test_row_8_vectors_of_another_size_are_made_for_all_documents_and_refused_by_nodes(
    tmp_path: Path,
) -> None:
    writer = make_writer(tmp_path)
    add(writer, upserts(range(5)))
    node = make_node(writer)
    before = node.pointer()
    writer.settings = writer.settings.model_copy(update={"dimensions": 2 * DIMENSIONS})
    add(writer, upserts(range(5, 9)))
    built = writer.built()[-1]
    shards = built.of_kind(VectorArtifact)
    assert {shard.dimensions for shard in shards} == {2 * DIMENSIONS}
    assert sum(shard.vectors for shard in shards) == built.counts.documents == 9
    with pytest.raises(EmbedderMismatch):
        node.bootstrap()
    assert node.pointer() == before


def test_row_7_a_record_with_a_gap_stops_the_activation(writer: TestableWriter) -> None:
    manifest = writer.built()[-1]
    verified = writer.residence.assemble(manifest, to_canonical(manifest))
    entry = entry_of(manifest, to_canonical(manifest))
    record = with_published(writer.current().signed.record, entry, NOW)
    first, second = record.published
    torn = record.model_copy(
        update={"published": (first, second.model_copy(update={"low_seq": 3}))}
    )
    with pytest.raises(CommitRangeGap):
        gate(writer, verified, torn)


def test_a_lagging_node_may_jump_over_generations(tmp_path: Path) -> None:
    writer = make_writer(tmp_path)
    add(writer, upserts(range(3)))
    node = make_node(writer)
    for number in range(3, 6):
        add(writer, upserts([number]))
    assert node.bootstrap().pointer.active.high_seq == 4
    assert len(node.residence.resident_ids()) == 2
