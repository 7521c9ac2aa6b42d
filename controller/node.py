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
    NODE/state.json      damage that could not be mended
    NODE/scrub.json      how far the scrub of the disk has come
    NODE/throughput.json how fast the last transfer was
    NODE/lock            held while a command changes the node
    NODE/scrub.lock      held while a scrub reads the disk
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from activator.pointer import Pointer, PointerFile, swap
from activator.state import NodeState, StateFile
from controller import clock, degraded, settings, wiring
from controller.throughput import Stopwatch, record_throughput
from durable import files
from index.residence import Residence
from index.verification import VerifiedGeneration
from manifests.errors import (
    HomeMissing,
    NothingPublished,
    PointerCorrupt,
)
from manifests.generation import EmbedderRecord
from manifests.record import ControlRecord, GenerationEntry
from query.resolve import resolve
from replicator.bring import Brought, bring
from replicator.fetch import Progress
from replicator.health import Health
from replicator.plan import FetchPlan
from replicator.trust import Trust
from store.spread import SpreadStore

if TYPE_CHECKING:
    from index.embedding import Embedder
    from query.reader import Reader
    from query.request import Answer, Request

MIN_COMMIT_SEQ_DEADLINE_MS = 5_000
FETCH_WAIT_MS = 60_000
"""How long a query of the past waits for a bootstrap that is under way, before it fetches."""
OnPlan = Callable[[FetchPlan], Progress]


