"""What is retained: which generations a collection keeps, and why, by a policy and the record.

Pure: a policy, a record, leases and a time give the answer, the same one every time.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Self

from pydantic import Field, model_validator

from manifests.canonical import Frozen
from manifests.identifiers import GenerationId
from manifests.record import ControlRecord, GenerationEntry
from manifests.retained import never_collected

MAX_HOURS = 100 * 366 * 24
MAX_RULES = 16
HOUR_S = 3600
KEEPS_ALL = "no policy: all are kept"
REVOKED_BUT_NEEDED = "revoked: goes once something newer is active"
REVOKED_BUT_LEASED = "revoked: goes once no lease keeps it"

Hours = Annotated[int, Field(ge=1, le=MAX_HOURS)]
Reasons = Iterator[tuple[GenerationId, str]]


class KeepEvery(Frozen):
    """Of those published in the last ``for_hours``, the newest one every so many hours is kept.

    The windows of ``every_hours`` are counted from the UTC epoch, so that which one a generation is
    in does not depend on when somebody looks.
    """

    every_hours: Hours
    for_hours: Hours

    @model_validator(mode="after")
    def _is_for_one_window_at_least(self) -> Self:
        if self.for_hours < self.every_hours:
            raise ValueError("for_hours must not be less than every_hours")
        return self

    def __str__(self) -> str:
        often = {1: "hourly", 24: "daily", 168: "weekly"}
        every = often.get(self.every_hours, f"every {_span(self.every_hours)}")
        return f"{every} for {_span(self.for_hours)}"


class RetentionPolicy(Frozen):
    """Which generations are kept besides those that must be; one rule that keeps one is enough.

    Where no rule is set, all that can be read are kept.

    Attributes:
        keep_last: so many of the newest.
        keep_within_hours: those published in so many hours before now.
        keep_every: ever fewer of the older ones.
    """

    keep_last: int | None = Field(default=None, ge=1, le=1_000_000)
    keep_within_hours: Hours | None = None
    keep_every: tuple[KeepEvery, ...] = Field(default=(), max_length=MAX_RULES)

    @property
    def keeps_all(self) -> bool:
        """Whether no rule is set."""
        return self == RetentionPolicy()


@dataclass(frozen=True, slots=True)
class Retention:
    """What a collection keeps of the published generations, and what it takes out.

    Attributes:
        kept: why, in words, by generation, oldest first; at least one reason each.
        dropped: the others, oldest first.
    """

    kept: dict[GenerationId, tuple[str, ...]]
    dropped: tuple[GenerationId, ...]


def retention(
    record: ControlRecord,
    policy: RetentionPolicy,
    leased: Mapping[GenerationId, Sequence[str]],
    now: datetime,
) -> Retention:
    """Decide which published generations are kept.

    Whatever the policy: what the record cannot do without, tagged, pinned and leased ones. What
    nobody may read, because it was revoked, no policy keeps; where it stays all the same, the last
    of its reasons says until when. A generation of which the record does not say when it was
    published counts as published a second before the oldest of which it does; where it says so of
    none, as published now.

    Args:
        record: the record as it is signed.
        policy: the rules.
        leased: by generation, its leases in words; those of unknown generations do not matter.
        now: the time, with its zone.
    """
    why: dict[GenerationId, list[str]] = {entry.generation_id: [] for entry in record.published}
    for reasons in (
        _by_record(record),
        ((each, words) for each, leases in leased.items() for words in leases),
        _by_policy(record, policy, int(now.timestamp())),
    ):
        for generation_id, words in reasons:
            if generation_id in why:
                why[generation_id].append(words)
    needed = never_collected(record)
    for generation_id in record.revoked:
        if why.get(generation_id):
            why[generation_id].append(
                REVOKED_BUT_NEEDED if generation_id in needed else REVOKED_BUT_LEASED
            )
    return Retention(
        kept={each: tuple(words) for each, words in why.items() if words},
        dropped=tuple(each for each, words in why.items() if not words),
    )


def _by_record(record: ControlRecord) -> Reasons:
    for generation_id, needs in never_collected(record).items():
        for words in needs:
            yield generation_id, words
    for tag in record.tags:
        yield tag.generation_id, f"tag {tag.name}"
    for pin in record.pins:
        yield pin.generation_id, f"pin: {pin.reason}"


def _by_policy(record: ControlRecord, policy: RetentionPolicy, now_s: int) -> Reasons:
    entries = record.retained_entries()
    if policy.keeps_all:
        for entry in entries:
            yield entry.generation_id, KEEPS_ALL
        return
    if policy.keep_last is not None:
        for entry in entries[-policy.keep_last :]:
            yield entry.generation_id, f"last {policy.keep_last}"
    published_s = _published_s(record, now_s)
    if policy.keep_within_hours is not None:
        for entry in _since(entries, published_s, now_s - policy.keep_within_hours * HOUR_S):
            yield entry.generation_id, f"within {_span(policy.keep_within_hours)}"
    for rule in policy.keep_every:
        newest: dict[int | None, GenerationEntry] = {}
        for entry in entries:
            # What counts as published at some time must not come into another's window when that
            # one's oldest are gone: those of unknown time have a window of their own.
            is_known = entry.generation_id in record.published_at
            window = published_s[entry.generation_id] // (rule.every_hours * HOUR_S)
            newest[window if is_known else None] = entry
        for entry in _since([*newest.values()], published_s, now_s - rule.for_hours * HOUR_S):
            yield entry.generation_id, str(rule)


def _since(
    entries: Sequence[GenerationEntry], published_s: Mapping[GenerationId, int], since_s: int
) -> list[GenerationEntry]:
    return [entry for entry in entries if published_s[entry.generation_id] >= since_s]


def _published_s(record: ControlRecord, now_s: int) -> dict[GenerationId, int]:
    """When each generation was published, or counts as published, in seconds since the epoch."""
    known = {
        each: int(datetime.fromisoformat(text).timestamp())
        for each, text in record.published_at.items()
    }
    before = min(known.values()) - 1 if known else now_s
    return {each.generation_id: known.get(each.generation_id, before) for each in record.published}


def _span(hours: int) -> str:
    number, unit = (hours // 24, "day") if hours % 24 == 0 else (hours, "hour")
    return f"{number} {unit}" if number == 1 else f"{number} {unit}s"
