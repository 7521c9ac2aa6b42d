"""A generation brought to a node under a lease, so that no collection takes it away meanwhile.

A node may do without: its credentials may be for reading only, its store a folder that it may not
write. The lease is taken while bytes arrive already, renewed and released by a thread of its own,
so that a store that hangs on a write keeps no fetch waiting for longer than
:data:`TAKEN_WITHIN_S`.
"""

from __future__ import annotations

import contextlib
import re
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from controller import clock, wiring
from controller.leases import write_first
from manifests.errors import GenctlError, GenerationCollected, GenerationRevoked
from manifests.identifiers import content_id
from manifests.record import GenerationEntry
from manifests.record_changes import readable_entry
from replicator.bring import Brought, OnPlan, bring
from replicator.trust import TrustedRecord
from store.leases import Lease, new_lease, write_lease
from store.spread import SpreadStore, copies_of

if TYPE_CHECKING:
    from controller.node import NodeHome

LASTING = timedelta(hours=1)
RENEWED_EVERY_S = 20 * 60.0
TAKEN_WITHIN_S = 2.0
RELEASED_WITHIN_S = 5.0
MAX_RECORDS = 3
"""How many records in a row a bootstrap begins with, if what they have active is collected."""
NOTHING_FETCHED = "nothing was fetched"


@dataclass(frozen=True, slots=True)
class LeaseReport:
    """The lease that a fetch had, and in which store; or why it had none."""

    lease: Lease | None = None
    store: str | None = None
    reason: str | None = NOTHING_FETCHED


class FetchLease:
    """A node's lease of what it fetches, from :meth:`begin` to :meth:`end`; one fetch each."""

    def __init__(self, stores: SpreadStore, holder: str, purpose: str) -> None:
        self._stores = copies_of(stores)
        self._holder = holder
        self._purpose = purpose
        self._settled = threading.Event()
        self._ending = threading.Event()
        self._thread: threading.Thread | None = None
        self._report = LeaseReport()

    def begin(self, generation_id: str) -> None:
        """Start to take it; returns at once."""
        # A daemon: a process that is done does not wait for a store that hangs.
        self._thread = threading.Thread(
            target=self._run, args=[generation_id], name="lease", daemon=True
        )
        self._thread.start()

    def is_taken(self) -> bool:
        """Whether a store has it; waits a moment for that."""
        self._settled.wait(TAKEN_WITHIN_S)
        return self._report.lease is not None

    def end(self) -> LeaseReport:
        """Give it back; what there was to it."""
        self._ending.set()
        if self._thread is None:
            return self._report
        if not self._settled.is_set():
            return LeaseReport(reason=f"no store took it within {TAKEN_WITHIN_S:.0f} s")
        self._thread.join(RELEASED_WITHIN_S)
        return self._report

    def _run(self, generation_id: str) -> None:
        try:
            lease = self._lease_of(generation_id)
            store = write_first(self._stores, lease)
            self._report = LeaseReport(lease, store.url, None)
        except GenctlError as error:
            self._report = LeaseReport(reason=f"{error.name}: {error.message}")
            return
        finally:
            self._settled.set()
        # What fails from here on is told by nobody: the lease ends of itself.
        while not self._ending.wait(RENEWED_EVERY_S):
            with contextlib.suppress(GenctlError):
                write_lease(store, self._lease_of(generation_id))
        with contextlib.suppress(GenctlError):
            store.delete(lease.key)

    def _lease_of(self, generation_id: str) -> Lease:
        return new_lease(generation_id, self._holder, self._purpose, clock.now(), LASTING)


def bring_leased(
    node: NodeHome,
    entry: GenerationEntry,
    trusted: TrustedRecord,
    stores: SpreadStore,
    on_plan: OnPlan,
    *,
    purpose: str,
    meanwhile: Callable[[], None] = lambda: None,
    keep_others: bool = False,
) -> tuple[Brought, LeaseReport]:
    """See :func:`replicator.bring.bring`, which this does under a lease. The node's lock is held.

    Raises:
        GenerationCollected, GenerationRevoked: it was, before the lease was there; the node's last
            record is the one that says so.
    """
    lease = FetchLease(stores, holder_of(node), purpose)

    def while_fetching() -> None:
        lease.begin(entry.generation_id)
        meanwhile()
        if lease.is_taken():
            _refuse_gone(node, stores, entry)

    try:
        with node.quarantine.noting(clock.now()):
            brought = bring(
                entry,
                trusted,
                node.residence,
                wiring.supply(node.settings, stores, node.healths),
                node.home / "incoming",
                on_plan,
                while_fetching,
                keep_others=keep_others,
            )
    finally:
        report = lease.end()
    return brought, report


def bring_active(
    node: NodeHome, stores: SpreadStore, on_plan: OnPlan, meanwhile: Callable[[], None]
) -> tuple[TrustedRecord, Brought, LeaseReport]:
    """Refresh the record and bring what it has active; anew, if that is collected meanwhile.

    Raises:
        TrustError, NothingPublished: the record cannot be believed, or names nothing.
        And what :func:`replicator.bring.bring` raises.
    """
    for left in reversed(range(MAX_RECORDS)):
        trusted = node.trust().refresh(stores)
        entry = trusted.record.active_entry()
        try:
            brought, lease = bring_leased(
                node, entry, trusted, stores, on_plan, purpose="bootstrap", meanwhile=meanwhile
            )
        except (GenerationCollected, GenerationRevoked):
            if not left:
                raise
        else:
            return trusted, brought, lease
    raise AssertionError  # the last round returns or raises


def holder_of(node: NodeHome) -> str:
    """The name under which a node takes its leases: its machine's and a hash of its path."""
    machine = re.sub(r"[^a-z0-9.-]", "-", socket.gethostname().lower())[:40]
    place = content_id(f"{socket.gethostname()} {node.home.absolute()}".encode())
    return f"node-{machine}-{place[:12]}"


def _refuse_gone(node: NodeHome, stores: SpreadStore, entry: GenerationEntry) -> None:
    """Refuse a generation that was collected before its lease could be seen."""
    try:
        record = node.trust().refresh(stores).record
    except GenctlError:
        # What was begun under a record that was believed goes on; the next command tells.
        return
    readable_entry(record, entry.generation_id)
