"""The control record: the signed statement of which generations exist and which one is active.

It travels as the ``custom`` of the TUF target ``control.json``; TUF's signatures, versions and
expiry are around it. Here is the only place where a manifest is accepted because a record names it;
the next record is made from the one before it in :mod:`manifests.record_changes`.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer

from manifests.canonical import Frozen
from manifests.errors import (
    CommitRangeGap,
    GenerationCollected,
    GenerationNotPublished,
    ManifestHashMismatch,
    ManifestIdentityMismatch,
    ManifestLengthMismatch,
    NothingPublished,
)
from manifests.generation import GenerationManifest, Positive, parse_manifest
from manifests.identifiers import Blake3Hex, GenerationId, ShardName, content_id

SCHEMA_VERSION = 2
RecordKind = Literal["publish", "activate", "rollback", "revoke"]


class GenerationEntry(Frozen):
    """One published generation, as the record names it."""

    generation_id: GenerationId
    manifest_id: Blake3Hex
    manifest_size_bytes: int = Field(ge=1)
    low_seq: int = Field(ge=1)
    high_seq: int = Field(ge=1)
    parent_generation_id: GenerationId | None


class EmbedderOverride(Frozen):
    """Leave to activate one generation on nodes that are bound to another embedder than its own.

    It names that generation's embedder; a node must make the same itself, golden vectors included.
    """

    generation_id: GenerationId
    name: str
    revision: Blake3Hex
    dimensions: Positive
    reason: str


class ControlRecord(Frozen):
    """Which generations exist, which are retained, and which one is active.

    ``published`` is in the order of ``high_seq`` and contiguous: each entry starts where its parent
    ends. ``retained`` names those that can still be read. ``rolled_back_from`` is the newest
    generation that a rollback went behind, until it or a newer one is activated: without it nothing
    may go back. A record of schema version 1 has neither that field nor ``embedder_overrides``; it
    is read and written as such until it is given one of them.
    """

    schema_version: Literal[1, 2] = 2
    shard: ShardName
    kind: RecordKind
    reason: str | None = None
    writer_epoch: int = Field(ge=1)
    active: GenerationId | None = None
    published: tuple[GenerationEntry, ...] = ()
    retained: tuple[GenerationId, ...] = ()
    revoked: tuple[GenerationId, ...] = ()
    canary: int | None = Field(default=None, ge=1, le=100)
    embedder_overrides: tuple[EmbedderOverride, ...] = ()
    rolled_back_from: GenerationId | None = None

    @model_serializer(mode="wrap")
    def _as_of_its_version(self, fields: SerializerFunctionWrapHandler) -> dict[str, Any]:
        document: dict[str, Any] = fields(self)
        if self.schema_version == 1:
            del document["embedder_overrides"], document["rolled_back_from"]
        return document

    def override_of(self, generation_id: str) -> EmbedderOverride | None:
        """The embedder override of a generation, if one was signed."""
        return next(
            (each for each in self.embedder_overrides if each.generation_id == generation_id), None
        )

    def entry(self, generation_id: str) -> GenerationEntry:
        """The entry of a published generation.

        Raises:
            GenerationNotPublished: the record does not list it.
        """
        for entry in self.published:
            if entry.generation_id == generation_id:
                return entry
        raise GenerationNotPublished(
            f"generation {generation_id} is not in the signed record; `genctl generations` lists "
            "what is, `genctl publish` adds what was built",
            generation_id=generation_id,
        )

    def active_entry(self) -> GenerationEntry:
        """The entry of the active generation.

        Raises:
            NothingPublished: no generation was ever activated.
        """
        if self.active is None:
            raise NothingPublished(
                f"shard {self.shard} has no active generation yet; run `genctl release` at the "
                "writer first",
                shard=self.shard,
            )
        return self.entry(self.active)

    def retained_entries(self) -> list[GenerationEntry]:
        """The entries that can still be read, oldest first."""
        readable = set(self.retained) - set(self.revoked)
        return [entry for entry in self.published if entry.generation_id in readable]

    def as_of(self, commit_seq: int) -> GenerationEntry:
        """The generation a read ``as_of_commit_seq`` sees: the greatest ``high_seq`` not above it.

        Raises:
            GenerationCollected: every retained generation is newer; gives the retained range.
            NothingPublished: there is no generation at all.
        """
        entries = self.retained_entries()
        if not entries:
            raise NothingPublished(f"shard {self.shard} has no retained generation")
        fitting = [entry for entry in entries if entry.high_seq <= commit_seq]
        if fitting:
            return max(fitting, key=lambda entry: entry.high_seq)
        raise GenerationCollected(
            f"no retained generation is as old as commit_seq {commit_seq}; reads are possible "
            f"as of {entries[0].high_seq} to {entries[-1].high_seq}",
            as_of_commit_seq=commit_seq,
            retained_low_seq=entries[0].high_seq,
            retained_high_seq=entries[-1].high_seq,
        )


def entry_of(manifest: GenerationManifest, manifest_bytes: bytes) -> GenerationEntry:
    """The entry under which a record names this manifest."""
    return GenerationEntry(
        generation_id=manifest.generation_id,
        manifest_id=content_id(manifest_bytes),
        manifest_size_bytes=len(manifest_bytes),
        low_seq=manifest.commits.low_seq,
        high_seq=manifest.commits.high_seq,
        parent_generation_id=manifest.commits.parent_generation_id,
    )


def accept_manifest(data: bytes, entry: GenerationEntry, shard: str) -> GenerationManifest:
    """Prove manifest bytes against the record's entry and read them. Length, hash, then parse.

    Raises:
        ManifestLengthMismatch: empty, truncated or too long.
        ManifestHashMismatch: any byte differs from what was signed.
        ManifestIdentityMismatch: it is another generation's, or another shard's.
        CommitRangeGap: its commits are not those the record says.
        ManifestMalformed, SchemaTooNew, UnsafeArtifactName: see :func:`parse_manifest`.
    """
    facts = {"generation_id": entry.generation_id, "manifest_id": entry.manifest_id}
    if len(data) != entry.manifest_size_bytes:
        raise ManifestLengthMismatch(
            f"the manifest of {entry.generation_id} has {len(data)} bytes; the record says "
            f"{entry.manifest_size_bytes}",
            **facts,
        )
    if content_id(data) != entry.manifest_id:
        raise ManifestHashMismatch(
            f"the manifest of {entry.generation_id} hashes to {content_id(data)}; the record says "
            f"{entry.manifest_id}",
            **facts,
        )
    manifest = parse_manifest(data)
    if manifest.generation_id != entry.generation_id or manifest.shard != shard:
        raise ManifestIdentityMismatch(
            f"the record's {entry.generation_id} of shard {shard} is, by its manifest, "
            f"{manifest.generation_id} of shard {manifest.shard}",
            **facts,
        )
    if entry_of(manifest, data) != entry:
        raise CommitRangeGap(
            f"the manifest of {entry.generation_id} covers commits {manifest.commits.low_seq} to "
            f"{manifest.commits.high_seq}; the record says {entry.low_seq} to {entry.high_seq}",
            **facts,
        )
    return manifest
