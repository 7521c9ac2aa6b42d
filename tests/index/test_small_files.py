"""Head tables and tombstones: what is written is read, what is damaged is refused."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from index.heads import Head, HeadTable, head_table_parts
from index.tombstones import are_dead, read_tombstones, tombstone_bytes
from index.vector_shard import EXPANSION, VectorShard, write_shard
from manifests.errors import ActivationFailed
from tests.manifests import samples

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
HEADS = st.lists(st.builds(Head, TEXTS, TEXTS), min_size=1, max_size=30)
NOTHING_DEAD = np.empty(0, np.uint64)


def rows_from(first_row: int, count: int) -> NDArray[np.uint64]:
    return np.arange(first_row, first_row + count, dtype=np.uint64)


@given(heads=HEADS, first_row=st.integers(0, 2**40))
def test_heads_are_read_as_they_were_written(
    tmp_path_factory: pytest.TempPathFactory, heads: list[Head], first_row: int
) -> None:
    path = tmp_path_factory.mktemp("heads") / "table"
    path.write_bytes(b"".join(head_table_parts(heads)))
    table = HeadTable(path, first_row, len(heads))
    assert list(table) == list(enumerate(heads, first_row))
    assert table.rows.tolist() == list(range(first_row, first_row + len(heads)))


@given(
    heads=st.lists(st.builds(Head, TEXTS, TEXTS), min_size=1, max_size=30),
    first_row=st.integers(0, 2**40),
    gaps=st.lists(st.integers(1, 1000), min_size=30, max_size=30),
    before=st.integers(0, 1000),
)
def test_a_table_that_leaves_rows_out_knows_those_it_holds(
    tmp_path_factory: pytest.TempPathFactory,
    heads: list[Head],
    first_row: int,
    gaps: list[int],
    before: int,
) -> None:
    rows = first_row + before + np.cumsum([0, *gaps], dtype=np.uint64)[: len(heads)]
    path = tmp_path_factory.mktemp("heads") / "table"
    path.write_bytes(b"".join(head_table_parts(heads, rows)))
    table = HeadTable(path, first_row, len(heads))
    assert table.rows.tolist() == rows.tolist()
    assert list(table) == list(zip(rows.tolist(), heads, strict=True))
    assert [table.head(row) for row in rows.tolist()] == heads
    again = b"".join(head_table_parts(table.records(rows.tolist()), rows))
    assert again == path.read_bytes(), "records go from table to table as they are"


@pytest.mark.parametrize("rows", [[5, 5], [6, 5], [2, 5]], ids=["twice", "descending", "before"])
def test_a_table_whose_rows_are_not_its_own_fails_the_activation(
    tmp_path: Path, rows: list[int]
) -> None:
    path = tmp_path / "table"
    parts = head_table_parts([Head("a", "A"), Head("b", "B")], np.array(rows, np.uint64))
    path.write_bytes(b"".join(parts))
    with pytest.raises(ActivationFailed):
        HeadTable(path, 3, 2)


def damaged_tables() -> list[bytes]:
    whole = b"".join(head_table_parts([Head("a", "A"), Head("b", "B")]))
    return [whole[:-1], whole + b"\0", whole[:7], whole[:8], whole[:16], b"\0", b"\0" * 24]


@pytest.mark.parametrize("data", damaged_tables())
def test_a_table_that_cannot_hold_its_rows_fails_the_activation(
    tmp_path: Path, data: bytes
) -> None:
    path = tmp_path / "table"
    path.write_bytes(data)
    with pytest.raises(ActivationFailed):
        HeadTable(path, 0, 2)


@pytest.mark.parametrize("rows", [1, 3, 1000])
def test_a_table_of_other_rows_than_stated_fails_the_activation(tmp_path: Path, rows: int) -> None:
    path = tmp_path / "table"
    path.write_bytes(b"".join(head_table_parts([Head("a", "A" * 8000), Head("b", "B" * 9)])))
    with pytest.raises(ActivationFailed):
        HeadTable(path, 0, rows)


@given(st.lists(st.sets(st.integers(0, 2**63), max_size=20), max_size=4))
def test_tombstones_are_the_ascending_union_of_their_files(
    tmp_path_factory: pytest.TempPathFactory, files: list[set[int]]
) -> None:
    folder = tmp_path_factory.mktemp("tombstones")
    paths = []
    seen: set[int] = set()
    for number, rows in enumerate(files):
        path = folder / str(number)
        path.write_bytes(tombstone_bytes(rows - seen))
        paths.append(path)
        seen |= rows
    assert read_tombstones(paths).tolist() == sorted(seen)


def test_tombstones_are_little_endian_and_sorted() -> None:
    assert tombstone_bytes([258, 1]) == struct.pack("<QQ", 1, 258)


@given(st.sets(st.integers(0, 50), min_size=1), st.lists(st.integers(0, 60)))
def test_the_dead_are_those_among_the_tombstones(dead: set[int], rows: list[int]) -> None:
    tombstones = np.array(sorted(dead), np.uint64)
    found = are_dead(tombstones, np.array(rows, np.uint64))
    assert found.tolist() == [row in dead for row in rows]


@pytest.mark.parametrize("quantization", ["f32", "f16", "bf16", "i8"])
def test_a_shard_of_a_shards_vectors_is_the_same_file(tmp_path: Path, quantization: str) -> None:
    vectors = np.random.default_rng(6).standard_normal((3_000, 16)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    rows = rows_from(100, 3_000)
    write_shard(tmp_path / "one", rows, vectors, quantization)  # type: ignore[arg-type]
    shard = VectorShard(tmp_path / "one", samples.vectors(100, 3_000, 16), NOTHING_DEAD)
    write_shard(tmp_path / "two", rows, shard.vectors(rows), quantization)  # type: ignore[arg-type]
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


@pytest.mark.parametrize("quantization", ["f32", "f16", "bf16", "i8"])
def test_a_shard_gives_back_its_vectors_under_their_rows(tmp_path: Path, quantization: str) -> None:
    generator = np.random.default_rng(4)
    vectors = generator.standard_normal((50, 4)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    write_shard(tmp_path / "shard", rows_from(100, 50), vectors, quantization)  # type: ignore[arg-type]
    shard = VectorShard(tmp_path / "shard", samples.vectors(100, 50), NOTHING_DEAD)
    assert shard.live == 50
    for row, vector in enumerate(vectors, 100):
        stored = shard.vector(row)
        assert np.allclose(stored / np.linalg.norm(stored), vector, atol=0.02)
        rows, distances = shard.nearest(stored, 1)
        assert rows.tolist() == [row] or distances[0] < 1e-3


def test_a_broader_search_of_a_graph_finds_more(tmp_path: Path) -> None:
    generator = np.random.default_rng(8)
    vectors = generator.standard_normal((4_000, 64)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    write_shard(tmp_path / "shard", rows_from(0, 4_000), vectors, "f32")
    questions = generator.standard_normal((100, 64)).astype(np.float32)
    nearest = [set(np.argsort(-(vectors @ question))[:10].tolist()) for question in questions]
    found = []
    for expansion in (EXPANSION, 2 * EXPANSION):
        artifact = samples.vectors(0, 4_000, 64)
        shard = VectorShard(tmp_path / "shard", artifact, NOTHING_DEAD, expansion)
        answers = [set(shard.nearest(question, 10)[0].tolist()) for question in questions]
        found.append(sum(len(a & b) for a, b in zip(answers, nearest, strict=True)))
    assert found[0] < found[1] <= 1000


def test_a_shard_of_other_counts_than_stated_fails_the_activation(tmp_path: Path) -> None:
    vectors = np.eye(4, dtype=np.float32)
    write_shard(tmp_path / "shard", rows_from(0, 4), vectors, "f32")
    for artifact in (samples.vectors(0, 3), samples.vectors(0, 5), samples.vectors(0, 4, 5)):
        with pytest.raises(ActivationFailed):
            VectorShard(tmp_path / "shard", artifact, NOTHING_DEAD)


def test_the_dead_of_a_shard_are_never_answered(tmp_path: Path) -> None:
    generator = np.random.default_rng(5)
    vectors = generator.standard_normal((300, 4)).astype(np.float32)
    write_shard(tmp_path / "shard", rows_from(1000, 300), vectors, "f32")
    # The nearest 200 are dead: over-fetching by their share alone would not find one that lives.
    cosines = vectors @ vectors[0] / np.linalg.norm(vectors, axis=1)
    order = np.argsort(-cosines) + 1000
    dead = np.sort(order[:200]).astype(np.uint64)
    shard = VectorShard(tmp_path / "shard", samples.vectors(1000, 300), dead)
    assert shard.live == 100
    for limit in (1, 10, 100, 1000):
        rows, distances = shard.nearest(vectors[0], limit)
        assert rows.tolist() == order[200:][:limit].tolist()
        assert (np.diff(distances) >= 0).all()
