"""A generation that is intact but wrong is not activated: rows 7, 8 and 60."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from activator.gate import pass_gate
from controller.node import NodeHome
from index.embedding import HashingEmbedder, PrecomputedEmbedder
from index.verification import VerifiedGeneration
from manifests.canonical import to_canonical
from manifests.errors import (
    ActivationFailed,
    CommitRangeGap,
    EmbedderMismatch,
    GenctlError,
    ManifestIncomplete,
)
from manifests.generation import (
    INVARIANTS,
    Activation,
    Counts,
    GenerationBody,
    GenerationManifest,
    GoldenQuery,
    seal,
)
from manifests.record import ControlRecord, entry_of, with_published
from manifests.vectors import vector_to_text
from query.request import Request
from tests.support.corpus import DIMENSIONS, delete, upserts
from tests.support.homes import TestableWriter, add, built, make_node, make_writer, release

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
    pass_gate(verified, record or with_published(base, entry), entry, writer.embedder())


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


def test_row_8_a_node_with_another_embedder_does_not_activate(writer: TestableWriter) -> None:
    manifest = writer.built()[-1]
    verified = writer.residence.assemble(manifest, to_canonical(manifest))
    entry = entry_of(manifest, to_canonical(manifest))
    record = with_published(writer.current().signed.record, entry)
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
    record = with_published(writer.current().signed.record, entry)
    with pytest.raises(EmbedderMismatch) as caught:
        pass_gate(verified, record, entry, Drifted(DIMENSIONS))
    assert caught.value.facts["field"] == "golden"


def test_row_8_a_writer_whose_settings_were_changed_builds_nothing(
    tmp_path: Path,
) -> None:
    writer = make_writer(tmp_path)
    add(writer, upserts(range(5)))
    node = make_node(writer)
    # Somebody edits the writer's settings: what would be built mixes two sizes of vectors.
    writer.settings = writer.settings.model_copy(update={"dimensions": 2 * DIMENSIONS})
    with pytest.raises(ManifestIncomplete):
        add(writer, upserts(range(5, 9)))
    assert len(writer.residence.resident_ids()) == 1
    assert not node.bootstrap().activated


def test_row_7_a_record_with_a_gap_stops_the_activation(writer: TestableWriter) -> None:
    manifest = writer.built()[-1]
    verified = writer.residence.assemble(manifest, to_canonical(manifest))
    entry = entry_of(manifest, to_canonical(manifest))
    record = with_published(writer.current().signed.record, entry)
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
