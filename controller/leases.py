"""Taking, renewing and releasing leases in the stores of a home, be it a writer's or a node's.

A lease counts in whichever store it lies; the first that takes it gets it. It is written first, and
the record read again after that: a generation that is gone by then was collected before the
collection could see the lease, which is taken back.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from controller import clock, settings
from durable import files
from manifests.errors import (
    GenctlError,
    GenerationCollected,
    GenerationUnknown,
    LeaseExpired,
    LeaseUnknown,
)
from manifests.identifiers import is_generation_id
from manifests.record import ControlRecord, utc_text
from manifests.record_changes import readable_entry
from store.leases import (
    LONGEST,
    FoundLeases,
    Lease,
    joined,
    lease_key,
    leases_in,
    new_lease,
    read_lease,
    write_lease,
)
from store.port import Store
from store.spread import SpreadStore, copies_of

RECORD_WAIT_MS = 60_000
"""How long a lease of a node waits for a command at work there, to read the record after it."""


@dataclass(frozen=True, slots=True)
class LeasePlace:
    """Where a home's leases are, and how its newest record is read."""

    stores: SpreadStore
    record: Callable[[], ControlRecord]


@dataclass(frozen=True, slots=True)
class HeldLease:
    """A lease that was just written, and the store that has it.

    ``had_expired``: it had ended before it was renewed, and its generation is still there.
    """

    lease: Lease
    store: str
    had_expired: bool = False


@dataclass(frozen=True, slots=True)
class ListedLeases:
    """The leases in the stores that answer, and the errors of those that do not."""

    found: FoundLeases
    silent: tuple[GenctlError, ...]


def place_of(home: Path) -> LeasePlace:
    """The place of a writer's or a node's home.

    Raises:
        HomeMissing, BadSetting: it is neither.
    """
    if (home / settings.NODE_FILE).exists():
        from controller.node import NodeHome

        node = NodeHome(home)

        def refreshed() -> ControlRecord:
            keep_waiting = clock.poller(RECORD_WAIT_MS)
            with files.locked(home / "lock", "take the lease", keep_waiting=keep_waiting):
                return node.trust().refresh(node.stores()).record

        return LeasePlace(node.stores(), refreshed)
    from controller.writer import WriterHome

    writer = WriterHome(home)
    return LeasePlace(writer.store(), lambda: writer.current().signed.record)


def take(
    place: LeasePlace,
    generation_id: str,
    holder: str,
    purpose: str,
    *,
    lasting: timedelta,
    now: datetime,
) -> HeldLease:
    """Take a lease; the same again makes it last as long as asked from now, never shorter.

    Raises:
        GenerationUnknown: this is no generation's id.
        GenerationCollected, GenerationNotPublished, GenerationRevoked: it cannot be had any more.
        StoreRefused, StoreUnavailable, DiskError: no store takes it.
        TrustError …: the record cannot be read.
    """
    _refuse_other_ids(generation_id)
    before = _known(place.stores, generation_id, holder, now)
    return _hold(place, new_lease(generation_id, holder, purpose, now, lasting), before)


def renew(
    place: LeasePlace, generation_id: str, holder: str, *, lasting: timedelta, now: datetime
) -> HeldLease:
    """Have a lease last as long as asked from now, never shorter than it did.

    Raises:
        LeaseExpired: it had ended, or is not there any more, and its generation was collected.
        LeaseUnknown: no store has it, and its generation is there: take one.
        And what :func:`take` raises.
    """
    _refuse_other_ids(generation_id)
    before = _known(place.stores, generation_id, holder, now)
    try:
        if before is not None:
            lease = new_lease(generation_id, holder, before.lease.purpose, now, lasting)
            return _hold(place, lease, before)
        readable_entry(place.record(), generation_id)
    except GenerationCollected as error:
        if before is not None and not before.had_expired:
            raise
        raise _expired(generation_id, holder, before, error) from error
    raise LeaseUnknown(
        f"{holder} has no lease of {generation_id}; `genctl lease take` takes one",
        generation_id=generation_id,
        holder=holder,
    )


