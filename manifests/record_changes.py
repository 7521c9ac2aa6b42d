"""The changes of the control record: each makes the next record from the one before it.

Here are also the rules of going back, by which writers refuse to make a record that goes back
without saying so, and nodes to believe one.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from manifests.errors import (
    BadSetting,
    CollectionUnderWay,
    CommitRangeGap,
    NothingPublished,
    UnsignedRollback,
)
from manifests.record import SCHEMA_VERSION, ControlRecord, GenerationEntry, utc_text

MOST_AHEAD = timedelta(hours=1)
"""How far a writer's clock may have been ahead when it published what is there."""


def with_published(record: ControlRecord, entry: GenerationEntry, now: datetime) -> ControlRecord:
    """The next record after publishing ``entry``; the active generation stays what it was.

    Raises:
        CommitRangeGap: the entry does not start where its parent, the newest published one, ends.
        CollectionUnderWay: a collection is.
    """
    if record.collecting is not None:
        raise CollectionUnderWay(
            "another home of this shard began a collection, and has not ended it; nothing is "
            "published meanwhile. Wait for it, or run `genctl gc` there. If that home is lost, "
            "`genctl gc --take-over` ends it here",
            collecting=record.collecting,
        )
    newest = record.published[-1] if record.published else None
    expected_low = newest.high_seq + 1 if newest else 1
    expected_parent = newest.generation_id if newest else None
    if entry.low_seq != expected_low or entry.parent_generation_id != expected_parent:
        raise CommitRangeGap(
            f"generation {entry.generation_id} starts at commit {entry.low_seq} after "
            f"{entry.parent_generation_id}, but the record expects {expected_low} after "
            f"{expected_parent}",
            generation_id=entry.generation_id,
            expected_low_seq=expected_low,
            found_low_seq=entry.low_seq,
        )
    record = as_newest_schema(record)
    # A clock that is a little back must not make what is newer look older; one that was far ahead
    # once must not make all that follows look as new.
    believed = utc_text(now + MOST_AHEAD)
    earlier = (each for each in record.published_at.values() if each <= believed)
    at = max((utc_text(now), *earlier))
    return record.model_copy(
        update={
            "kind": "publish",
            "reason": None,
            "published": (*record.published, entry),
            "retained": (*record.retained, entry.generation_id),
            "published_at": {**record.published_at, entry.generation_id: at},
        }
    )


def as_newest_schema(record: ControlRecord) -> ControlRecord:
    """The same record in the newest schema, which has a field for all that a change may set."""
    if record.schema_version == SCHEMA_VERSION:
        return record
    # A record of the first schema says that it went back by its kind, which a change may replace.
    went_back = [e for e in record.published if e.high_seq == went_back_from_seq(record)]
    return record.model_copy(
        update={
            "schema_version": SCHEMA_VERSION,
            "rolled_back_from": went_back[0].generation_id if went_back else None,
            "passed_over": _behind(record, went_back[0].high_seq) if went_back else (),
        }
    )


def _behind(record: ControlRecord, high_seq: int) -> tuple[str, ...]:
    """The generations up to ``high_seq`` that are newer than the active one."""
    active_seq = record.active_entry().high_seq if record.active is not None else 0
    return tuple(e.generation_id for e in record.published if active_seq < e.high_seq <= high_seq)


def with_active(record: ControlRecord, generation_id: str) -> ControlRecord:
    """The next record that makes a published, newer generation the active one.

    Raises:
        GenerationNotPublished: it was never published.
        GenerationCollected: it is no longer retained.
        GenerationRevoked: it was revoked.
        UnsignedRollback: it is older than the active one; that takes a rollback.
    """
    entry = readable_entry(record, generation_id)
    if record.active is not None and entry.high_seq < record.active_entry().high_seq:
        raise UnsignedRollback(
            f"{generation_id} is older than the active {record.active}; "
            "use `genctl rollback --to` with a reason",
            generation_id=generation_id,
            active=record.active,
        )
    left = record.rolled_back_from
    if left is not None and entry.high_seq >= record.entry(left).high_seq:
        left = None
    return record.model_copy(
        update={
            "kind": "activate",
            "reason": None,
            "active": entry.generation_id,
            "rolled_back_from": left,
            "passed_over": tuple(each for each in record.passed_over if each != generation_id),
        }
    )


