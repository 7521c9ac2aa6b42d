"""The control record: the signed statement of which generations exist and which one is active.

It travels as the ``custom`` of the TUF target ``control.json``; TUF's signatures, versions and
expiry are around it. Here is the only place where a manifest is accepted because a record names it;
the next record is made from the one before it in :mod:`manifests.record_changes`.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    Field,
    SerializerFunctionWrapHandler,
    StringConstraints,
    model_serializer,
)

from manifests.canonical import Frozen
from manifests.errors import (
    CommitRangeGap,
    GenerationCollected,
    GenerationNotPublished,
    GenerationRevoked,
    ManifestHashMismatch,
    ManifestIdentityMismatch,
    ManifestLengthMismatch,
    NothingPublished,
)
from manifests.generation import GenerationManifest, Positive, parse_manifest
from manifests.identifiers import (
    Blake3Hex,
    GenerationId,
    ShardName,
    content_id,
    high_seq_of,
)

SCHEMA_VERSION = 3
RecordKind = Literal["publish", "activate", "rollback", "revoke"]


def _is_time(text: str) -> str:
    datetime.fromisoformat(text)  # raises a ValueError for the 31st of February
    return text


TagName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9._-]{0,62}$")]
UtcTime = Annotated[
    str,
    StringConstraints(pattern=r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z$"),
    AfterValidator(_is_time),
]
_FIELDS_SINCE_2 = ("embedder_overrides", "rolled_back_from")
_FIELDS_SINCE_3 = ("passed_over", "published_at", "tags", "pins", "collected", "collecting")


def utc_text(time: datetime) -> str:
    """A time as records give it: UTC, to the second, RFC 3339."""
    # strftime writes the year 999 in three digits, and texts are compared.
    return f"{time.astimezone(UTC).replace(tzinfo=None).isoformat(timespec='seconds')}Z"


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


class Tag(Frozen):
    """A name for a generation, which is retained while it has one."""

    name: TagName
    generation_id: GenerationId


class Pin(Frozen):
    """Somebody's word that a generation is to be retained, and why."""

    generation_id: GenerationId
    reason: str


class CollectedCommits(Frozen):
    """Commits of generations that are no longer published, first and last."""

    low_seq: int = Field(ge=1)
    high_seq: int = Field(ge=1)


