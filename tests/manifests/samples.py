"""A small manifest and a record, written by hand: no index was built for them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Literal

from manifests.canonical import to_canonical
from manifests.generation import (
    INVARIANTS,
    Activation,
    Artifact,
    CommitRange,
    Counts,
    EmbedderRecord,
    GenerationBody,
    GenerationManifest,
    GoldenEmbedding,
    GoldenQuery,
    HeadsArtifact,
    LexicalArtifact,
    LexicalSettings,
    SymbolSet,
    TombstonesArtifact,
    VectorArtifact,
    seal,
)
from manifests.identifiers import content_id
from manifests.record import ControlRecord, GenerationEntry, entry_of
from manifests.record_changes import with_active, with_published
from manifests.vectors import vector_to_text

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
SYMBOLS = SymbolSet(
    k=1,
    m=2,
    symbol_size_bytes=100,
    chunk_size_bytes=1 << 20,
    table_blake3=content_id(b"table"),
    overhead_percent=100,
    survives="any 1 of 2 symbols",
)


def lexical(name: str = "lexical/meta.json") -> LexicalArtifact:
    return LexicalArtifact(
        name=name, size_bytes=100, blake3=content_id(name.encode()), symbols=SYMBOLS
    )


def heads(first_row: int, rows: int) -> HeadsArtifact:
    name = f"heads/{first_row:012d}.heads"
    return HeadsArtifact(
        name=name,
        size_bytes=100,
        blake3=content_id(name.encode()),
        symbols=SYMBOLS,
        first_row=first_row,
        rows=rows,
    )


def vectors(first_row: int, count: int, dimensions: int = 4) -> VectorArtifact:
    name = f"vectors/{first_row:012d}.usearch"
    return VectorArtifact(
        name=name,
        size_bytes=100,
        blake3=content_id(name.encode()),
        symbols=SYMBOLS,
        first_row=first_row,
        vectors=count,
        dimensions=dimensions,
        quantization="bf16",
        metric="cos",
    )


def tombstones(high_seq: int, rows: int) -> TombstonesArtifact:
    name = f"tombstones/{high_seq:012d}.rows"
    return TombstonesArtifact(
        name=name, size_bytes=8 * rows, blake3=content_id(name.encode()), symbols=SYMBOLS, rows=rows
    )


EMBEDDER = EmbedderRecord(
    name="hashing",
    revision=content_id(b"revision"),
    dimensions=4,
    golden=(GoldenEmbedding(text="café — 日本語", vector=vector_to_text([0.5, -0.5, 0.5, -0.5])),),
)
ARTIFACTS: tuple[Artifact, ...] = (
    heads(0, 5),
    heads(5, 2),
    lexical("lexical/0123456789abcdef.idx"),
    lexical(),
    tombstones(9, 3),
    vectors(0, 5),
    vectors(5, 2),
)


def body(
    *,
    low_seq: int = 1,
    high_seq: int = 9,
    parent: str | None = None,
    shard: str = "main",
    artifacts: tuple[Artifact, ...] = ARTIFACTS,
    counts: Counts | None = None,
    embedder: EmbedderRecord = EMBEDDER,
    schema_version: Literal[1, 2] = 2,
) -> GenerationBody:
    return GenerationBody(
        schema_version=schema_version,
        shard=shard,
        built_at="2024-05-06T07:08:09+00:00",
        commits=CommitRange(
            low_seq=low_seq,
            high_seq=high_seq,
            head_commit_id=content_id(f"commit {high_seq}".encode()),
            parent_generation_id=parent,
        ),
        embedder=embedder,
        lexical=LexicalSettings(
            library="tantivy 0.27", analyzer="en_stem", fields=("body", "id", "row", "document")
        ),
        counts=counts or Counts(documents=4, rows=7, tombstones=3),
        artifacts=artifacts,
        activation=Activation(
            invariants=INVARIANTS,
            golden_queries=(
                GoldenQuery(mode="lexical", text="glacier", vector=None, expected_id="d1"),
            ),
        ),
    )


def manifest() -> GenerationManifest:
    return seal(body())


def merged_manifest() -> GenerationManifest:
    """One in which merges dropped three rows."""
    artifacts = (heads(0, 5), heads(8, 2), lexical(), tombstones(9, 3), vectors(0, 5))
    return seal(
        body(
            artifacts=(*artifacts, vectors(7, 2)),
            counts=Counts(documents=4, rows=10, tombstones=3),
        )
    )


def entries(*high_seqs: int) -> list[GenerationEntry]:
    """Entries of generations that follow one another and end at these commits."""
    found: list[GenerationEntry] = []
    for high_seq in high_seqs:
        sealed = seal(
            body(
                low_seq=found[-1].high_seq + 1 if found else 1,
                high_seq=high_seq,
                parent=found[-1].generation_id if found else None,
                schema_version=1,
            )
        )
        found.append(entry_of(sealed, to_canonical(sealed)))
    return found


def record(*high_seqs: int, active: int | None = None) -> ControlRecord:
    """A record with generations that end at these commits, the last or ``active`` being active."""
    made = ControlRecord(shard="main", kind="publish", writer_epoch=1)
    for entry in entries(*high_seqs):
        made = with_published(made, entry, NOW)
        if active is None or entry.high_seq == active:
            made = with_active(made, entry.generation_id)
    return made
