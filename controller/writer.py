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

import contextlib
import os
from collections.abc import Callable, Collection, Iterator, Sequence
from datetime import timedelta
from pathlib import Path

from securesystemslib.signer import Signer
from tuf.api.metadata import Root, Timestamp

from builder.keys import RoleName
from builder.publish import Progress, Publisher, PublishReport, pending
from builder.published_roots import newer_roots, publish_root
from builder.repository import CurrentState
from builder.shelf import Shelf
from builder.signers import KeyRing
from commits.documents import DocumentRules
from commits.ingest import IngestReport, ingest
from commits.local_log import LocalCommitLog
from controller import clock, passphrases, settings, wiring
from controller.building import BuiltGeneration, build_next
from controller.signed_last import SignedLast, SignedLastFile, signed_timestamp
from controller.writer_receipts import ReceiptedRepository, record_id
from durable import files
from durable.audit_log import AuditLog
from index.embedding import Embedder, make_embedder
from index.residence import Residence
from index.snapshot import Snapshot
from index.verification import ReadFiles, verify_generation
from manifests.embedder_override import with_embedder_override
from manifests.errors import (
    BadSetting,
    ForeignRecord,
    GenerationUnknown,
    HomeMissing,
    ObjectMissing,
    RecordPutBack,
    RetryError,
    TrustError,
    WriterFenced,
)
from manifests.generation import GenerationManifest, parse_manifest
from manifests.identifiers import content_id
from manifests.names import manifest_target, metadata_key
from manifests.receipts import Change
from manifests.record import ControlRecord, accept_manifest
from manifests.record_changes import rollback_target, with_active, with_rollback
from store.signed import LIMITS_BYTES, refuse_other_shard, shard_of, trusted_root
from store.spread import MAX_MIRRORED_SIZE_BYTES, MIRRORED_PREFIXES, RECORD_KEY, SpreadStore

ROOT_FILE = "root.json"
ROOT_BEFORE_FILE = "root_before.json"


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


