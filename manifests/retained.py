"""What is retained of the record's generations: names, pins and collections, as changes of it.

Which generations a collection takes out is decided in :mod:`manifests.retention`; here is what the
record says then. None of these changes is a movement: ``kind`` and ``reason`` stay what they were.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from collections.abc import Set as AbstractSet

from pydantic import ValidationError

from manifests.errors import BadSetting, NothingPublished, WriterFenced
from manifests.identifiers import is_generation_id
from manifests.record import CollectedCommits, ControlRecord, Pin, Tag
from manifests.record_changes import as_newest_schema, readable_entry, rollback_target


def with_tag(record: ControlRecord, name: str, generation_id: str) -> ControlRecord:
    """The next record, in which a generation has one more name; the same again changes nothing.

    Raises:
        GenerationNotPublished, GenerationCollected, GenerationRevoked: it cannot be read.
        BadSetting: another generation has that name, or it is not one.
    """
    readable_entry(record, generation_id)
    tag = _tag(name, generation_id)
    record = as_newest_schema(record)
    tags = {tag.name: tag for tag in record.tags}
    if name in tags and tags[name].generation_id != generation_id:
        raise BadSetting(
            f"{name} is the tag of {tags[name].generation_id}; `genctl untag` takes it away first",
            generation_id=tags[name].generation_id,
        )
    tags[name] = tag
    return record.model_copy(update={"tags": tuple(tags[each] for each in sorted(tags))})


def _tag(name: str, generation_id: str) -> Tag:
    try:
        if not is_generation_id(name):
            return Tag(name=name, generation_id=generation_id)
    except ValidationError:
        pass
    raise BadSetting(
        f"{name!r} cannot be a tag: 1 to 63 lower-case letters, digits, dots, hyphens and "
        "underscores, of which the first is a letter or a digit, and no generation's id",
        field="name",
    )


def without_tag(record: ControlRecord, name: str) -> ControlRecord:
    """The next record, in which no generation has that name; the same again changes nothing."""
    kept = tuple(tag for tag in record.tags if tag.name != name)
    return record.model_copy(update={"tags": kept})


def with_pin(record: ControlRecord, generation_id: str, reason: str) -> ControlRecord:
    """The next record, in which a generation is retained until its pin is taken away.

    Another reason takes the place of the one before; the same again changes nothing.

    Raises:
        GenerationNotPublished, GenerationCollected, GenerationRevoked: it cannot be read.
    """
    readable_entry(record, generation_id)
    record = as_newest_schema(record)
    pins = {pin.generation_id: pin for pin in record.pins}
    pins[generation_id] = Pin(generation_id=generation_id, reason=reason)
    return record.model_copy(update={"pins": tuple(pins[each] for each in sorted(pins))})


def without_pin(record: ControlRecord, generation_id: str) -> ControlRecord:
    """The next record, in which a generation has no pin; the same again changes nothing.

    Raises:
        GenerationNotPublished, GenerationCollected: there is no such generation.
    """
    record.entry(generation_id)
    kept = tuple(pin for pin in record.pins if pin.generation_id != generation_id)
    return record.model_copy(update={"pins": kept})


def never_collected(record: ControlRecord) -> dict[str, tuple[str, ...]]:
    """The generations that the record cannot do without, and why, in words.

    The active one, the one a rollback goes to, the one it was gone back from, and the newest, upon
    which the next is built.
    """
    back = None
    with contextlib.suppress(NothingPublished):
        back = rollback_target(record)
    needed: dict[str, tuple[str, ...]] = {}
    for generation_id, why in (
        (record.active, "active"),
        (back, "the one that a rollback goes to"),
        (record.rolled_back_from, "the one that was gone back from"),
        (record.published[-1].generation_id if record.published else None, "newest"),
    ):
        if generation_id is not None:
            needed[generation_id] = (*needed.get(generation_id, ()), why)
    return needed


def with_collection_begun(
    record: ControlRecord, dropped: AbstractSet[str], token: str
) -> ControlRecord:
    """The next record, without the ``dropped`` generations and with a collection under way.

    Once it is signed, a writer that has an older record is fenced, nobody publishes upon this one,
    and nothing that only the dropped ones reach is read any more.

    Args:
        record: the record before; a collection that was interrupted may be under way in it.
        dropped: ids of published generations.
        token: 64 hexadecimal digits that no other collection has.

    Raises:
        BadSetting: one of them is tagged, pinned, or one that the record cannot do without.
    """
    named = {tag.generation_id for tag in record.tags}
    named |= {pin.generation_id for pin in record.pins}
    kept = dropped & (named | never_collected(record).keys())
    if kept:
        raise BadSetting(
            f"{min(kept)} cannot be collected: it is tagged, pinned, active, newest, or on the way "
            "back from the active one",
            generation_id=min(kept),
        )
    record = as_newest_schema(record)
    gone = [
        CollectedCommits(low_seq=entry.low_seq, high_seq=entry.high_seq)
        for entry in record.published
        if entry.generation_id in dropped
    ]
    return record.model_copy(
        update={
            "published": tuple(e for e in record.published if e.generation_id not in dropped),
            "retained": tuple(each for each in record.retained if each not in dropped),
            "passed_over": tuple(each for each in record.passed_over if each not in dropped),
            "published_at": {k: v for k, v in record.published_at.items() if k not in dropped},
            "embedder_overrides": tuple(
                each for each in record.embedder_overrides if each.generation_id not in dropped
            ),
            "collected": joined((*record.collected, *gone)),
            "collecting": token,
        }
    )


def with_collection_ended(record: ControlRecord, token: str) -> ControlRecord:
    """The next record, with no collection under way.

    Raises:
        WriterFenced: the one under way is not this one any more.
    """
    if record.collecting != token:
        raise WriterFenced(
            "another collection of this shard has begun since; run the command again",
            collecting=record.collecting,
        )
    return record.model_copy(update={"collecting": None})


def joined(ranges: Iterable[CollectedCommits]) -> tuple[CollectedCommits, ...]:
    """The same commits in as few ranges as possible, ascending."""
    fewest: list[CollectedCommits] = []
    for each in sorted(ranges, key=lambda span: span.low_seq):
        touches = bool(fewest) and fewest[-1].high_seq + 1 == each.low_seq
        low_seq = fewest.pop().low_seq if touches else each.low_seq
        fewest.append(CollectedCommits(low_seq=low_seq, high_seq=each.high_seq))
    return tuple(fewest)
