"""A generation brought to a node under a lease, so that no collection takes it away meanwhile.

A node may do without: its credentials may be for reading only, its store a folder that it may not
write. The lease is taken while bytes arrive already, renewed and released by a thread of its own,
so that a store that hangs on a write keeps no fetch waiting for longer than
:data:`TAKEN_WITHIN_S`.
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from controller import clock, node_space, wiring
from controller.leases import write_first
from controller.node_space import SpaceReport
from manifests.errors import (
    GenctlError,
    GenerationCollected,
    GenerationRevoked,
    ObjectMissing,
    Unrepairable,
)
from manifests.generation import GenerationManifest
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
    """The lease that a fetch had last, and in which store.

    ``reason`` says why it had none, or in what that one did not hold what was fetched.
    """

    lease: Lease | None = None
    store: str | None = None
    reason: str | None = NOTHING_FETCHED


@dataclass(frozen=True, slots=True)
class Fetched:
    """A generation that was brought, the lease meanwhile, and what made room, if something did."""

    brought: Brought
    lease: LeaseReport
    space: SpaceReport | None


class FetchLease:
    """A node's lease of what it fetches, from :meth:`begin` to :meth:`end`; one fetch each."""

    def __init__(
        self,
        stores: SpreadStore,
        holder: str,
        purpose: str,
        now: Callable[[], datetime] = clock.now,
    ) -> None:
        self._stores = copies_of(stores)
        self._holder = holder
        self._purpose = purpose
        self._now = now
        self._settled = threading.Event()
        self._ending = threading.Event()
        self._thread: threading.Thread | None = None
        self._report = LeaseReport()
        self._unconfirmed: str | None = "the record was not read again after it was taken"
        self._not_renewed = ""

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

    def confirm(self, failure: str | None = None) -> None:
        """Take note that the record still had the generation once a store had the lease.

        With a ``failure``, that it is not known, and why.
        """
        self._unconfirmed = failure

    def end(self) -> LeaseReport:
        """Give it back; what there was to it, and in what it did not hold the generation."""
        self._ending.set()
        if self._thread is None:
            return self._report
        if not self._settled.is_set():
            return LeaseReport(reason=f"no store took it within {TAKEN_WITHIN_S:.0f} s")
        ended_at = self._now()
        self._thread.join(RELEASED_WITHIN_S)
        report = self._report
        if report.lease is None:
            return report
        if report.lease.has_expired(ended_at):
            expiry = f"it expired at {report.lease.expires_at}, before the fetch ended"
            return replace(report, reason=f"{expiry}{self._not_renewed}")
        if self._unconfirmed is not None:
            return replace(report, reason=f"it was not confirmed: {self._unconfirmed}")
        return report

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
        while not self._ending.wait(RENEWED_EVERY_S):
            try:
                renewed = self._lease_of(generation_id)
                write_lease(store, renewed)
            except GenctlError as error:
                self._not_renewed = f"; it could not be renewed: {error.name}: {error.message}"
                continue
            if lease.has_expired(self._now()):
                self._unconfirmed = f"it had expired at {lease.expires_at} when it was renewed"
            lease = renewed
            self._report = LeaseReport(lease, store.url, None)
        # What is not given back ends of itself.
        with contextlib.suppress(GenctlError):
            store.delete(lease.key)

    def _lease_of(self, generation_id: str) -> Lease:
        return new_lease(generation_id, self._holder, self._purpose, self._now(), LASTING)


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
) -> Fetched:
    """See :func:`replicator.bring.bring`, which this does under a lease. The node's lock is held.

    Where the disk has no room for it, old generations that may go make room.

    Raises:
        GenerationCollected, GenerationRevoked: it was, before the lease was there or without one;
            the node's last record is the one that says so.
    """
    lease = FetchLease(stores, holder_of(node), purpose)
    space: SpaceReport | None = None

    def while_fetching() -> None:
        lease.begin(entry.generation_id)
        meanwhile()
        if lease.is_taken():
            lease.confirm(_refuse_gone(node, stores, entry))

    def make_room(coming: GenerationManifest, bytes_to_free: int) -> None:
        nonlocal space
        space = node_space.make_room(node, coming, bytes_to_free)

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
                make_room=make_room,
                keep_others=keep_others,
            )
    except (Unrepairable, ObjectMissing):
        # Where no lease could hold it, a collection may have come first: then nothing was lost.
        _refuse_gone(node, stores, entry)
        raise
    finally:
        report = lease.end()
    return Fetched(brought, report, space)


def bring_active(
    node: NodeHome, stores: SpreadStore, on_plan: OnPlan, meanwhile: Callable[[], None]
) -> tuple[TrustedRecord, Fetched]:
    """Refresh the record and bring what it has active; anew, if that is collected meanwhile.

    Raises:
        TrustError, NothingPublished: the record cannot be believed, or names nothing.
        And what :func:`replicator.bring.bring` raises.
    """
    for left in reversed(range(MAX_RECORDS)):
        trusted = node.trust().refresh(stores)
        entry = trusted.record.active_entry()
        try:
            fetched = bring_leased(
                node, entry, trusted, stores, on_plan, purpose="bootstrap", meanwhile=meanwhile
            )
        except (GenerationCollected, GenerationRevoked):
            if not left:
                raise
        else:
            return trusted, fetched
    raise AssertionError  # the last round returns or raises


def holder_of(node: NodeHome) -> str:
    """A name for one lease of a node: its machine's, and what no other fetch has.

    Machines that are copies of one another have the same name and path, and must not end each
    other's leases; what a killed fetch leaves ends of itself.
    """
    machine = re.sub(r"[^a-z0-9.-]", "-", socket.gethostname().lower())[:40]
    place = f"{socket.gethostname()} {node.home.absolute()}"
    fetch = content_id(f"{place} {os.getpid()} {clock.now_ms()} {time.monotonic_ns()}".encode())
    return f"node-{machine}-{fetch[:12]}"


def _refuse_gone(node: NodeHome, stores: SpreadStore, entry: GenerationEntry) -> str | None:
    """Refuse a generation that was collected before its lease could be seen.

    If that cannot be told, why not: what was begun under a record that was believed goes on.
    """
    try:
        record = node.trust().refresh(stores).record
    except GenctlError as error:
        return f"{error.name}: {error.message}"
    readable_entry(record, entry.generation_id)
    return None
