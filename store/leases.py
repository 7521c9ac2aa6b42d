"""Leases: who needs a generation to stay for a while, beside the record and not part of it.

A lease is a small object under ``leases/<generation_id>/<holder>.json``. Whoever takes one writes
it first and then reads the record again; a collection signs the record without a generation first
and then lists the leases again. So one of the two sees the other, whichever came first.

Leases are not mirrored: one lies in whichever store took it, and counts there. Nothing signs them.
Who can write to a store can plant leases, and with them keep generations for as long as a lease
may last and go on planting, which costs space; a lease makes nobody believe anything.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Annotated, Literal

from pydantic import StringConstraints

from manifests.canonical import Frozen, parse_document, to_canonical
from manifests.errors import (
    LengthExceeded,
    ManifestMalformed,
    ObjectObstructed,
    SchemaTooNew,
    StoreUnavailable,
)
from manifests.identifiers import GenerationId, is_generation_id
from manifests.record import UtcTime, utc_text
from store.port import Store
from store.spread import copies_of

PREFIX = "leases/"
SCHEMA_VERSION = 1
LONGEST = timedelta(days=30)
"""How long after it was taken or last renewed a lease is honoured at most."""
MOST_AHEAD = LONGEST
"""How far a holder's clock may be ahead of the reader's, who may be the one that is wrong; a lease
that is later counts for none."""
LATEST = "9000-01-01T00:00:00Z"
"""No clock is as late as that, and what is later cannot be reckoned with."""
MAX_SIZE_BYTES = 4096
MAX_UNREADABLE = 100
"""How many objects that are no leases are told one by one."""
MAX_ROUNDS = 20
"""How often a lease is written anew because somebody else wrote it meanwhile."""

_HOLDER = r"[a-z0-9][a-z0-9._-]{0,62}"
_PURPOSE = r"[^\x00-\x1f\x7f-\x9f]{0,200}"
_KEY = re.compile(rf"leases/([^/]+)/({_HOLDER})\.json")
Holder = Annotated[str, StringConstraints(pattern=f"^{_HOLDER}$")]
Purpose = Annotated[str, StringConstraints(pattern=f"^{_PURPOSE}$")]


class Lease(Frozen):
    """One holder's need of one generation, until a time.

    Attributes:
        holder: a name; each holder has one lease of a generation.
        purpose: for people.
        taken_at: when it was taken, or renewed last.
        expires_at: when it ends of itself.
    """

    schema_version: Literal[1] = 1
    generation_id: GenerationId
    holder: Holder
    purpose: Purpose
    taken_at: UtcTime
    expires_at: UtcTime

    @property
    def key(self) -> str:
        """Where it lies in a store."""
        return lease_key(self.generation_id, self.holder)

    def has_expired(self, now: datetime, *, for_longer_than: timedelta = timedelta(0)) -> bool:
        """Whether it counts no more, and has not for a while: it is over, or cannot be true.

        It counts for :data:`LONGEST` after ``taken_at`` at most, whatever ``expires_at`` says, and
        for nothing if it was taken later than :data:`MOST_AHEAD` from ``now``.
        """
        taken_at = datetime.fromisoformat(self.taken_at)
        ends_at = min(datetime.fromisoformat(self.expires_at), taken_at + LONGEST)
        return now - for_longer_than >= ends_at or taken_at > now + MOST_AHEAD


@dataclass(frozen=True, slots=True)
class UnreadableLease:
    """An object under ``leases/`` that is no lease, and why."""

    store: str
    key: str
    reason: str


@dataclass(frozen=True, slots=True)
class FoundLeases:
    """What lies under ``leases/`` in one or more stores.

    Attributes:
        leases: by generation and holder, expired ones among them; of one that several stores have,
            the one that ends last.
        unreadable: what is no lease, the first of them; it keeps nothing.
        unreadable_count: how many there are.
    """

    leases: tuple[Lease, ...]
    unreadable: tuple[UnreadableLease, ...]
    unreadable_count: int


def is_holder(text: str) -> bool:
    """Whether ``text`` can be a holder's name: safe as the name of a file, in lower case."""
    return re.fullmatch(_HOLDER, text) is not None


def is_purpose(text: str) -> bool:
    """Whether ``text`` can be a purpose: one line, valid Unicode."""
    return re.fullmatch(_PURPOSE, text) is not None and text.isprintable()


def lease_key(generation_id: str, holder: str) -> str:
    """The store key of a holder's lease of a generation."""
    return f"{PREFIX}{generation_id}/{holder}.json"


