"""The generation manifest: the one document that lists all that a generation is.

Its fields are in section 5 of docs/format.md. Each model is frozen and refuses unknown fields; a
manifest is made by the builder, proven against the signed record by
:func:`manifests.record.accept_manifest`, and read by everybody else.
"""

from __future__ import annotations

from typing import Annotated, Literal, TypeVar

from pydantic import Field, model_validator

from manifests.canonical import Frozen, parse_document, to_canonical
from manifests.errors import ManifestIdentityMismatch
from manifests.identifiers import Blake3Hex, GenerationId, ShardName, content_id, generation_id
from manifests.names import check_artifact_names

SCHEMA_VERSION = 2

Count = Annotated[int, Field(ge=0)]
Positive = Annotated[int, Field(ge=1)]
Quantization = Literal["bf16", "f16", "f32", "i8"]
A = TypeVar("A", bound="ArtifactFile")


class CommitRange(Frozen):
    """The commits a generation added to its parent: contiguous, both ends included."""

    low_seq: Positive
    high_seq: Positive
    head_commit_id: Blake3Hex
    parent_generation_id: GenerationId | None

    @model_validator(mode="after")
    def _ordered(self) -> CommitRange:
        if self.low_seq > self.high_seq:
            raise ValueError(f"low_seq {self.low_seq} is above high_seq {self.high_seq}")
        if (self.low_seq == 1) != (self.parent_generation_id is None):
            raise ValueError("exactly the generation that starts at commit 1 has no parent")
        return self


class GoldenEmbedding(Frozen):
    """A text and the vector the writer's embedder gave it (base64 of little-endian float32)."""

    text: str
    vector: str


class EmbedderRecord(Frozen):
    """What the documents were embedded with; a node must embed queries with the same."""

    name: str
    revision: Blake3Hex
    dimensions: Positive
    golden: tuple[GoldenEmbedding, ...]


class SymbolSet(Frozen):
    """How an artifact is erasure-coded: any ``k`` of its ``m`` symbols rebuild it."""

    k: Annotated[int, Field(ge=1, le=255)]
    m: Annotated[int, Field(ge=2, le=256)]
    symbol_size_bytes: Positive
    chunk_size_bytes: Positive
    table_blake3: Blake3Hex
    overhead_percent: Count
    survives: str

    @model_validator(mode="after")
    def _spare(self) -> SymbolSet:
        if self.m <= self.k:
            raise ValueError(f"m={self.m} leaves no repair symbol beside k={self.k}")
        return self


class ArtifactFile(Frozen):
    """What every artifact has: a name inside the generation, a size, an id, and its symbols."""

    name: str
    size_bytes: Positive
    blake3: Blake3Hex
    symbols: SymbolSet


class LexicalArtifact(ArtifactFile):
    """One file of the tantivy index: ``meta.json`` or a part of a segment."""

    kind: Literal["lexical"] = "lexical"


class VectorArtifact(ArtifactFile):
    """One usearch shard; its keys are rows from ``first_row`` up to the next shard's.

    It has one vector for each of them, but for those that a merge dropped because they were dead.
    """

    kind: Literal["vectors"] = "vectors"
    first_row: Count
    vectors: Positive
    dimensions: Positive
    quantization: Quantization
    metric: Literal["cos"]


class HeadsArtifact(ArtifactFile):
    """The ids and titles of ``rows`` rows, from ``first_row`` up to the next table's.

    It has all of them, but for those that a merge dropped because they were dead.
    """

    kind: Literal["heads"] = "heads"
    first_row: Count
    rows: Positive


class TombstonesArtifact(ArtifactFile):
    """Rows that were taken out, and that no merge has dropped: little-endian uint64, ascending."""

    kind: Literal["tombstones"] = "tombstones"
    rows: Positive


Artifact = Annotated[
    LexicalArtifact | VectorArtifact | HeadsArtifact | TombstonesArtifact,
    Field(discriminator="kind"),
]


class LexicalSettings(Frozen):
    """How text becomes terms, and which library's files hold them."""

    library: str
    analyzer: str
    fields: tuple[str, ...]