def unwatched(_: FetchPlan) -> Progress:
    """For callers that do not watch a fetch."""
    return lambda _: None


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
        self.healths: dict[str, Health] = {}
        """What is known of the health of peers, by URL."""
        self._pointer_file = PointerFile(home)
        self._state_file = StateFile(home)

    def stores(self) -> SpreadStore:
        """The stores this node follows, as one."""
        return wiring.node_stores(self.settings)

    def trust(self) -> Trust:
        """The node's trust state."""
        return Trust(self.home / "trust", self.root_bytes())

    def root_bytes(self) -> bytes:
        """The root of trust that the node was given.

        Raises:
            HomeMissing: it cannot be read.
        """
        path = self.home / "root.json"
        try:
            return path.read_bytes()
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
            EmbedderMismatch, CommitRangeGap, ActivationFailed: it did not pass the gate.
            StoreUnavailable, DiskFull, DiskError: the store or the disk failed.

        Whatever is raised, the generation that was active goes on serving.
        """
        with files.locked(self.home / "lock", "bootstrap"):
            files.remove_temporaries(self.home)
            store = self.stores()
            trusted = self.trust().refresh(store)
            record = trusted.record
            entry = record.active_entry()
            supply = wiring.supply(self.settings, store, self.healths)
            watch = Stopwatch(time.monotonic)
            brought = bring(
                entry,
                trusted,
                self.residence,
                supply,
                self.home / "incoming",
                lambda plan: watch.started(on_plan(plan)),
                _load_libraries,
            )
            record_throughput(self.home, brought.tally.fetched_bytes, watch.passed_s())
            degraded.found_intact(self, {a.blake3 for a in brought.verified.manifest.artifacts})
            pointer = self._pointer_if_sound()
            if pointer is not None and pointer.held_back == entry.generation_id:
                return BootstrapReport(pointer, brought, activated=False, held_back=True)
            writer = brought.verified.manifest.embedder
            embedder = self._embedder_for(writer)
            from activator.gate import pass_gate

            pass_gate(brought.verified, record, entry, embedder)
            self._bind(embedder)
            held_back = pointer.held_back if pointer else None
            if pointer is not None and pointer.active == entry and held_back is None:
                degraded.activated(self)
                return BootstrapReport(pointer, brought, activated=False, held_back=False)
            active = swap(self.home, brought.verified, entry)
            degraded.activated(self)
            return BootstrapReport(active.pointer, brought, activated=True, held_back=False)

    def rollback(self) -> Pointer:
        """Swap to the newest older generation that is here, and hold the present one back.

        This node only, until the signed record names another generation than the one held back.
        Run again, it goes no further.

        Raises:
            NothingPublished: no retained, older generation is here.
            ArtifactHashMismatch, ActivationFailed: the one before is damaged.
        """
        with files.locked(self.home / "lock", "roll back"):
            pointer = self.pointer()
            if pointer.held_back is not None:
                return pointer
            record = self.record()
            older = self.older_here(record, pointer)
            if not older:
                raise NothingPublished(
                    f"no retained generation older than {pointer.active.generation_id} is here"
                )
            target = older[-1]
            verified = self.residence.reopen(target, pointer.shard)
            from activator.gate import pass_gate

            pass_gate(verified, record, target, self.embedder())
            held_back = self.state().demoted_from or pointer.active.generation_id
            pointer = swap(self.home, verified, target, held_back=held_back).pointer
            degraded.activated(self)
            return pointer

    def older_here(self, record: ControlRecord, pointer: Pointer) -> list[GenerationEntry]:
        """The retained generations older than the active one that are here, oldest first."""
        resident = self.residence.resident_ids()
        return [
            entry
            for entry in record.retained_entries()
            if entry.high_seq < pointer.active.high_seq and entry.generation_id in resident
        ]

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

    def status(self) -> dict[str, object]:
        """What the node serves and holds, as ``genctl node status --json`` prints it."""
        pointer = self._pointer_file.read()
        record = self.record() if pointer else None
        state = self.state()
        return {
            "state": state.state,
            "demoted_from": state.demoted_from,
            "damage": [
                f"{each.artifact} ({each.artifact_id[:12]}…): {each.error}: {each.message}"
                for each in state.damage
            ],
            "stores": list(self.settings.stores),
            "shard": pointer.shard if pointer else None,
            "active": pointer.active.generation_id if pointer else None,
            "commit_seq": pointer.active.high_seq if pointer else None,
            "previous": pointer.previous.generation_id if pointer and pointer.previous else None,
            "held_back": pointer.held_back if pointer else None,
            "resident": self.residence.resident_ids(),
            "record_active": record.active if record else None,
            "retained": [e.generation_id for e in record.retained_entries()] if record else [],
        }

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
        from query.reader import Reader

        return Reader(self.residence, self.pointer().shard, self.embedder(), self._fetch_old)

    def query(
        self,
        reader: Reader,
        request: Request,
        *,
        as_of_commit_seq: int | None = None,
        min_commit_seq: int | None = None,
        deadline_ms: int = MIN_COMMIT_SEQ_DEADLINE_MS,
    ) -> Answer:
        """Choose the generation and answer from it; see :meth:`choose`."""
        entry = self.choose(as_of_commit_seq, min_commit_seq, deadline_ms)
        return reader.answer(request, entry)

    def choose(
        self,
        as_of_commit_seq: int | None = None,
        min_commit_seq: int | None = None,
        deadline_ms: int = MIN_COMMIT_SEQ_DEADLINE_MS,
    ) -> GenerationEntry:
        """The generation that a read with these wishes is answered from.

        Raises:
            BadQuery, GenerationCollected, NotYetActivated: see :mod:`query.resolve`.
            StoreUnavailable, TrustError …: the past asked for is later than what is known here, and
                the store cannot be asked.
            ArtifactHashMismatch: that generation has damage here that could not be mended.
        """
        keep_waiting = clock.poller(deadline_ms)
        entry = resolve(
            lambda: self.pointer().active,
            lambda: self._record_up_to(as_of_commit_seq or 0, keep_waiting),
            as_of_commit_seq=as_of_commit_seq,
            min_commit_seq=min_commit_seq,
            keep_waiting=keep_waiting,
        )
        degraded.refuse_damaged(self.state(), entry.generation_id)
        return entry

    def _record_up_to(self, commit_seq: int, keep_waiting: Callable[[], bool]) -> ControlRecord:
        """The last record; a newer one, if this one may not know all generations up to then.

        Raises:
            StoreUnavailable, TrustError …: the newer one cannot be had, so which generation that
                commit fell into is not known here.
        """
        record = self.record()
        if not record.published or record.published[-1].high_seq >= commit_seq:
            return record
        with files.locked(self.home / "lock", "query", keep_waiting=keep_waiting):
            return self.trust().refresh(self.stores()).record

    def _fetch_old(self, entry: GenerationEntry) -> VerifiedGeneration:
        """Bring a retained generation that is not here, without activating it."""
        keep_waiting = clock.poller(FETCH_WAIT_MS)
        with files.locked(self.home / "lock", "query", keep_waiting=keep_waiting):
            store = self.stores()
            trusted = self.trust().refresh(store)
            current = trusted.record.entry(entry.generation_id)
            supply = wiring.supply(self.settings, store, self.healths)
            incoming = self.home / "incoming"
            return bring(
                current,
                trusted,
                self.residence,
                supply,
                incoming,
                unwatched,
                keep_others=True,
            ).verified

    def _embedder_for(self, writer: EmbedderRecord) -> Embedder:
        """The node's embedder; a node without one takes the writer's."""
        if self.settings.embedder is None:
            from index.embedding import make_embedder

            return make_embedder(writer.name, writer.dimensions)
        return self.embedder()

    def _bind(self, embedder: Embedder) -> None:
        """Keep to this embedder from now on: its generation has passed the gate."""
        if self.settings.embedder is None:
            bound = settings.NodeEmbedder(name=embedder.name, dimensions=embedder.dimensions)
            self.settings = self.settings.model_copy(update={"embedder": bound})
            settings.save(self.home / settings.NODE_FILE, self.settings)

    def _pointer_if_sound(self) -> Pointer | None:
        try:
            return self._pointer_file.read()
        except PointerCorrupt:
            return None  # the swap that follows sets it anew from the signed record
