"""What a node's home promises beyond its parts."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from controller import settings
from controller.node import NodeHome
from index.embedding import HashingEmbedder
from index.residence import Residence
from manifests.errors import (
    BadQuery,
    EmbedderMismatch,
    MetadataRollback,
    NothingPublished,
    StoreUnavailable,
)
from manifests.generation import Quantization
from query.request import Request
from tests.support.homes import TestableWriter, add, make_node, make_writer, new_node

WORD = Request(text="word", mode="lexical")


@pytest.fixture
def writer(tmp_path: Path) -> TestableWriter:
    return make_writer(tmp_path)


def numbered(first: int, count: int) -> list[dict[str, str]]:
    return [{"id": f"d{n}", "text": "word"} for n in range(first, first + count)]


def test_a_lagging_node_asks_the_store_before_it_answers_for_a_later_time(
    writer: TestableWriter,
) -> None:
    add(writer, numbered(0, 1))
    node = make_node(writer)
    second = add(writer, numbered(1, 1))
    add(writer, numbered(2, 1))
    answer = node.query(node.reader(), WORD, as_of_commit_seq=2)
    assert answer.generation_id == second.generation_id
    assert node.pointer().active.high_seq == 1


def test_a_node_that_cannot_ask_the_store_does_not_guess_what_a_later_time_held(
    writer: TestableWriter,
) -> None:
    add(writer, numbered(0, 1))
    node = make_node(writer)
    shutil.rmtree(writer.settings.stores[0])
    assert node.query(node.reader(), WORD, as_of_commit_seq=1).commit_seq == 1
    with pytest.raises(StoreUnavailable):
        node.query(node.reader(), WORD, as_of_commit_seq=9)
    assert node.query(node.reader(), WORD).commit_seq == 1


def test_rolling_a_node_back_twice_is_rolling_it_back_once(writer: TestableWriter) -> None:
    add(writer, numbered(0, 1))
    node = make_node(writer)
    second = add(writer, numbered(1, 1))
    node.bootstrap()
    third = add(writer, numbered(2, 1))
    node.bootstrap()
    for _ in range(2):
        pointer = node.rollback()
        assert pointer.active == second
        assert pointer.held_back == third.generation_id


def test_a_node_never_rolls_back_to_what_the_record_rolled_back_from(
    writer: TestableWriter,
) -> None:
    first = add(writer, numbered(0, 1))
    node = make_node(writer)
    add(writer, numbered(1, 1))
    node.bootstrap()
    writer.rollback(None, "wrong")
    node.bootstrap()
    assert node.pointer().active == first
    with pytest.raises(NothingPublished):
        node.rollback()
    assert node.pointer().active == first


def test_a_bootstrap_that_replaces_no_artifact_reads_no_manifest_but_that_of_the_active_one(
    writer: TestableWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(writer, numbered(0, 1))
    node = make_node(writer)
    for number in (1, 2):
        add(writer, numbered(number, 1))
        node.bootstrap()
    read: set[str] = set()
    manifest_bytes = Residence.manifest_bytes

    def noting(residence: Residence, generation_id: str) -> bytes:
        read.add(generation_id)
        return manifest_bytes(residence, generation_id)

    monkeypatch.setattr(Residence, "manifest_bytes", noting)
    assert not node.bootstrap().activated
    assert read == {node.pointer().active.generation_id}


def test_rot_in_a_shared_artifact_is_mended_for_every_generation_that_has_it(
    writer: TestableWriter,
) -> None:
    first = add(writer, numbered(0, 3))
    node = make_node(writer)
    add(writer, numbered(3, 1))
    node.bootstrap()
    name = "vectors/000000000000.usearch"
    rotten = node.residence.folder(first.generation_id) / name
    with rotten.open("r+b") as file:
        file.seek(200)
        file.write(b"\xff\x00\xff")
    node.bootstrap()
    assert node.query(node.reader(), WORD, as_of_commit_seq=1).commit_seq == 1


def test_a_lost_manifest_is_fetched_again(writer: TestableWriter) -> None:
    entry = add(writer, numbered(0, 3))
    node = make_node(writer)
    (node.residence.generations / entry.generation_id / "manifest.json").unlink()
    node.bootstrap()
    assert len(node.query(node.reader(), WORD).hits) == 3


def test_row_15_a_refused_record_leaves_no_trace(writer: TestableWriter, tmp_path: Path) -> None:
    add(writer, numbered(0, 1))
    old = tmp_path / "old"
    shutil.copytree(writer.settings.stores[0], old)
    second = add(writer, numbered(1, 1))
    node = make_node(writer)
    shutil.rmtree(writer.settings.stores[0])
    shutil.copytree(old, writer.settings.stores[0])
    for role in ("timestamp", "snapshot", "targets"):
        (node.home / "trust" / f"{role}.json").unlink()
    with pytest.raises(MetadataRollback):
        node.bootstrap()
    assert not (node.home / "trust" / "targets.json").exists()
    assert node.pointer().active == second


def test_row_8_a_query_is_not_embedded_with_something_else(
    writer: TestableWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(writer, numbered(0, 3))
    node = make_node(writer)
    other = HashingEmbedder(writer.settings.dimensions)
    other.revision = "0" * 64
    monkeypatch.setattr(NodeHome, "embedder", lambda _: other)
    assert node.query(node.reader(), WORD).hits, "words need no embedder"
    with pytest.raises(EmbedderMismatch):
        node.query(node.reader(), Request(text="word"))


def test_a_generation_that_is_refused_does_not_bind_the_node(
    writer: TestableWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(writer, numbered(0, 3))
    node = new_node(writer)
    other = HashingEmbedder(writer.settings.dimensions)
    other.revision = "0" * 64
    monkeypatch.setattr(NodeHome, "_embedder_for", lambda *_: other)
    with pytest.raises(EmbedderMismatch):
        node.bootstrap()
    saved = settings.load(node.home / "node.json", settings.NodeSettings, "a node")
    assert saved.embedder is None


def test_documents_alike_in_text_and_vector_pass_the_gate_after_most_are_deleted(
    writer: TestableWriter,
) -> None:
    add(writer, [{"id": f"d{n}", "text": "same text"} for n in range(1_000)])
    add(writer, [{"id": f"d{n}", "op": "delete"} for n in range(1_000) if n % 10])
    node = make_node(writer)
    assert (
        len(node.query(node.reader(), Request(text="same", mode="lexical", limit=500)).hits) == 100
    )


@pytest.mark.parametrize(
    "text",
    ["हिन्दी भाषा", "தமிழ்", "مُحَمَّد", "İstanbul", "Ⓐ", "日本語", "naïve", "O'Brien", "don’t", "AND"],
)
def test_a_text_in_any_script_finds_its_own_document(writer: TestableWriter, text: str) -> None:
    add(writer, [{"id": "it", "text": text}, {"id": "other", "text": "something else"}])
    node = make_node(writer)
    answer = node.query(node.reader(), Request(text=text, mode="lexical"))
    assert [hit.id for hit in answer.hits] == ["it"]


def test_equal_vectors_do_not_hide_the_others(tmp_path: Path) -> None:
    writer = make_writer(tmp_path, dimensions=64)
    same = [{"id": f"s{n}", "text": "same text"} for n in range(800)]
    own = [{"id": f"u{n}", "text": f"word{n} term{n * 7} name{n * 13}"} for n in range(400)]
    add(writer, [*same, *own])
    node = make_node(writer)
    reader = node.reader()
    for document in own[::20]:
        request = Request(text=document["text"], mode="vector", limit=1)
        assert [hit.id for hit in node.query(reader, request).hits] == [document["id"]]


@pytest.mark.parametrize("quantization", ["bf16", "f16", "f32", "i8"])
@pytest.mark.parametrize("length", [1e-12, 1.0, 1e12])
def test_the_length_of_a_vector_changes_no_answer(
    tmp_path: Path, quantization: Quantization, length: float
) -> None:
    writer = make_writer(tmp_path, embedder="precomputed", dimensions=8, quantization=quantization)
    vectors = np.random.default_rng(3).standard_normal((40, 8)) * length
    add(writer, [{"id": f"d{n}", "vector": v.tolist()} for n, v in enumerate(vectors)])
    node = make_node(writer)
    for n, vector in enumerate(vectors):
        request = Request(vector=vector.astype(np.float32), limit=1)
        (hit,) = node.query(node.reader(), request).hits
        assert hit.id == f"d{n}"
        assert hit.score == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize("text", ["(" * 10_000 + "fox" + ")" * 10_000, "NOT " * 2_000 + "fox"])
def test_a_query_in_syntax_is_bounded(writer: TestableWriter, text: str) -> None:
    add(writer, numbered(0, 1))
    node = make_node(writer)
    with pytest.raises(BadQuery, match="at most"):
        node.query(node.reader(), Request(text=text, mode="lexical", syntax=True))


def test_a_query_that_is_no_unicode_is_bad(writer: TestableWriter) -> None:
    add(writer, numbered(0, 1))
    node = make_node(writer)
    with pytest.raises(BadQuery, match="Unicode"):
        node.query(node.reader(), Request(text="\udcff fox"))
