"""What a collection of a writer's home and its stores would do, worked out without doing it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from builder.collect import survey
from builder.garbage import Marks, Object, StoreTally
from builder.repository import TIMESTAMP_KEY, CurrentState
from controller.home_garbage import HomeGarbage, home_garbage
from controller.roots import Rooted, leased, root_all
from controller.writer import WriterHome
from manifests.names import CONTROL_TARGET, metadata_key, target_key
from manifests.retention import Retention, retention
from store.leases import FoundLeases, Lease, leases_in
from store.signed import SignedState


@dataclass(frozen=True, slots=True)
class CollectionPlan:
    """What a collection would do.

    Attributes:
        retention: which of the published generations stay, and why.
        rooted: what is reachable once the others are dropped.
        marks: what objects in the stores are judged by.
        leases: all that there are.
        stores: what each store holds, by what would become of it.
        home: what would go in the home.
        was_interrupted: whether a collection was begun before, and not ended.
        now: the time it was made.
    """

    retention: Retention
    rooted: Rooted
    marks: Marks
    leases: FoundLeases
    stores: tuple[StoreTally, ...]
    home: HomeGarbage
    was_interrupted: bool
    now: datetime

    @property
    def is_due(self) -> bool:
        """Whether the record has to be moved for it."""
        return bool(
            self.retention.dropped
            or self.was_interrupted
            or any(tally.is_due for tally in self.stores)
        )

    @property
    def expired_leases(self) -> tuple[Lease, ...]:
        """Those that keep nothing any more."""
        return tuple(lease for lease in self.leases.leases if lease.has_expired(self.now))

    @property
    def unknown_leases(self) -> tuple[Lease, ...]:
        """Those of generations that there are not, here or in the record."""
        known = {root.name for root in self.rooted.reach.roots} | self.rooted.leaving.keys()
        return tuple(each for each in self.leases.leases if each.generation_id not in known)


def plan(
    writer: WriterHome, now: datetime, look: Callable[[Object], None] = lambda _: None
) -> CollectionPlan:
    """What a collection would do now. Nothing is changed, and no lock is taken.

    ``look`` is shown every object of every store.

    Raises:
        WriterFenced: another home writes to this shard.
        ManifestError: a manifest of a generation that stays is damaged in the home.
        UnsignedRecord, ObjectMissing, TrustError: the record cannot be read.
        StoreUnavailable, DiskError: a store or the disk does not answer.
    """
    return planned(writer, writer.current(), now, look)


def planned(
    writer: WriterHome,
    current: CurrentState,
    now: datetime,
    look: Callable[[Object], None] = lambda _: None,
) -> CollectionPlan:
    """The same from ``current``, which was just read."""
    record = current.signed.record
    writer.publisher().check_own(record)
    leases = leases_in(writer.store())
    kept = retention(record, writer.settings.retention, leased(leases, now), now)
    rooted = root_all(writer, record, kept, leased(leases, now))
    marks = marks_of(writer, current.signed, rooted, leases, now)
    return CollectionPlan(
        retention=kept,
        rooted=rooted,
        marks=marks,
        leases=leases,
        stores=tuple(survey(writer.store().stores, marks, look)),
        home=home_garbage(writer, rooted),
        was_interrupted=record.collecting is not None,
        now=now,
    )


def named_keys(signed: SignedState) -> frozenset[str]:
    """The keys of the metadata and the record that a timestamp leads to, itself among them."""
    control = signed.targets.targets[CONTROL_TARGET].hashes["sha256"]
    return frozenset(
        {
            TIMESTAMP_KEY,
            metadata_key(f"{signed.snapshot.version}.snapshot.json"),
            metadata_key(f"{signed.targets.version}.targets.json"),
            target_key(CONTROL_TARGET, control),
        }
    )


def marks_of(
    writer: WriterHome, signed: SignedState, rooted: Rooted, leases: FoundLeases, now: datetime
) -> Marks:
    """What objects are judged by, as long as ``signed`` is what is signed."""
    grace = timedelta(hours=writer.settings.collection_grace_hours)
    freed = {each.blake3 for artifacts in rooted.leaving.values() for each in artifacts}
    return Marks(
        reach=rooted.reach,
        store_count=len(writer.store().stores),
        named=named_keys(signed),
        versions={"targets": signed.targets.version, "snapshot": signed.snapshot.version},
        freed=frozenset(freed | rooted.leaving.keys()),
        over_leases=frozenset(
            lease.key for lease in leases.leases if lease.has_expired(now, for_longer_than=grace)
        ),
        now=now,
        grace=grace,
    )
