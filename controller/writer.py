"""A writer's home, wired: commit log, builder, keys, store.

::

    HOME/settings.json   what the home was made with
    HOME/root.json       the root of trust that nodes are given: the newest
    HOME/root_before.json  the one by whose keys the record may still be signed; seldom there
    HOME/root_draft.json   the next root, which waits for signatures; seldom there
    HOME/keys/           private keys, 0600
    HOME/audit.jsonl     receipts of what was signed
    HOME/signed_last.json  the record that was signed last, to know an older one by
    HOME/log/            the commit log
    HOME/artifacts/      every artifact once, by content
    HOME/generations/    built generations
    HOME/symbols/        repair symbols that wait to be published
    HOME/draft/          a build under way; thrown away when it is run again
    HOME/merges/         merges that wait for the next build to put them in place
    HOME/intact.json     which artifacts were found intact, so that a build need not read them again
    HOME/lock            held while a command changes the home
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from pathlib import Path

from tuf.api.metadata import Timestamp

from builder.collect import end_interrupted
from builder.publish import Progress, PublishReport, pending
from builder.repository import CurrentState
from commits.documents import DocumentRules
from commits.ingest import IngestReport, ingest
from commits.local_log import LocalCommitLog
from controller import clock
from controller.building import BuiltGeneration, build_next
from controller.signed_last import SignedLast
from controller.signing_home import DRAFT_FILE, ROOT_FILE, SigningHome
from index.embedding import Embedder, make_embedder
from index.snapshot import Snapshot
from index.verification import ReadFiles, verify_generation
from manifests.embedder_override import with_embedder_override
from manifests.errors import (
    BadSetting,
    ForeignRecord,
    GenerationUnknown,
    HomeMissing,
    RecordPutBack,
)
from manifests.generation import GenerationManifest, parse_manifest
from manifests.record import ControlRecord
from manifests.record_changes import rollback_target, with_active, with_rollback
from store.spread import MIRRORED_PREFIXES


def _told(known: SignedLast | None, offered: Timestamp) -> str:
    """How the store's record stands to the one that was signed last, in words."""
    try:
        if known is not None:
            known.refuse_other(offered)
    except (RecordPutBack, ForeignRecord) as error:
        return f"{error.name}: {error.message}"
    return "ok"


def no_progress(_: int) -> None:
    """For callers that do not watch."""