class ControlRecord(Frozen):
    """Which generations exist, which are retained, and which one is active.

    A record of an older schema version has not the fields that came later; it is read and written
    as such until it is given one of them.

    Attributes:
        published: in the order of ``high_seq``. Together with ``collected`` they hold every commit
            once, and each entry that follows another directly starts where that, its parent, ends.
        retained: those of them that can still be read.
        revoked: those that must not be read or activated, whether or not they are retained. They
            stay here when they are collected: a node that was away meanwhile may have them still.
        rolled_back_from: the newest generation that a rollback went behind, until it or a newer one
            is activated: without it nothing may go back.
        passed_over: those that a rollback went behind, until they are activated by name: no
            rollback goes to one of them unless it is named. Ascending.
        published_at: when generations were published, as good as never earlier than those before
            them; not known of those that were published before records said so.
        tags: by name.
        pins: by generation.
        collected: ascending; two that touch are one, so that this does not grow with history.
        collecting: the token of the collection that may be deleting what no retained generation
            reaches; nothing is published meanwhile.
    """

    schema_version: Literal[1, 2, 3] = 3
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
    passed_over: tuple[GenerationId, ...] = ()
    published_at: dict[GenerationId, UtcTime] = Field(default_factory=dict)
    tags: tuple[Tag, ...] = ()
    pins: tuple[Pin, ...] = ()
    collected: tuple[CollectedCommits, ...] = ()
    collecting: Blake3Hex | None = None

    @model_serializer(mode="wrap")
    def _as_of_its_version(self, fields: SerializerFunctionWrapHandler) -> dict[str, Any]:
        document: dict[str, Any] = fields(self)
        for version, since in ((2, _FIELDS_SINCE_2), (3, _FIELDS_SINCE_3)):
            if self.schema_version < version:
                for name in since:
                    del document[name]
        return document

    def override_of(self, generation_id: str) -> EmbedderOverride | None:
        """The embedder override of a generation, if one was signed."""
        return next(
            (each for each in self.embedder_overrides if each.generation_id == generation_id), None
        )

    def entry(self, generation_id: str) -> GenerationEntry:
        """The entry of a published generation.

        Raises:
            GenerationCollected: it was published, and is retained no more.
            GenerationNotPublished: the record does not list it.
        """
        for entry in self.published:
            if entry.generation_id == generation_id:
                return entry
        self.refuse_collected(generation_id)
        raise GenerationNotPublished(
            f"generation {generation_id} is not in the signed record; `genctl generations` lists "
            "what is, `genctl publish` adds what was built",
            generation_id=generation_id,
        )

    def refuse_collected(self, generation_id: str) -> None:
        """Refuse a generation of which the record has nothing but the commits.

        Raises:
            GenerationCollected: it was published, and is retained no more; gives the range that is.
        """
        if self.is_collected(generation_id):
            raise self.forgotten(
                f"{generation_id} is not retained any more", generation_id=generation_id
            )

    def is_collected(self, generation_id: str) -> bool:
        """Whether it was published, by the commits that its id gives, and is retained no more."""
        high_seq = high_seq_of(generation_id)
        return any(span.low_seq <= high_seq <= span.high_seq for span in self.collected)

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
            GenerationRevoked: it was revoked; gives the one before it that can be read.
            NothingPublished: there is no generation at all.
        """
        return self._newest_readable(
            (entry for entry in self.published if entry.high_seq <= commit_seq),
            f"no retained generation is as old as commit_seq {commit_seq}",
            as_of_commit_seq=commit_seq,
        )

    def as_of_time(self, time: datetime) -> GenerationEntry:
        """The generation a read as of a time sees: the newest that was published by then.

        Generations of which the record does not say when are older than all of which it does.

        Raises:
            GenerationCollected: every retained generation is newer; gives the retained range.
            GenerationRevoked: it was revoked; gives the one before it that can be read.
            NothingPublished: there is no generation at all.
        """
        text = utc_text(time)
        return self._newest_readable(
            (
                entry
                for entry in self.published
                if self.published_at.get(entry.generation_id, text) <= text
            ),
            f"no retained generation is as old as {text}",
            as_of_time=text,
        )

    def _newest_readable(
        self, fitting: Iterator[GenerationEntry], failure: str, **facts: object
    ) -> GenerationEntry:
        entries = self.retained_entries()
        if not entries:
            raise NothingPublished(f"shard {self.shard} has no retained generation")
        chosen = None
        for entry in fitting:
            if entry.generation_id in self.retained or entry.generation_id in self.revoked:
                chosen = entry
        if chosen is None:
            raise self.forgotten(failure, **facts)
        self.refuse_revoked(chosen.generation_id)
        return chosen

    def refuse_revoked(self, generation_id: str) -> None:
        """Refuse a generation that must not be read.

        Raises:
            GenerationRevoked: it was revoked; gives the newest one before it that can be read.
        """
        if generation_id not in self.revoked:
            return
        before = [e for e in self.retained_entries() if e.high_seq < high_seq_of(generation_id)]
        advice = (
            f"the one before it that can be read is {before[-1].generation_id}, as of "
            f"{before[-1].high_seq}"
            if before
            else "none before it can be read"
        )
        raise GenerationRevoked(
            f"{generation_id} was revoked by the writer; {advice}",
            generation_id=generation_id,
            readable_before=before[-1].generation_id if before else None,
        )

    def forgotten(self, failure: str, **facts: object) -> GenerationCollected:
        """The error for what is retained no more: ``failure`` and what still can be read."""
        entries = self.retained_entries()
        if not entries:
            return GenerationCollected(f"{failure}; nothing can be read", **facts)
        oldest, newest = entries[0], entries[-1]
        text = f"{failure}; reads are possible as of {oldest.high_seq} to {newest.high_seq}"
        from_to = [self.published_at.get(each.generation_id) for each in (oldest, newest)]
        if all(from_to):
            text += f", published {from_to[0]} to {from_to[1]}"
            facts["retained_low_time"], facts["retained_high_time"] = from_to
        return GenerationCollected(
            text,
            **facts,
            retained_low_seq=oldest.high_seq,
            retained_high_seq=newest.high_seq,
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
