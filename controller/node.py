"""A node's home, wired: trust, replicator, activator, reader.

::

    NODE/node.json       store and embedder
    NODE/root.json       the root of trust it was given
    NODE/trust/          signed metadata as last refreshed, and the high-water mark
    NODE/artifacts/      every artifact once, by content
    NODE/tables/         the hashes of their chunks
    NODE/generations/    resident generations
    NODE/incoming/       files in flight
    NODE/active.json     the pointer
    NODE/audit.jsonl     receipts of what was served
    NODE/state.json      damage that could not be mended
    NODE/quarantine.json what was refused and is remembered
    NODE/scrub/          how far the scrub of the disk has come
    NODE/throughput.json how fast the last transfer was
    NODE/lock            held while a command changes the node
    NODE/scrub.lock      held while a scrub reads the disk
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from activator.pointer import Pointer, PointerFile
from activator.state import NodeState, StateFile
from controller import activation, degraded, node_reads, node_space, settings, wiring
from controller.going_back import steps_back
from controller.leased_fetch import LeaseReport, bring_active
from controller.node_space import SpaceReport
from controller.node_trust import ROOT_FILE, trust_of
from controller.throughput import Stopwatch, record_throughput
from durable import files
from durable.audit_log import AuditLog
from index.residence import Residence
from index.verification import VerifiedGeneration
from manifests.errors import (
    EmbedderMismatch,
    HomeMissing,
    NothingPublished,
    PointerCorrupt,
)
from manifests.generation import GenerationManifest, parse_manifest
from manifests.receipts import Change, Document, ReceiptKind
from manifests.record import ControlRecord, GenerationEntry
from replicator.bring import Brought, OnPlan, unwatched
from replicator.health import Health
from replicator.quarantine import Quarantine
from replicator.trust import Trust
from store.spread import SpreadStore

if TYPE_CHECKING:
    from index.embedding import Embedder
    from query.reader import Reader
    from query.request import Answer, Request


def _load_libraries() -> None:
    """Import what opens a generation: a quarter of a second that bytes can arrive in."""
    import activator.gate  # noqa: F401


@dataclass(frozen=True, slots=True)
class BootstrapReport:
    """What a bootstrap or catch-up did."""

    pointer: Pointer
    brought: Brought
    activated: bool
    held_back: bool
    lease: LeaseReport
    space: SpaceReport | None
    """What went from this node to make room; ``None`` where nothing was due."""


class NodeHome:
    """One node's home folder and what can be done with it. Commands are methods."""

    def __init__(self, home: Path) -> None:
        """Open an existing node.

        Raises:
            HomeMissing: there is none; run ``genctl node bootstrap``.
            BadSetting: its settings cannot be read.
        """
        self.home = home
        self.settings = settings.load(
            home / settings.NODE_FILE,
            settings.NodeSettings,
            "a node's home; `genctl node bootstrap` makes one",
        )
        self.residence = Residence(home)
        self.quarantine = Quarantine(home)
        self.audit = AuditLog(home)
        self.healths: dict[str, Health] = {}
        """What is known of the health of peers, by URL."""
        self._otherwise_embedded: dict[str, Reader] = {}
        """Readers of generations that are not embedded as this node was bound at first."""
        self._pointer_file = PointerFile(home)
        self._state_file = StateFile(home)

    def stores(self) -> SpreadStore:
        """The stores this node follows, as one."""
        return wiring.node_stores(self.settings)

    def trust(self) -> Trust:
        """The node's trust state."""
        return trust_of(self)

    def root_bytes(self) -> bytes:
        """The root of trust that the node was given.

        Raises:
            HomeMissing: it cannot be read.
        """
        path = self.home / ROOT_FILE
        try:
            return files.read_file(path)
        except OSError as error:
            raise HomeMissing(
                f"{path} cannot be read ({error.strerror}); put the writer's root.json there"
            ) from error

    def bootstrap(self, on_plan: OnPlan = unwatched) -> BootstrapReport:
        """Follow the record: fetch, verify and activate what it says, keeping what is here.

        Raises:
            TrustError: the record cannot be believed.
            NothingPublished: nothing was activated yet.
            Unrepairable, ArtifactHashMismatch, ManifestError: the store lost too much, or lies.
            HomeLocked: another command is at work in the node.
            SizeRefused: there is no room for it.
            QuarantineCorrupt: what was refused before is not known.
            EmbedderMismatch, CommitRangeGap, ActivationFailed: it did not pass the gate.
            ObjectMissing, StoreUnavailable, TransferDeadline, BodyMismatch, LengthExceeded,
                ExpansionExceeded: a store did not answer as it should.
            DiskFull, DiskError: the disk failed.

        Whatever is raised, the generation that was active goes on serving.
        """
        with files.locked(self.home / "lock", "bootstrap"):
            files.remove_temporaries(self.home)
            store = self.stores()
            watch = Stopwatch(time.monotonic)
            trusted, fetched = bring_active(
                self, store, lambda plan: watch.started(on_plan(plan)), _load_libraries
            )
            brought = fetched.brought
            record_throughput(self.home, brought.tally.fetched_bytes, watch.passed_s())
            degraded.found_intact(self, {a.blake3 for a in brought.verified.manifest.artifacts})
            pointer, is_new = self._follow(brought.verified, trusted.record)
            old = node_space.keep_within_bounds(self) if is_new else None
            return BootstrapReport(
                pointer,
                brought,
                activated=is_new,
                held_back=pointer.held_back == brought.verified.manifest.generation_id,
                lease=fetched.lease,
                space=node_space.joined(fetched.space, old),
            )

    def _follow(self, verified: VerifiedGeneration, record: ControlRecord) -> tuple[Pointer, bool]:
        """Serve what the record has active, unless it is held back; whether the pointer moved.

        What was revoked meanwhile is not served on, even where the active one is held back.
        """
        entry = record.active_entry()
        pointer = self._pointer_if_sound()
        if (
            pointer is not None
            and pointer.held_back == entry.generation_id
            and pointer.active.generation_id not in record.revoked
        ):
            return pointer, False
        proven = self.prove(verified, record, entry)
        held_back = pointer.held_back if pointer else None
        if pointer is not None and pointer.active == entry and held_back is None:
            activation.bind(self, proven)
            activation.account_for(self, pointer)
            degraded.activated(self)
            return pointer, False
        goes_back = pointer is not None and entry.high_seq < pointer.active.high_seq
        kind: ReceiptKind = "rollback" if goes_back else "activate"
        pointer = activation.serve(self, proven, kind, record.reason)
        degraded.activated(self)
        return pointer, True

    def rollback(self) -> Pointer:
        """Swap to the generation that was served before, and hold the present one back.

        If there is none that may be served (:func:`controller.going_back.steps_back`), to the
        newest older one that is retained. What is not here is fetched first. This node only, until
        the signed record has another generation active than the one held back. Run again, it
        changes nothing.

        Raises:
            NothingPublished: there is nothing to go back to.
            TrustError, StoreUnavailable …: it is not here, and see :meth:`bootstrap`.
            ArtifactHashMismatch, ActivationFailed: it is damaged.
            EmbedderMismatch: it has another embedder, and the record has no override for it.
        """
        with files.locked(self.home / "lock", "roll back"):
            pointer = self.pointer()
            if pointer.held_back is not None:
                return pointer
            record = self.record()
            resident = self.residence.resident_ids()
            target = node_reads.first_step(steps_back(record, pointer, resident), pointer)
            if target.generation_id in resident:
                verified = self.residence.reopen(target, pointer.shard)
            else:
                verified, target, record = node_reads.fetch_back(self, pointer)
            proven = self.prove(verified, record, target)
            held_back = self.state().demoted_from or pointer.active.generation_id
            pointer = activation.serve(self, proven, "hold_back", held_back=held_back)
            degraded.activated(self)
            return pointer

    def state(self) -> NodeState:
        """Whether the node can read all that it should."""
        return self._state_file.read()

    def pointer(self) -> Pointer:
        """The node's pointer.

        Raises:
            NothingPublished: no generation was ever activated here.
            PointerCorrupt: it is damaged.
        """
        pointer = self._pointer_file.read()
        if pointer is None:
            raise NothingPublished(
                f"{self.home} serves nothing yet; run `genctl node bootstrap` first"
            )
        return pointer

    def record(self) -> ControlRecord:
        """The record of the last refresh."""
        return self.trust().last_record()

    def embedder(self) -> Embedder:
        """What this node embeds queries with.

        Raises:
            HomeMissing: no generation was ever activated here.
        """
        bound = self.settings.embedder
        if bound is None:
            raise HomeMissing(f"{self.home} has no generation yet; run `genctl node bootstrap`")
        from index.embedding import make_embedder

        return make_embedder(bound.name, bound.dimensions)

    def reader(self) -> Reader:
        """A reader over this node's generations.

        Raises:
            NothingPublished, PointerCorrupt: see :meth:`pointer`.
        """
        return self._reader_with(self.embedder)

    def _reader_with(self, embedder: Callable[[], Embedder]) -> Reader:
        from query.reader import Reader

        fetch_old = functools.partial(node_reads.fetch_old, self)
        return Reader(self.residence, self.pointer().shard, embedder(), fetch_old)

    def query(
        self,
        reader: Reader,
        request: Request,
        *,
        as_of_commit_seq: int | None = None,
        as_of_time: datetime | None = None,
        min_commit_seq: int | None = None,
        deadline_ms: int = node_reads.MIN_COMMIT_SEQ_DEADLINE_MS,
    ) -> Answer:
        """Choose the generation and answer from it; see :func:`controller.node_reads.choose`.

        A text is embedded with what that generation was, be it another embedder than ``reader``
        has, where the node is bound to it by now or the record has an override.
        """
        entry, published_at = node_reads.choose(
            self,
            as_of_commit_seq=as_of_commit_seq,
            as_of_time=as_of_time,
            min_commit_seq=min_commit_seq,
            deadline_ms=deadline_ms,
        )
        answer = self._answer(reader, request, entry)
        return answer if published_at is None else answer.published(published_at)

    def _answer(self, reader: Reader, request: Request, entry: GenerationEntry) -> Answer:
        reader = self._otherwise_embedded.get(entry.generation_id, reader)
        try:
            return reader.answer(request, entry)
        except EmbedderMismatch:
            reader = self._reader_with(lambda: self._embedder_of(entry))
            answer = reader.answer(request, entry)
            self._otherwise_embedded[entry.generation_id] = reader
            return answer

    def prove(
        self, verified: VerifiedGeneration, record: ControlRecord, entry: GenerationEntry
    ) -> activation.Proven:
        """Have a generation pass the gate of this node; see :func:`controller.activation.prove`."""
        return activation.prove(
            verified, record, entry, lambda: self._embedder_for(verified.manifest, record)
        )

    def _embedder_of(self, entry: GenerationEntry) -> Embedder:
        data = self.residence.manifest_bytes(entry.generation_id)
        return self._embedder_for(parse_manifest(data), self.record())

    def _embedder_for(self, manifest: GenerationManifest, record: ControlRecord) -> Embedder:
        """What this node may embed queries of a generation with, by what it is bound to now."""
        from activator.gate import choose_embedder

        saved = settings.load(
            self.home / settings.NODE_FILE, settings.NodeSettings, "a node's home"
        )
        self.settings = self.settings.model_copy(update={"embedder": saved.embedder})
        return choose_embedder(manifest, record, self.embedder() if saved.embedder else None)

    def leave_receipt(
        self,
        kind: ReceiptKind,
        document: Document,
        *,
        reason: str | None = None,
        before: str | None = None,
        after: str | None = None,
    ) -> None:
        """Leave the receipt of a change that is about to be made to anything but the pointer.

        Call it with the node's lock held, just before the change. ``before`` and ``after`` are the
        BLAKE3 of the bytes of ``root.json``; of a quarantine there are none.

        Raises:
            DiskFull, DiskError: it could not be written; do not make the change.
        """
        occasion = activation.occasion_now(self, kind, reason)
        self.audit.append(
            Change(
                kind=kind,
                document=document,
                time=occasion.time,
                record_version=occasion.record_version,
                reason=reason,
                before=before,
                after=after,
            )
        )

    def _pointer_if_sound(self) -> Pointer | None:
        try:
            return self._pointer_file.read()
        except PointerCorrupt:
            return None  # the swap that follows sets it anew from the signed record
