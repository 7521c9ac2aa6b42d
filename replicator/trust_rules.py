"""What a node believes, as rules: no I/O, no clock. What the driver read is judged here.

python-tuf judges signatures, expiry and what names what. These rules are about what it forgets with
its cache, or leaves to its users: marks, forks, jumps, clocks, and genctl's own record.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import UTC, datetime, timedelta

from tuf.api.metadata import Root, Snapshot, Targets, Timestamp

from manifests.errors import (
    BelowMinimumVersion,
    ClockSuspect,
    ForkDetected,
    MetadataRollback,
    UnsignedRecord,
    UnsignedRollback,
    VersionJump,
)
from manifests.record import ControlRecord
from manifests.record_changes import went_back_from_seq
from replicator.high_water import HighWater, RoleMark
from store.signed import SIGNED_AT

MAX_VERSION_JUMP = 2**25
"""How far a version may be ahead of the one before: one a second, for a year and three weeks.

A writer makes two versions for a release and one when it signs again, so a node that was off for a
year is far below; whoever jumps to the highest number there is, so that no writer could go beyond
it, is above.
"""

MAX_CLOCK_ERROR = timedelta(hours=1)


def refuse_behind(role: str, version: int, mark: RoleMark | None) -> None:
    """Refuse a version below the mark, or too far above it.

    Raises:
        MetadataRollback: it is below.
        VersionJump: it is more than ``MAX_VERSION_JUMP`` above.
    """
    if mark is None:
        return
    facts = {"role": role, "offered_version": version, "known_version": mark.version}
    if version < mark.version:
        raise MetadataRollback(
            f"the store offers {role} version {version}; this node has accepted {mark.version} "
            "before",
            **facts,
        )
    if version > mark.version + MAX_VERSION_JUMP:
        raise VersionJump(
            f"the store offers {role} version {version}; this node has accepted {mark.version}, "
            f"and no writer gets {MAX_VERSION_JUMP} versions further. Somebody else may have its "
            f"key: rotate every key of the role at the writer, after which versions may start anew",
            **facts,
        )


def refuse_fork(role: str, version: int, sha256: str, blake3: str, mark: RoleMark | None) -> None:
    """Refuse validly signed bytes if others of the same version were accepted before.

    Raises:
        ForkDetected: with the hash of the refused bytes as ``content_hash``.
    """
    if mark is not None and mark.version == version and mark.sha256 != sha256:
        raise ForkDetected(
            f"two different documents are validly signed as {role} version {version}: two writers "
            "use the same keys, or somebody else has them. The one accepted first stands; find out "
            "who signed the other before anything else",
            role=role,
            version=version,
            accepted_sha256=mark.sha256,
            refused_sha256=sha256,
            content_hash=blake3,
        )


def refuse_below_minimum(version: int, minimum_version: int | None) -> None:
    """Refuse the first record of a new node if it is older than what it was told to start from.

    Raises:
        BelowMinimumVersion: it is.
    """
    if minimum_version is not None and version < minimum_version:
        raise BelowMinimumVersion(
            f"the store offers record version {version}, and this new node was told to start from "
            f"{minimum_version} or newer: the store is an old copy, or somebody shows an old one. "
            "Compare with `record version` of `genctl status` at the writer",
            offered_version=version,
            minimum_version=minimum_version,
        )


def without_revoked(mark: HighWater, root: Root) -> HighWater:
    """The mark under ``root``: a role whose signers it has taken away starts anew (TUF 5.3.11).

    Such a role's last document would not be accepted today, so its version says nothing; that is
    how a shard recovers from whoever signed a huge version with a stolen key. The versions of
    targets are vouched for by the snapshot, and start anew with it.
    """
    timestamp, snapshot, targets = (
        None if marked is not None and _is_revoked(marked, root, role) else marked
        for role, marked in (
            (Timestamp.type, mark.timestamp),
            (Snapshot.type, mark.snapshot),
            (Targets.type, mark.targets),
        )
    )
    if snapshot is None:
        targets = None
    return mark.model_copy(
        update={
            "timestamp": timestamp,
            "snapshot": snapshot,
            "targets": targets,
            "signed_at": mark.signed_at if timestamp else None,
            "active_high_seq": mark.active_high_seq if targets else None,
        }
    )


def _is_revoked(mark: RoleMark, root: Root, role: str) -> bool:
    left: Collection[str] = set(mark.key_ids) & set(root.roles[role].keyids)
    return len(left) < root.roles[role].threshold


def signed_at(timestamp: Timestamp) -> str | None:
    """When the timestamp says that it was signed; ``None`` for one that does not.

    Raises:
        UnsignedRecord: it says something else than a time in UTC.
    """
    value = timestamp.unrecognized_fields.get(SIGNED_AT)
    if value is None:
        return None
    try:
        time = datetime.strptime(value, "%Y-%m-%dT%H:%M:%SZ")  # noqa: DTZ007 - Z is UTC
    except (TypeError, ValueError) as error:
        raise UnsignedRecord(f"{SIGNED_AT} of the timestamp is no time in UTC: {error}") from error
    return time.isoformat() + "Z"


def refuse_clock_behind(now: datetime, signed: str | None) -> None:
    """Refuse to judge expiry by a clock that is behind what was signed.

    Raises:
        ClockSuspect: it is more than an hour behind.
    """
    if signed is not None:
        time = datetime.fromisoformat(signed).astimezone(UTC)
        if now + MAX_CLOCK_ERROR < time:
            raise ClockSuspect(
                f"it is {now.isoformat()} by this machine's clock, and the record was signed at "
                f"{signed}: set the clock right here, or at the writer",
                now=now.isoformat(),
                signed_at=signed,
            )


def refuse_clock_off(now: datetime, store_time: datetime | None) -> None:
    """Refuse to judge expiry by a clock that is far from the store's, where that tells its time.

    Raises:
        ClockSuspect: they are more than an hour apart.
    """
    if store_time is not None and abs(now - store_time) > MAX_CLOCK_ERROR:
        raise ClockSuspect(
            f"it is {now.isoformat()} by this machine's clock and {store_time.isoformat()} by the "
            "store's: one of them is wrong; set it right",
            now=now.isoformat(),
            store_time=store_time.isoformat(),
        )


def refuse_unsigned_rollback(record: ControlRecord, version: int, mark: HighWater) -> None:
    """Refuse a record that goes back without saying so.

    A record of schema version 1 forgets a rollback with the next publish. Of such a one it can only
    be known in the very next version of the targets, since between two that are further apart a
    rollback may lie that this node has not seen.

    Raises:
        UnsignedRollback: its active generation is older than the one accepted before.
    """
    if record.active is None or mark.active_high_seq is None or mark.targets is None:
        return
    active = record.active_entry()
    is_known = record.schema_version > 1 or version == mark.targets.version + 1
    if is_known and active.high_seq < mark.active_high_seq > went_back_from_seq(record):
        raise UnsignedRollback(
            f"the record makes {active.generation_id} active, which is older than what was active "
            f"before (commit_seq {mark.active_high_seq}), but it is no rollback. If that is meant, "
            "`genctl rollback` at the writer",
            generation_id=active.generation_id,
            high_seq=active.high_seq,
            known_high_seq=mark.active_high_seq,
        )