class Counts(Frozen):
    """How many documents there are, and how many rows were ever handed out to reach them.

    The rows that are neither documents nor tombstones are those that merges dropped.
    """

    documents: Count
    rows: Count
    tombstones: Count

    @property
    def dropped(self) -> int:
        """How many rows no artifact holds any more."""
        return self.rows - self.tombstones - self.documents

    @model_validator(mode="after")
    def _balanced(self) -> Counts:
        if self.dropped < 0:
            raise ValueError(
                f"{self.rows} rows are fewer than {self.documents} documents and "
                f"{self.tombstones} tombstones"
            )
        return self


class GoldenQuery(Frozen):
    """A query that must find ``expected_id`` among its first ten hits after activation."""

    mode: Literal["lexical", "vector"]
    text: str | None
    vector: str | None
    expected_id: str


Invariant = Literal[
    "artifacts_verified",
    "counts_agree",
    "commit_range_continuous",
    "embedder_matches",
    "golden_queries_answered",
]
INVARIANTS: tuple[Invariant, ...] = (
    "artifacts_verified",
    "counts_agree",
    "commit_range_continuous",
    "embedder_matches",
    "golden_queries_answered",
)


class Activation(Frozen):
    """The all-or-nothing predicates a node checks before the swap. None can be switched off."""

    invariants: tuple[Invariant, ...]
    golden_queries: tuple[GoldenQuery, ...]

    @model_validator(mode="after")
    def _complete(self) -> Activation:
        if self.invariants != INVARIANTS:
            raise ValueError("the activation invariants of this schema are all mandatory")
        return self


class GenerationBody(Frozen):
    """A manifest without its id: what the id is computed from.

    Schema version 1 is the same without merges: no row is ever dropped.
    """

    schema_version: Literal[1, 2] = 2
    shard: ShardName
    built_at: str
    commits: CommitRange
    embedder: EmbedderRecord
    lexical: LexicalSettings
    counts: Counts
    artifacts: tuple[Artifact, ...]
    activation: Activation

    @model_validator(mode="after")
    def _safe_names(self) -> GenerationBody:
        names = [artifact.name for artifact in self.artifacts]
        check_artifact_names(names)
        if names != sorted(names):
            raise ValueError("the artifacts are not in the order of their names")
        return self

    @model_validator(mode="after")
    def _dropped_by_merges(self) -> GenerationBody:
        if self.schema_version == 1 and self.counts.dropped:
            raise ValueError(
                f"{self.counts.rows} rows less {self.counts.tombstones} tombstones are not "
                f"{self.counts.documents} documents"
            )
        return self


class GenerationManifest(GenerationBody):
    """A whole manifest. Make one with :func:`seal`, read one with :func:`parse_manifest`."""

    generation_id: GenerationId

    @property
    def size_bytes(self) -> int:
        """The size of all artifacts, without symbols."""
        return sum(artifact.size_bytes for artifact in self.artifacts)

    def of_kind(self, kind: type[A]) -> list[A]:
        """The artifacts of one kind, in the order of their names."""
        return [artifact for artifact in self.artifacts if isinstance(artifact, kind)]


def seal(body: GenerationBody) -> GenerationManifest:
    """Give ``body`` its id, which is computed from everything else in it."""
    fields = dict(body)
    identity = generation_id(body.commits.high_seq, content_id(to_canonical(body)))
    return GenerationManifest(**fields, generation_id=identity)


def parse_manifest(data: bytes) -> GenerationManifest:
    """Read a manifest from its exact bytes, strictly.

    Raises:
        ManifestMalformed: the bytes are not the canonical form of a manifest.
        SchemaTooNew: a newer genctl wrote it.
        ManifestIdentityMismatch: its id is not the one its content has.
        UnsafeArtifactName: an artifact's name must not be written here.
    """
    manifest = parse_document(data, GenerationManifest, SCHEMA_VERSION)
    body = GenerationBody(**{name: getattr(manifest, name) for name in GenerationBody.model_fields})
    if seal(body).generation_id != manifest.generation_id:
        raise ManifestIdentityMismatch(
            f"the manifest calls itself {manifest.generation_id}, but its content is "
            f"{seal(body).generation_id}",
            generation_id=manifest.generation_id,
        )
    return manifest