class WriterHome:
    """One writer's home folder and what can be done with it. Commands are methods."""

    def __init__(self, home: Path) -> None:
        """Open an existing home.

        Raises:
            HomeMissing: there is none; run ``genctl init``.
            BadSetting: its settings cannot be read.
        """
        self.home = home
        self.settings = self._saved_settings()
        self.residence = Residence(home)
        self.audit = AuditLog(home)
        self.signed_last = SignedLastFile(home)
        self.key_ring = KeyRing(home.absolute(), os.environ, passphrases.ask)
        self._stores: SpreadStore | None = None
        self._shelf = Shelf(home / "symbols", self.residence, store_count=len(self.settings.stores))

    def _saved_settings(self) -> settings.WriterSettings:
        return settings.load(
            self.home / settings.WRITER_FILE,
            settings.WriterSettings,
            "a writer's home; `genctl init` makes one",
        )

    @contextlib.contextmanager
    def exclusively(self, purpose: str) -> Iterator[None]:
        """Hold the home's lock for one command.

        Raises:
            HomeLocked: another command holds it.
        """
        with files.locked(self.home / "lock", purpose):
            # Another command may have saved other signers since this process read them.
            signers = self._saved_settings().signers
            self.settings = self.settings.model_copy(update={"signers": signers})
            self.residence.prepare()
            for folder in (self.home, self.home / "keys"):
                files.remove_temporaries(folder)
            yield

    def store(self) -> SpreadStore:
        """The stores of this home, as one; always the same object, which knows what it proved."""
        if self._stores is None:
            self._stores = wiring.open_stores(self.settings.stores)
        return self._stores

    def embedder(self) -> Embedder:
        """The embedder of this home."""
        return make_embedder(self.settings.embedder, self.settings.dimensions)

    def root_bytes(self) -> bytes:
        """The newest root of trust that this home knows.

        Raises:
            HomeMissing: ``init`` was interrupted, or waits for signatures.
        """
        root = self.home / ROOT_FILE
        try:
            return files.read_file(root)
        except OSError as error:
            raise HomeMissing(
                f"{root} cannot be read ({error.strerror}); run `genctl init` again, or "
                "`genctl keys publish` where the root of trust waits for signatures"
            ) from error

    def repository(self) -> ReceiptedRepository:
        """The signed repository in the store. Keys are opened when something is signed.

        Whatever it signs leaves a receipt.

        Raises:
            HomeMissing: see :meth:`root_bytes`.
        """
        root = self.root_bytes()
        before = self.home / ROOT_BEFORE_FILE
        with files.translated(before):
            root_before = files.read_file(before) if before.exists() else None
        return ReceiptedRepository(
            self.audit,
            self.signed_last,
            self.store(),
            root,
            self.keys,
            timedelta(hours=self.settings.timestamp_lifetime_hours),
            root_before=root_before,
        )

    def keys(self, role: RoleName) -> Sequence[Signer]:
        """What signs as ``role`` under the newest root; keys of other roles are not opened.

        Raises:
            BadSetting, SignerUnavailable: see :meth:`KeyRing.sign_as`.
        """
        references = getattr(self.settings.signers, role)
        return self.key_ring.sign_as(trusted_root(self.root_bytes()), role, references)

    def follow_root(self) -> None:
        """Take up the newest root that the store has. The lock is held; no key is needed.

        Copies of the record are brought up first, unless the first store's is an old one.

        Raises:
            RecordPutBack, ForeignRecord: see :meth:`refuse_put_back`.
            BadRootRotation: the store has the root of another shard.
            UnsignedRecord: the store has a root that the one before it did not sign.
            StoreUnavailable: run the command again.
        """
        self.refuse_put_back()
        self.store().mend(RECORD_KEY)
        root_before = self.home / ROOT_BEFORE_FILE
        if root_before.exists() and self._is_signed_anew():
            files.remove_file(root_before)  # the next root has another before it
        for root in newer_roots(self.store(), self.root_bytes()):
            if shard_of(trusted_root(root)) is not None:
                refuse_other_shard(self.settings.shard, trusted_root(root))
            # A kill may have come between two stores, or the first has it damaged.
            self.store().mend(metadata_key(f"{trusted_root(root).version}.root.json"))
            publish_root(self.store(), root)
            self.adopt_root(root)

    def refuse_put_back(self) -> None:
        """Refuse a first store that does not show what this home signed last, or what came after.

        What nobody signed is damage, which is found where it is read.

        Raises:
            RecordPutBack, ForeignRecord: see :meth:`SignedLast.refuse_other`.
            SignedLastCorrupt: the home does not know what it signed last.
        """
        known = self.signed_last.read()
        if known is None:
            return
        with contextlib.suppress(RetryError):  # told by whoever needs the store
            found = self.store().get_versioned(RECORD_KEY, limit_bytes=MAX_MIRRORED_SIZE_BYTES)
            if found is not None and found.data != known.timestamp:
                timestamp = signed_timestamp(found.data, self.known_roots())
                if timestamp is not None:
                    known.refuse_other(timestamp)

    def known_roots(self) -> list[Root]:
        """The newest root of this home, and what the store has of those before it, newest first.

        Of those before it nothing is certain but that they are signed by their own keys.
        """
        newest = trusted_root(self.root_bytes())
        found = [newest]
        for version in range(newest.version - 1, 0, -1):
            with contextlib.suppress(TrustError, ObjectMissing):
                key = metadata_key(f"{version}.root.json")
                data = self.store().get(key, length=LIMITS_BYTES[Root.type])
                found.append(trusted_root(data))
        return found

    def ready_to_sign(self) -> ReceiptedRepository:
        """The repository, once what a killed command left undone is done. The lock is held.

        The newest root is followed; and if what is signed is so by keys that it no longer names,
        the record and the manifests that were built here are signed anew.

        Raises:
            ForeignRecord: the record to be signed anew is not the one that this home signed last.
            ManifestError: a manifest here is damaged.
            BadSetting: a key is missing.
            StoreUnavailable, SignerUnavailable: run the command again.
        """
        self.follow_root()
        repository = self.repository()
        if repository.root_before is not None:
            current = repository.current()
            if current.is_superseded:
                record = current.signed.record
                self._refuse_others(record)
                last, known = self.audit.last_of("record"), self.signed_last.read()
                last_version = max(
                    (last.record_version if last else None) or 0, known.version if known else 0
                )
                repository.sign_anew(current, self._manifests(record), last_version, clock.now())
            files.remove_file(self.home / ROOT_BEFORE_FILE)
            repository = self.repository()
        self._note_signed(repository)
        return repository

    def _note_signed(self, repository: ReceiptedRepository) -> None:
        """Note what this home signed before a kill, so that a command may say that it is done."""
        known = self.signed_last.read()
        found = self.store().get_versioned(RECORD_KEY, limit_bytes=MAX_MIRRORED_SIZE_BYTES)
        if found is None or (known is not None and found.data == known.timestamp):
            return
        current = repository.current()
        is_newer = known is None or current.signed.timestamp.version > known.version
        if current.token == found.version and is_newer and self._is_own(current.signed.record):
            repository.note(found.data)

    def _is_signed_anew(self) -> bool:
        try:
            return not self.current().is_superseded
        except TrustError:
            return False  # by keys of a root that is not followed yet

    def _manifests(self, record: ControlRecord) -> list[tuple[str, bytes]]:
        """The manifests of what can be read, as this home has them: target paths and bytes."""
        found = []
        for entry in record.published:
            if entry.generation_id in record.retained:
                data = self.residence.manifest_bytes(entry.generation_id)
                accept_manifest(data, entry, record.shard)
                found.append((manifest_target(entry.generation_id), data))
        return found

    def _refuse_others(self, record: ControlRecord) -> None:
        """Refuse to sign again what somebody else may have signed, with stolen keys.

        Raises:
            ForeignRecord: it is not what this home signed last.
        """
        last = self.audit.last_of("record")
        if not self._is_own(record):
            raise ForeignRecord(
                "the record in the store is not the one that this home signed last: it is not "
                "signed again. Another home with the same keys wrote it, or somebody who has them",
                found=record_id(record),
                signed_last=last.after if last else None,
            )

    def _is_own(self, record: ControlRecord) -> bool:
        """Whether a record is the one that was signed last here.

        Or, where a kill came before that was noted, what the last receipt says, which comes before
        its change.
        """
        last, known = self.audit.last_of("record"), self.signed_last.read()
        own: set[str | None] = set() if known is None else {record_id(known.record)}
        if last is not None and (known is None or (last.record_version or 0) > known.version):
            own |= {last.before, last.after}
        try:
            self.publisher().check_own(record)
        except WriterFenced:
            return False
        return not own or record_id(record) in own

    def adopt_root(self, root: bytes) -> None:
        """Make ``root`` this home's, and remember by which one the record may still be signed."""
        before = self.root_bytes()
        files.create_file(self.home / ROOT_BEFORE_FILE, [before])
        self.audit.append(
            Change(
                kind="new_root",
                document="root",
                time=clock.now().isoformat(),
                reason=f"version {trusted_root(root).version} of the root of trust",
                before=content_id(before),
                after=content_id(root),
            )
        )
        files.replace_file(self.home / ROOT_FILE, [root])

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
        """Append the files' operations to the commit log; see :func:`commits.ingest.ingest`."""
        embedder = self.embedder()
        rules = DocumentRules(
            dimensions=embedder.dimensions,
            vectors="forbidden" if embedder.computes else "required",
            id_field=id_field,
        )
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
            NothingToBuild: the log is empty.
            CommitRangeGap: the log is not the one that the latest generation was built from.
            LogCorrupt: the log is damaged.
            ArtifactHashMismatch: the generation to build upon is damaged.
            BuildWorkersLost, EmbedderMismatch: see :class:`builder.scale_out.Workforce`.
            DiskFull, DiskError: the disk refuses.
        """
        with self.exclusively("build"), self.log() as log:
            return build_next(self, log, self._shelf.encode)

    def opened(self, manifest: GenerationManifest, seen: ReadFiles) -> Snapshot:
        """A generation that was built here, opened; what was ``seen`` is not read again.

        Raises:
            ArtifactHashMismatch: it is damaged.
        """
        folder = self.residence.folder(manifest.generation_id)
        return Snapshot(verify_generation(manifest, folder, seen))

    def publisher(self) -> Publisher:
        """What uploads and signs for this home."""
        return Publisher(self.residence, self._shelf, self.store(), self.repository())

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
            publisher = self.publisher()
            current = repository.current()
            publisher.check_own(current.signed.record)
            due = pending(current, resident, chosen)
            if not due and restore:
                due = [chosen]
                self._mend_copies()
            progress: Progress = no_progress
            if on_start is not None:
                progress = on_start(publisher.size_bytes_to_send(due, current.signed.record))
            return [publisher.publish(each, clock.now(), progress) for each in due]

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

        Without ``generation_id`` it is the retained one before the active; if the record already is
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

    def current(self) -> CurrentState:
        """What the store holds as signed."""
        return self.repository().current()

    def status(self) -> dict[str, object]:
        """Where the writer stands, under the names that ``genctl status --json`` prints."""
        with self.log() as log:
            head = log.head
        resident = self.residence.resident_ids()
        known = self.signed_last.read()  # before the store, which may be ahead of it
        signed = self.current().signed
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
            record = successor(current.signed.record)
            if current.signed.record.active == generation_id:
                return False
            repository.commit(current, record, clock.now())
            return True