def release(stores: SpreadStore, generation_id: str, holder: str) -> bool:
    """Give a lease back, in every store that has it; whether one had.

    Raises:
        GenerationUnknown: this is no generation's id.
        StoreRefused, StoreUnavailable, DiskError: a store may have it still.
    """
    _refuse_other_ids(generation_id)
    key = lease_key(generation_id, holder)
    had_it = False
    failure: GenctlError | None = None
    for store in copies_of(stores):
        try:
            if store.stat(key) is not None:
                store.delete(key)
                had_it = True
        except GenctlError as error:
            failure = failure or error
    if failure is not None:
        raise failure
    return had_it


def listed(stores: SpreadStore) -> ListedLeases:
    """The leases in all stores that answer.

    Raises:
        StoreUnavailable, DiskError: no store does.
    """
    answers: list[FoundLeases] = []
    silent: list[GenctlError] = []
    for store in copies_of(stores):
        try:
            answers.append(leases_in(store))
        except GenctlError as error:
            silent.append(error)
    if not answers:
        raise silent[0]
    return ListedLeases(joined(answers), tuple(silent))


def write_first(stores: Sequence[Store], lease: Lease) -> Store:
    """Write a lease into the first store that takes it; which one that is.

    Raises:
        StoreRefused, StoreUnavailable, DiskError: none does; the first one's error.
    """
    failure: GenctlError | None = None
    for store in stores:
        try:
            write_lease(store, lease)
        except GenctlError as error:
            failure = failure or error
        else:
            return store
    assert failure is not None  # noqa: S101 - there is always a store
    raise failure


def _hold(place: LeasePlace, lease: Lease, before: HeldLease | None) -> HeldLease:
    """Write ``lease``, and read the record after it; ``before`` is the same holder's earlier one.

    What cannot be held is taken back, and what was ``before`` is there again.
    """
    stores = list(copies_of(place.stores))
    if before is not None:
        stores.sort(key=lambda store: store.url != before.store)
        if not before.had_expired:
            longest = utc_text(datetime.fromisoformat(lease.taken_at) + LONGEST)
            ends_at = max(lease.expires_at, min(before.lease.expires_at, longest))
            lease = lease.model_copy(update={"expires_at": ends_at})
    store = write_first(stores, lease)
    try:
        readable_entry(place.record(), lease.generation_id)
    except BaseException:
        if before is None:
            store.delete(lease.key)
        else:
            write_lease(store, before.lease)
        raise
    return HeldLease(lease, store.url, before is not None and before.had_expired)


def _expired(
    generation_id: str, holder: str, lease: HeldLease | None, error: GenerationCollected
) -> LeaseExpired:
    """What is told of a lease that keeps nothing any more, as long as its holder asks."""
    if lease is None:
        # A collection keeps what a lease of that time kept, and deletes leases that ended.
        ended = f"no store has a lease of {holder} any more, so one that was there had ended"
    else:
        ended = f"the lease of {holder} ended at {lease.lease.expires_at}"
    return LeaseExpired(
        f"{ended}, and {generation_id} was collected after that: {error.message}",
        **error.facts
        | {
            "generation_id": generation_id,
            "holder": holder,
            "expires_at": lease.lease.expires_at if lease is not None else None,
        },
    )


def _known(stores: SpreadStore, generation_id: str, holder: str, now: datetime) -> HeldLease | None:
    """The lease that a holder has by now, in the store where it ends last.

    A store that does not answer, and what is no lease, has none.
    """
    found: HeldLease | None = None
    for store in copies_of(stores):
        with contextlib.suppress(GenctlError):
            lease = read_lease(store, generation_id, holder)
            if lease is not None and (found is None or found.lease.expires_at < lease.expires_at):
                found = HeldLease(lease, store.url, lease.has_expired(now))
    return found


def _refuse_other_ids(generation_id: str) -> None:
    if not is_generation_id(generation_id):
        raise GenerationUnknown(
            f"{generation_id!r} is not the id of a generation; `genctl generations` lists them",
            generation_id=generation_id,
        )
