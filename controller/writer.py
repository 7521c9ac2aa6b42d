"""A writer's home, wired: commit log, builder, keys, store.

::

    HOME/settings.json   what the home was made with
    HOME/root.json       the root of trust that nodes are given
    HOME/keys/           private keys, 0600
    HOME/log/            the commit log
    HOME/artifacts/      every artifact once, by content
    HOME/generations/    built generations
    HOME/symbols/        repair symbols that wait to be published
    HOME/draft/          a build under way; thrown away when it is run again
    HOME/lock            held while a command changes the home
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from builder.build import BuildReport, BuildSettings, build_generation
from builder.changes import plan_build
from builder.keys import load_keys
from builder.publish import Progress, Publisher, PublishReport, pending
from builder.repository import CurrentState, Repository
from builder.shelf import Shelf
from commits.documents import DocumentRules
from commits.ingest import IngestReport, ingest
from commits.local_log import LocalCommitLog
from controller import clock, settings, wiring
from durable import files
from index.embedding import Embedder, make_embedder
from index.residence import Residence
from index.snapshot import Snapshot
from index.verification import verify_generation
from manifests.errors import (
    BadSetting,
    CommitRangeGap,
    GenerationUnknown,
    HomeMissing,
    NothingToBuild,
)
from manifests.generation import GenerationManifest, parse_manifest
from manifests.record import ControlRecord, rollback_target, with_active, with_rollback
from store.spread import MIRRORED_PREFIXES, RECORD_KEY, SpreadStore


def no_progress(_: int) -> None:
    """For callers that do not watch."""


@dataclass(frozen=True, slots=True)
class BuiltGeneration:
    """The result of ``build``: a report, or the generation that was there already."""

    manifest: GenerationManifest
    report: BuildReport | None


class WriterHome:
    """One writer's home folder and what can be done with it. Commands are methods."""

    def __init__(self, home: Path) -> None:
        """Open an existing home.

        Raises:
            HomeMissing: there is none; run ``genctl init``.
            BadSetting: its settings cannot be read.
        """
        self.home = home
        self.settings = settings.load(
            home / settings.WRITER_FILE,
            settings.WriterSettings,
            "a writer's home; `genctl init` makes one",
        )
        self.residence = Residence(home)
        self._stores: SpreadStore | None = None
        self._shelf = Shelf(home / "symbols", self.residence, store_count=len(self.settings.stores))

    @contextlib.contextmanager
    def exclusively(self, purpose: str) -> Iterator[None]:
        """Hold the home's lock for one command.

        Raises:
            HomeLocked: another command holds it.
        """
        with files.locked(self.home / "lock", purpose):
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

    def repository(self) -> Repository:
        """The signed repository in the store.

        Raises:
            HomeMissing: ``init`` was interrupted.
        """
        root = self.home / "root.json"
        try:
            data = root.read_bytes()
        except OSError as error:
            raise HomeMissing(
                f"{root} cannot be read ({error.strerror}); run `genctl init` again"
            ) from error
        return Repository(
            self.store(),
            data,
            load_keys(self.home / "keys"),
            timedelta(hours=self.settings.timestamp_lifetime_hours),
        )

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
            DiskFull, DiskError: the disk refuses.
        """
        with self.exclusively("build"), self.log() as log:
            return self._build(log)

    def _build(self, log: LocalCommitLog) -> BuiltGeneration:
        resident = self.residence.resident_ids()
        parent = self.manifest(resident[-1]) if resident else None
        if log.head.commit_seq == 0:
            raise NothingToBuild("the commit log is empty; run `genctl ingest` first")
        if parent is not None and parent.commits.high_seq >= log.head.commit_seq:
            if parent.commits.head_commit_id != log.head.commit_id:
                raise CommitRangeGap(
                    f"the log ends at commit {log.head.commit_seq} ({log.head.commit_id[:12]}…), "
                    f"but {parent.generation_id} was built up to commit "
                    f"{parent.commits.high_seq} ({parent.commits.head_commit_id[:12]}…): the log "
                    "was lost, cut or replaced",
                    generation_id=parent.generation_id,
                    log_commit_seq=log.head.commit_seq,
                )
            return BuiltGeneration(parent, None)
        low_seq = parent.commits.high_seq + 1 if parent else 1
        plan = plan_build(
            log.read(low_seq, log.head.commit_seq),
            low_seq,
            parent.commits.head_commit_id if parent else None,
        )
        report = build_generation(
            plan,
            self._open(parent) if parent else None,
            self.residence,
            self.home / "draft",
            BuildSettings(
                shard=self.settings.shard,
                quantization=self.settings.quantization,
                embedder=self.embedder(),
                encode=self._shelf.encode,
            ),
            clock.now().isoformat(),
        )
        return BuiltGeneration(report.manifest, report)

    def _open(self, manifest: GenerationManifest) -> Snapshot:
        folder = self.residence.folder(manifest.generation_id)
        return Snapshot(verify_generation(manifest, folder))

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
            self.store().mend(RECORD_KEY)
            publisher = self.publisher()
            current = self.repository().current()
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
        record = self.current().signed.record
        if generation_id is None and (record.kind, record.reason) == ("rollback", reason):
            return record.active_entry().generation_id
        target = generation_id or rollback_target(record)
        self._move("roll back", target, lambda record: with_rollback(record, target, reason))
        return target

    def refresh(self) -> CurrentState:
        """Sign the record as it is once more, so that it expires later.

        Raises:
            WriterFenced, StoreUnavailable: the store was not moved.
        """
        with self.exclusively("refresh"):
            self.store().mend(RECORD_KEY)
            repository = self.repository()
            current = repository.current()
            repository.commit(current, current.signed.record, clock.now())
            return repository.current()

    def current(self) -> CurrentState:
        """What the store holds as signed."""
        return self.repository().current()

    def status(self) -> dict[str, object]:
        """Where the writer stands, under the names that ``genctl status --json`` prints."""
        with self.log() as log:
            head = log.head
        resident = self.residence.resident_ids()
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
        }

    def _move(
        self,
        purpose: str,
        generation_id: str,
        successor: Callable[[ControlRecord], ControlRecord],
    ) -> bool:
        with self.exclusively(purpose):
            self.store().mend(RECORD_KEY)
            repository = self.repository()
            current = repository.current()
            record = successor(current.signed.record)
            if current.signed.record.active == generation_id:
                return False
            repository.commit(current, record, clock.now())
            return True
