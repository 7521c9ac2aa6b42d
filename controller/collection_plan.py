"""What a collection of a writer's home and its stores would do, worked out without doing it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from builder.collect import survey
from builder.garbage import Marks, StoreTally
from builder.repository import TIMESTAMP_KEY, CurrentState
from controller.home_garbage import HomeGarbage, home_garbage
from controller.roots import Rooted, leased, root_all
from controller.writer import WriterHome
from manifests.names import CONTROL_TARGET, metadata_key, target_key
from manifests.record import ControlRecord
from manifests.retention import Retention, retention
from store.leases import FoundLeases, Lease, leases_in
from store.signed import SignedState


@dataclass(frozen=True, slots=True)
class Judgement:
    """What a collection would go by; no store was listed for it.

    Attributes:
        record: as it is signed.
        retention: which of the published generations stay, and why.
        rooted: what is reachable once the others are dropped.
        marks: what objects in the stores are judged by.
        leases: all that there are.
        now: the time it was made.
    """

    record: ControlRecord
    retention: Retention
    rooted: Rooted
    marks: Marks
    leases: FoundLeases
    now: datetime

    @property
    def was_interrupted(self) -> bool:
        """Whether a collection was begun before, and not ended."""
        return self.record.collecting is not None


@dataclass(frozen=True, slots=True)
class CollectionPlan(Judgement):
    """What a collection would do.

    Attributes:
        stores: what each store holds, by what would become of it.
        home: what would go in the home.
    """

    stores: tuple[StoreTally, ...]
    home: HomeGarbage

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


def plan(writer: WriterHome, now: datetime) -> CollectionPlan:
    """What a collection would do now. Nothing is changed, and no lock is taken.

    Raises:
        WriterFenced: another home writes to this shard.
        RecordPutBack, ForeignRecord: the record is not the one that this home signed last.
        PartsMissing: a generation that stays, or its manifest, is lost or damaged in the home.
        UnsignedRecord, ObjectMissing, TrustError: the record cannot be read.
        StoreUnavailable, DiskError: a store or the disk does not answer.
    """
    return planned(writer, writer.current(), now)


def planned(writer: WriterHome, current: CurrentState, now: datetime) -> CollectionPlan:
    """The same from ``current``, which was just read."""
    made = judged(writer, current, now)
    return CollectionPlan(
        made.record,
        made.retention,
        made.rooted,
        made.marks,
        made.leases,
        made.now,
        stores=tuple(survey(writer.store().stores, made.marks)),
        home=home_garbage(writer, made.rooted),
    )


def judged(writer: WriterHome, current: CurrentState, now: datetime) -> Judgement:
    """What it would go by, from ``current``. Raises what :func:`plan` does."""
    record = current.signed.record
    writer.refuse_anothers(current)
    with writer.store().needing_all():
        leases = leases_in(writer.store())
    kept = retention(record, writer.settings.retention, leased(leases, now), now)
    rooted = root_all(writer, current.signed, kept, leased(leases, now))
    rooted.refuse_lost()
    marks = marks_of(writer, current.signed, rooted, leases, now)
    return Judgement(record, kept, rooted, marks, leases, now)


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
    staying = {root.name for root in rooted.reach.roots}
    return Marks(
        reach=rooted.reach,
        store_count=len(writer.store().stores),
        named=named_keys(signed),
        versions={"targets": signed.targets.version, "snapshot": signed.snapshot.version},
        freed=frozenset(freed | rooted.leaving.keys()),
        # One of a generation that stays may be renewed at this very moment; of others, none can be.
        over_leases=frozenset(
            lease.key
            for lease in leases.leases
            if lease.has_expired(now, for_longer_than=grace) and lease.generation_id not in staying
        ),
        now=now,
        grace=grace,
    )
