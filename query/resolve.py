"""Which generation a query reads: the consistency levels (pure, but for the waiting it is given).

``latest`` reads what the node has activated. ``min_commit_seq`` waits until that includes a commit.
``as_of_commit_seq`` reads the greatest retained generation that is not newer than asked, and
``as_of_time`` the newest one that was published by then, whether or not it was active already.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import NamedTuple

from manifests.errors import BadQuery, NotYetActivated
from manifests.record import ControlRecord, GenerationEntry, utc_text

MAX_COMMIT_SEQ = 2**53 - 1


class Chosen(NamedTuple):
    """The generation that a query reads, and when it was published if a time was asked for."""

    entry: GenerationEntry
    published_at: str | None = None


def resolve(
    active: Callable[[], GenerationEntry],
    record: Callable[[], ControlRecord],
    *,
    as_of_commit_seq: int | None,
    as_of_time: datetime | None,
    min_commit_seq: int | None,
    keep_waiting: Callable[[], bool],
) -> Chosen:
    """Choose the generation of one query.

    Args:
        active: reads the node's pointer.
        record: reads the last signed record.
        as_of_commit_seq: time travel, or ``None``.
        as_of_time: time travel by the writer's clock, with an offset from UTC, or ``None``.
        min_commit_seq: what the answer must include at least, or ``None``.
        keep_waiting: pauses and says whether there is still time before the deadline.

    Raises:
        BadQuery: a number that no commit has, two points in time, one before the record tells
            times, or a minimum above the one asked for.
        GenerationCollected: every retained generation is newer than the point in time.
        GenerationRevoked: the one of that point in time was revoked.
        NotYetActivated: the deadline passed before ``min_commit_seq`` was activated.
    """
    for name, seq in (("as_of_commit_seq", as_of_commit_seq), ("min_commit_seq", min_commit_seq)):
        if seq is not None and not 0 <= seq <= MAX_COMMIT_SEQ:
            raise BadQuery(f"{name} {seq}: commits are numbered from 1", field=name)
    if as_of_commit_seq is not None and as_of_time is not None:
        raise BadQuery("ask as of a commit or as of a time, not both", field="as_of_time")
    if as_of_commit_seq is not None:
        chosen = Chosen(record().as_of(as_of_commit_seq))
        return _with_minimum(chosen, min_commit_seq, f"commit {as_of_commit_seq}")
    if as_of_time is not None:
        chosen = _published_by(as_of_time, record())
        return _with_minimum(chosen, min_commit_seq, utc_text(as_of_time))
    entry = active()
    while min_commit_seq is not None and entry.high_seq < min_commit_seq:
        if not keep_waiting():
            raise NotYetActivated(
                f"commit {min_commit_seq} is not activated here; this node serves up to "
                f"{entry.high_seq}. Wait for it to catch up, or ask without --min-commit-seq",
                min_commit_seq=min_commit_seq,
                active_high_seq=entry.high_seq,
            )
        entry = active()
    return Chosen(entry)


def _published_by(time: datetime, record: ControlRecord) -> Chosen:
    entry = record.as_of_time(time)
    published_at = record.published_at.get(entry.generation_id)
    if published_at is None:
        # An older genctl published it: before all whose times are known, but not known when.
        known = min(record.published_at.values(), default=None)
        raise BadQuery(
            f"which generation was the newest at {utc_text(time)} is not known: the record tells "
            + (f"times from {known} on" if known else "no times yet")
            + ". Ask with --as-of-commit-seq",
            field="as_of_time",
        )
    return Chosen(entry, published_at)


def _with_minimum(chosen: Chosen, min_commit_seq: int | None, asked: str) -> Chosen:
    if min_commit_seq is not None and chosen.entry.high_seq < min_commit_seq:
        raise BadQuery(
            f"as of {asked} the newest generation ends at {chosen.entry.high_seq}, which can never "
            f"include commit {min_commit_seq}",
            field="min_commit_seq",
        )
    return chosen