def readable_entry(record: ControlRecord, generation_id: str) -> GenerationEntry:
    """The entry of a generation that can still be read.

    Raises:
        GenerationNotPublished: it was never published.
        GenerationCollected: it is no longer retained.
        GenerationRevoked: it was revoked.
    """
    record.refuse_revoked(generation_id)
    entry = record.entry(generation_id)
    if generation_id not in record.retained:
        raise record.forgotten(
            f"{generation_id} is not retained any more", generation_id=generation_id
        )
    return entry


def with_rollback(record: ControlRecord, generation_id: str, reason: str) -> ControlRecord:
    """The next record that goes back to an older generation: newer in version, older in content.

    Raises:
        GenerationNotPublished: it was never published.
        GenerationCollected: it is no longer retained.
        GenerationRevoked: it was revoked.
        BadSetting: it is newer than the active one; that takes an activation.
    """
    entry = readable_entry(record, generation_id)
    if entry.high_seq > record.active_entry().high_seq:
        raise BadSetting(
            f"{generation_id} is newer than the active {record.active}; use `genctl activate`",
            generation_id=generation_id,
            active=record.active,
        )
    record = as_newest_schema(record)
    back = record.model_copy(
        update={
            "kind": "rollback",
            "reason": reason,
            "active": generation_id,
            # Behind the newest of all that were gone back from, the record is behind each of them.
            "rolled_back_from": record.rolled_back_from or record.active,
        }
    )
    left = {*record.passed_over, *_behind(back, record.active_entry().high_seq)}
    return back.model_copy(
        update={"passed_over": tuple(sorted(left - {generation_id, *record.revoked}))}
    )


def is_rolled_back(record: ControlRecord, generation_id: str) -> bool:
    """Whether a rollback went behind this generation, and nothing went forward to it since.

    A release that finds nothing new must not undo it; naming the generation to ``activate`` may.
    """
    left = as_newest_schema(record).rolled_back_from
    if record.active is None or left is None:
        return False
    high_seq = record.entry(generation_id).high_seq
    return record.active_entry().high_seq < high_seq <= record.entry(left).high_seq


def went_back_from_seq(record: ControlRecord) -> int:
    """How new a generation may be that the active one was gone back to from; 0: none.

    A record that was of schema version 1 when it went back says no more than that it did.
    """
    if record.rolled_back_from is not None:
        return record.entry(record.rolled_back_from).high_seq
    return record.published[-1].high_seq if record.kind in {"rollback", "revoke"} else 0


def rollback_target(record: ControlRecord) -> str:
    """The generation a rollback goes to when none is named: the retained one before the active.

    What a rollback went behind before is not gone to again.

    Raises:
        NothingPublished: there is none before it.
    """
    active = record.active_entry()
    older = [entry for entry in record.retained_entries() if entry.high_seq < active.high_seq]
    sound = [entry for entry in older if entry.generation_id not in record.passed_over]
    if not sound:
        failure = f"there is no retained generation before the active {active.generation_id}"
        if older:
            failure += (
                f" but what was gone back from; `genctl rollback --to {older[-1].generation_id}` "
                "goes there all the same"
            )
        raise NothingPublished(failure, generation_id=active.generation_id)
    return sound[-1].generation_id


def with_revoked(record: ControlRecord, generation_id: str, reason: str) -> ControlRecord:
    """The next record, in which a generation is withdrawn: nobody reads or activates it any more.

    If it is the active one, the one that a rollback would go to is active instead. The same again
    changes nothing.

    Raises:
        GenerationNotPublished: it was never published.
        GenerationCollected: it is no longer retained.
        NothingPublished: it is the active one, and there is none to go back to.
    """
    if generation_id in record.revoked:
        return record
    readable_entry(record, generation_id)
    record = as_newest_schema(record)
    active, left = record.active, record.rolled_back_from
    if active == generation_id:
        active, left = rollback_target(record), left or active
    return record.model_copy(
        update={
            "kind": "revoke",
            "reason": reason,
            "active": active,
            "rolled_back_from": left,
            "revoked": (*record.revoked, generation_id),
            "passed_over": tuple(each for each in record.passed_over if each != generation_id),
            "tags": tuple(each for each in record.tags if each.generation_id != generation_id),
            "pins": tuple(each for each in record.pins if each.generation_id != generation_id),
        }
    )
