"""The control record: the signed statement of which generations exist and which one is active.

It travels as the ``custom`` of the TUF target ``control.json``; TUF's signatures, versions and
expiry are around it. The functions here are the only ones that make the next record from the one
before it, and the only place where a manifest is accepted because a record names it.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from manifests.canonical import Frozen
from manifests.errors import (
    BadSetting,
    CommitRangeGap,
    GenerationCollected,
    GenerationNotPublished,
    ManifestHashMismatch,
    ManifestIdentityMismatch,
    ManifestLengthMismatch,
    NothingPublished,
    UnsignedRollback,
)
from manifests.generation import GenerationManifest, parse_manifest
from manifests.identifiers import Blake3Hex, GenerationId, ShardName, content_id

SCHEMA_VERSION = 1
RecordKind = Literal["publish", "activate", "rollback", "revoke"]


class GenerationEntry(Frozen):
    """One published generation, as the record names it."""

    generation_id: GenerationId
    manifest_id: Blake3Hex
    manifest_size_bytes: int = Field(ge=1)
    low_seq: int = Field(ge=1)
    high_seq: int = Field(ge=1)
    parent_generation_id: GenerationId | None


class ControlRecord(Frozen):
    """Which generations exist, which are retained, and which one is active.

    ``published`` is in the order of ``high_seq`` and contiguous: each entry starts where its parent
    ends. ``retained`` names those that can still be read.
    """

    schema_version: Literal[1] = 1
    shard: ShardName
    kind: RecordKind
    reason: str | None = None
    writer_epoch: int = Field(ge=1)
    active: GenerationId | None = None
    published: tuple[GenerationEntry, ...] = ()
    retained: tuple[GenerationId, ...] = ()
    revoked: tuple[GenerationId, ...] = ()
    canary: int | None = Field(default=None, ge=1, le=100)

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


def with_published(record: ControlRecord, entry: GenerationEntry) -> ControlRecord:
    """The next record after publishing ``entry``; the active generation stays what it was.

    Raises:
        CommitRangeGap: the entry does not start where its parent, the newest published one, ends.
    """
    newest = record.published[-1] if record.published else None
    expected_low = newest.high_seq + 1 if newest else 1
    expected_parent = newest.generation_id if newest else None
    if entry.low_seq != expected_low or entry.parent_generation_id != expected_parent:
        raise CommitRangeGap(
            f"generation {entry.generation_id} starts at commit {entry.low_seq} after "
            f"{entry.parent_generation_id}, but the record expects {expected_low} after "
            f"{expected_parent}",
            generation_id=entry.generation_id,
            expected_low_seq=expected_low,
            found_low_seq=entry.low_seq,
        )
    return record.model_copy(
        update={
            "kind": "publish",
            "reason": None,
            "published": (*record.published, entry),
            "retained": (*record.retained, entry.generation_id),
        }
    )


def with_active(record: ControlRecord, generation_id: str) -> ControlRecord:
    """The next record that makes a published, newer generation the active one.

    Raises:
        GenerationNotPublished: it was never published.
        GenerationCollected: it is no longer retained.
        UnsignedRollback: it is older than the active one; that takes a rollback.
    """
    entry = _readable_entry(record, generation_id)
    if record.active is not None and entry.high_seq < record.active_entry().high_seq:
        raise UnsignedRollback(
            f"{generation_id} is older than the active {record.active}; "
            "use `genctl rollback --to` with a reason",
            generation_id=generation_id,
            active=record.active,
        )
    return record.model_copy(
        update={"kind": "activate", "reason": None, "active": entry.generation_id}
    )


def _readable_entry(record: ControlRecord, generation_id: str) -> GenerationEntry:
    entry = record.entry(generation_id)
    readable = record.retained_entries()
    if entry not in readable:
        span = f"{readable[0].high_seq} to {readable[-1].high_seq}" if readable else "nothing"
        raise GenerationCollected(
            f"{generation_id} is not retained any more; what can be read is as of {span}",
            generation_id=generation_id,
        )
    return entry


def with_rollback(record: ControlRecord, generation_id: str, reason: str) -> ControlRecord:
    """The next record that goes back to an older generation: newer in version, older in content.

    Raises:
        GenerationNotPublished: it was never published.
        GenerationCollected: it is no longer retained.
        BadSetting: it is newer than the active one; that takes an activation.
    """
    entry = _readable_entry(record, generation_id)
    if entry.high_seq > record.active_entry().high_seq:
        raise BadSetting(
            f"{generation_id} is newer than the active {record.active}; use `genctl activate`",
            generation_id=generation_id,
            active=record.active,
        )
    return record.model_copy(update={"kind": "rollback", "reason": reason, "active": generation_id})


def rolled_back_from(record: ControlRecord, generation_id: str) -> bool:
    """Whether the record is a rollback that went behind this generation.

    A release that finds nothing new must not undo it; naming the generation to ``activate`` may.
    """
    return (
        record.kind == "rollback"
        and record.active is not None
        and any(
            entry.generation_id == generation_id and entry.high_seq > record.active_entry().high_seq
            for entry in record.published
        )
    )


def rollback_target(record: ControlRecord) -> str:
    """The generation a rollback goes to when none is named: the retained one before the active.

    Raises:
        NothingPublished: there is none before it.
    """
    active = record.active_entry()
    older = [entry for entry in record.retained_entries() if entry.high_seq < active.high_seq]
    if not older:
        raise NothingPublished(
            f"there is no retained generation before the active {active.generation_id}",
            generation_id=active.generation_id,
        )
    return older[-1].generation_id


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