class WriterHome(SigningHome):
    """One writer's home folder and what can be done with it. Commands are methods."""

    def embedder(self) -> Embedder:
        """The embedder of this home."""
        return make_embedder(self.settings.embedder, self.settings.dimensions)

    def log(self) -> LocalCommitLog:
        """The commit log. Who appends holds the lock."""
        return LocalCommitLog.open(self.home / "log", self.settings.shard)

    def ingest(
        self,
        paths: Sequence[Path],
        *,
        format_name: str | None,
        id_field: str = "id",
        commit_size: int,
        progress: Callable[[int], None] | None = None,
    ) -> IngestReport:
        """Append the files' operations to the commit log; see :func:`commits.ingest.ingest`.

        Raises:
            HomeMissing: ``init`` did not finish; besides what that function raises.
        """
        embedder = self.embedder()
        rules = DocumentRules(
            dimensions=embedder.dimensions,
            vectors="forbidden" if embedder.computes else "required",
            id_field=id_field,
        )
        self._refuse_unfinished()
        with self.exclusively("ingest"), self.log() as log:
            return ingest(
                log,
                paths,
                rules=rules,
                format=format_name,
                commit_size=commit_size,
                now_ms=clock.now_ms,
                progress=progress,
            )

    def _refuse_unfinished(self) -> None:
        """Refuse documents for a home that ``init`` did not finish: it may have to be made anew.

        One whose root of trust waits for signatures is whole.
        """
        if not any((self.home / name).exists() for name in (ROOT_FILE, DRAFT_FILE)):
            raise HomeMissing(
                f"{self.home} has no root of trust yet: `genctl init` was refused, or interrupted. "
                "Run it again, and mend what it tells of"
            )

    def built(self) -> list[GenerationManifest]:
        """The manifests of all generations that are here, oldest first."""
        return [self.manifest(g) for g in self.residence.resident_ids()]

    def manifest(self, generation_id: str) -> GenerationManifest:
        """The manifest of one built generation.

        Raises:
            GenerationUnknown: it was not built here.
        """
        return parse_manifest(self.residence.manifest_bytes(generation_id))

    def build(self) -> BuiltGeneration:
        """Build a generation of everything the log holds; with nothing new, name the latest.

        Raises:
            HomeMissing: ``init`` did not finish.
            NothingToBuild: the log is empty.
            CommitRangeGap: the log is not the one that the latest generation was built from.
            LogCorrupt: the log is damaged.
            ArtifactHashMismatch: the generation to build upon is damaged.
            PartsMissing: it was published, and is lost.
            BuildWorkersLost, EmbedderMismatch: see :class:`builder.scale_out.Workforce`.
            DiskFull, DiskError: the disk refuses.
        """
        self._refuse_unfinished()
        with self.exclusively("build"), self.log() as log:
            known = self.signed_last.read()
            if known is not None:  # else there may be no root of trust yet
                self.publisher().refuse_lost(known.record.published[-1:])
            return build_next(self, log, self._shelf.encode)

    def opened(self, manifest: GenerationManifest, seen: ReadFiles) -> Snapshot:
        """A generation that was built here, opened; what was ``seen`` is not read again.

        Raises:
            ArtifactHashMismatch: it is damaged.
        """
        folder = self.residence.folder(manifest.generation_id)
        return Snapshot(verify_generation(manifest, folder, seen))

    def publish(
        self,
        generation_id: str | None,
        on_start: Callable[[int], Progress] | None = None,
        *,
        restore: bool = True,
    ) -> list[PublishReport]:
        """Publish a generation, and first those before it that were never published.

        Args:
            generation_id: which one; the latest built when ``None``.
            restore: if it is published already, compare it with the store and mend that.
            on_start: told how many bytes are to be sent; gives the progress callback.

        Raises:
            GenerationUnknown: it was not built here.
            PartsMissing: the home lost a published generation.
            WriterFenced, StoreUnavailable, DiskFull, DiskError: see :class:`Publisher`.
        """
        with self.exclusively("publish"):
            resident = self.residence.resident_ids()
            chosen = generation_id or (resident[-1] if resident else "")
            if chosen not in resident:
                raise GenerationUnknown(
                    f"no generation {chosen or 'at all'} was built here; `genctl generations` "
                    "lists them, `genctl build` makes one",
                    generation_id=chosen,
                )
            repository = self.ready_to_sign()
            known = self.signed_last.read()
            end_interrupted(repository, known.record if known else None, clock.now())
            publisher = self.publisher()
            current = repository.current()
            publisher.check_own(current.signed.record)
            publisher.refuse_lost(current.signed.record.published)
            due = pending(current, resident, chosen)
            if not due and restore:
                due = [chosen]
                self._mend_copies()
            progress: Progress = no_progress
            if on_start is not None:
                progress = on_start(publisher.size_bytes_to_send(due, current.signed.record))
            return [publisher.publish(each, clock.now, progress) for each in due]

    def restore(
        self, generation_ids: Sequence[str], progress: Progress, *, but: Collection[str] = ()
    ) -> None:
        """Compare published generations with the stores, and send again what is lost or damaged.

        Artifacts whose ids are in ``but`` are left out: what is damaged here cannot be sent.

        Raises:
            GenerationUnknown: one was not built here.
            WriterFenced, StoreUnavailable, DiskFull, DiskError: see :class:`Publisher`.
        """
        with self.exclusively("scrub"):
            self._mend_copies()
            self.publisher().restore(generation_ids, progress, but=but)

    def _mend_copies(self) -> None:
        """Bring the copies in all stores but the first up to what that one has."""
        for prefix in MIRRORED_PREFIXES:
            self.store().mend(prefix)

    def activate(self, generation_id: str) -> bool:
        """Sign a record that makes a published generation the active one.

        Returns ``False`` when it already is.

        Raises:
            GenerationNotPublished: publish it first.
            UnsignedRollback: it is older than the active one.
            WriterFenced, StoreUnavailable: the store was not moved.
        """
        return self._move(
            "activate", generation_id, lambda record: with_active(record, generation_id)
        )

    def rollback(self, generation_id: str | None, reason: str) -> str:
        """Sign a record that goes back to an older generation, and name it.

        Without ``generation_id`` it is what :func:`rollback_target` says; if the record already is
        a rollback for this very reason, the command was run before and there is nothing to do.

        Raises:
            GenerationNotPublished, GenerationCollected, NothingPublished: it cannot be gone to.
            WriterFenced, StoreUnavailable: the store was not moved.
        """
        if not reason.strip():
            raise BadSetting("a rollback needs a reason; it is part of the signed record")
        with self.exclusively("roll back"):
            repository = self.ready_to_sign()
            current = repository.current()
            record = current.signed.record
            self.publisher().check_own(record)
            if generation_id is None and (record.kind, record.reason) == ("rollback", reason):
                return record.active_entry().generation_id
            target = generation_id or rollback_target(record)
            after = with_rollback(record, target, reason)
            if record.active != target:
                repository.commit(current, after, clock.now())
            return target

    def override_embedder(self, generation_id: str, reason: str) -> ControlRecord:
        """Sign that nodes bound to another embedder may activate a generation; the record then.

        The same again signs nothing.

        Raises:
            BadSetting: no reason was given.
            GenerationUnknown: it was not built here.
            GenerationNotPublished, GenerationCollected: the record does not list it any more.
            WriterFenced, StoreUnavailable: the store was not moved.
        """
        if not reason.strip():
            raise BadSetting("an override needs a reason; it is part of the signed record")
        with self.exclusively("override the embedder"):
            manifest = self.manifest(generation_id)
            repository = self.ready_to_sign()
            current = repository.current()
            before = current.signed.record
            self.publisher().check_own(before)
            record = with_embedder_override(before, manifest, self.built(), reason)
            if record != before:
                repository.commit(current, record, clock.now())
            return record

    def refresh(self) -> CurrentState:
        """Sign the record as it is once more, so that it expires later.

        Raises:
            ForeignRecord: it is not the record that this home signed last.
            WriterFenced, StoreUnavailable: the store was not moved.
        """
        with self.exclusively("refresh"):
            repository = self.ready_to_sign()
            current = repository.current()
            self._refuse_others(current.signed.record)
            repository.refresh(current, clock.now())
            return repository.current()

    def status(self) -> dict[str, object]:
        """Where the writer stands, under the names that ``genctl status --json`` prints."""
        with self.log() as log:
            head = log.head
        resident = self.residence.resident_ids()
        known = self.signed_last.read()  # before the store, which may be ahead of it
        signed = self.current().signed
        readable = signed.record.retained_entries()
        return {
            "shard": self.settings.shard,
            "stores": list(self.settings.stores),
            "embedder": f"{self.settings.embedder} ({self.settings.dimensions} dimensions)",
            "log_commit_seq": head.commit_seq,
            "built": resident[-1] if resident else None,
            "published": signed.record.published[-1].generation_id
            if signed.record.published
            else None,
            "active": signed.record.active,
            "retained_count": len(readable),
            "retained_low_seq": readable[0].high_seq if readable else None,
            "retained_high_seq": readable[-1].high_seq if readable else None,
            "collected": [span.model_dump() for span in signed.record.collected],
            "collecting": signed.record.collecting is not None,
            "record_kind": signed.record.kind,
            "record_version": signed.timestamp.version,
            "record_expires": signed.timestamp.expires.isoformat(),
            "expired": signed.timestamp.expires <= clock.now(),
            "signed_here": known.version if known else None,
            "record_state": _told(known, signed.timestamp),
        }

    def _move(
        self,
        purpose: str,
        generation_id: str,
        successor: Callable[[ControlRecord], ControlRecord],
    ) -> bool:
        with self.exclusively(purpose):
            repository = self.ready_to_sign()
            current = repository.current()
            self.publisher().check_own(current.signed.record)
            record = successor(current.signed.record)
            if current.signed.record.active == generation_id:
                return False
            repository.commit(current, record, clock.now())
            return True