def new_lease(
    generation_id: str, holder: str, purpose: str, now: datetime, lasting: timedelta
) -> Lease:
    """A lease from ``now`` on.

    Raises:
        pydantic.ValidationError: one of the values cannot be.
    """
    return Lease(
        generation_id=generation_id,
        holder=holder,
        purpose=purpose,
        taken_at=utc_text(now),
        expires_at=utc_text(now + lasting),
    )


def leases_in(store: Store) -> FoundLeases:
    """All leases in ``store``; in each store of several.

    What is under ``leases/`` and is none is told and stops nobody. An object that is no lease by
    its key is not read, and of others no more than a lease may have.

    Raises:
        StoreUnavailable, DiskError: a store does not answer, so what it holds is not known.
    """
    return joined(_leases_in_one(each) for each in copies_of(store))


def joined(parts: Iterable[FoundLeases]) -> FoundLeases:
    """What lies in several stores, as one."""
    latest: dict[tuple[str, str], Lease] = {}
    unreadable: list[UnreadableLease] = []
    unreadable_count = 0
    for part in parts:
        unreadable += part.unreadable[: MAX_UNREADABLE - len(unreadable)]
        unreadable_count += part.unreadable_count
        for lease in part.leases:
            name = (lease.generation_id, lease.holder)
            if name not in latest or latest[name].expires_at < lease.expires_at:
                latest[name] = lease
    return FoundLeases(
        tuple(latest[name] for name in sorted(latest)), tuple(unreadable), unreadable_count
    )


def _leases_in_one(store: Store) -> FoundLeases:
    leases: list[Lease] = []
    unreadable: list[UnreadableLease] = []
    unreadable_count = 0
    for info in store.list(PREFIX):
        found = _lease_at(store, info.key)
        if isinstance(found, Lease):
            leases.append(found)
        elif found is not None:
            unreadable_count += 1
            if len(unreadable) < MAX_UNREADABLE:
                unreadable.append(found)
    return FoundLeases(tuple(leases), tuple(unreadable), unreadable_count)


def _lease_at(store: Store, key: str) -> Lease | UnreadableLease | None:
    """The lease under a key that was listed; ``None`` if it was released since."""
    named = _KEY.fullmatch(key)
    if named is None or not is_generation_id(named[1]):
        return UnreadableLease(store.url, key, "its key is no lease's")
    try:
        return read_lease(store, named[1], named[2])
    except (LengthExceeded, ManifestMalformed, SchemaTooNew, ObjectObstructed) as error:
        return UnreadableLease(store.url, key, f"{error.name}: {error.message}")


def read_lease(store: Store, generation_id: str, holder: str) -> Lease | None:
    """A holder's lease of a generation in one store, or ``None`` if there is none.

    Raises:
        LengthExceeded, ManifestMalformed, SchemaTooNew: what is there is no lease, or another one.
        StoreUnavailable, DiskError: the store does not answer.
    """
    key = lease_key(generation_id, holder)
    found = store.get_versioned(key, limit_bytes=MAX_SIZE_BYTES)
    if found is None:
        return None
    lease = parse_document(found.data, Lease, SCHEMA_VERSION)
    try:
        times = [datetime.fromisoformat(each) for each in (lease.taken_at, lease.expires_at)]
    except ValueError as error:
        raise ManifestMalformed(f"{key}: {error}") from error
    if lease.expires_at > LATEST:
        raise ManifestMalformed(f"{key} says that it ends at {lease.expires_at}")
    if lease.key != key or times[0] > times[1]:
        raise ManifestMalformed(f"{key} is another lease's, or ends before it begins")
    return lease


def write_lease(store: Store, lease: Lease) -> None:
    """Put a lease into one store, in the place of its holder's earlier one or of what is none.

    Raises:
        StoreRefused: the store may not be written.
        StoreUnavailable, DiskFull, DiskError: it does not answer; the lease may be there.
    """
    data = to_canonical(lease)
    for _ in range(MAX_ROUNDS):
        try:
            found = store.get_versioned(lease.key, limit_bytes=MAX_SIZE_BYTES)
        except LengthExceeded:
            store.delete(lease.key)
            continue
        if found is None:
            written = store.put_if_absent(lease.key, [data])
        else:
            written = found.data == data or store.compare_and_swap(lease.key, data, found.version)
        if written:
            return
    raise StoreUnavailable(
        f"{lease.key} in {store.url} is being written by others all the time; choose another name "
        "for the holder",
        store=store.url,
        key=lease.key,
    )
