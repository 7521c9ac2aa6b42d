"""Which generation a query reads: the consistency levels (pure, but for the waiting it is given).

``latest`` reads what the node has activated. ``min_commit_seq`` waits until that includes a commit.
``as_of_commit_seq`` reads the greatest retained generation that is not newer than asked.
"""

from __future__ import annotations

from collections.abc import Callable

from manifests.errors import BadQuery, NotYetActivated
from manifests.record import ControlRecord, GenerationEntry

MAX_COMMIT_SEQ = 2**53 - 1


def resolve(
    active: Callable[[], GenerationEntry],
    record: Callable[[], ControlRecord],
    *,
    as_of_commit_seq: int | None,
    min_commit_seq: int | None,
    keep_waiting: Callable[[], bool],
) -> GenerationEntry:
    """Choose the generation of one query.

    Args:
        active: reads the node's pointer.
        record: reads the last signed record.
        as_of_commit_seq: time travel, or ``None``.
        min_commit_seq: what the answer must include at least, or ``None``.
        keep_waiting: pauses and says whether there is still time before the deadline.

    Raises:
        BadQuery: a number that no commit has, or a minimum above the point in time asked for.
        GenerationCollected: every retained generation is newer than ``as_of_commit_seq``.
        NotYetActivated: the deadline passed before ``min_commit_seq`` was activated.
    """
    for name, seq in (("as_of_commit_seq", as_of_commit_seq), ("min_commit_seq", min_commit_seq)):
        if seq is not None and not 0 <= seq <= MAX_COMMIT_SEQ:
            raise BadQuery(f"{name} {seq}: commits are numbered from 1", field=name)
    if as_of_commit_seq is not None:
        entry = record().as_of(as_of_commit_seq)
        if min_commit_seq is not None and entry.high_seq < min_commit_seq:
            raise BadQuery(
                f"as of commit {as_of_commit_seq} the newest generation ends at {entry.high_seq}, "
                f"which can never include commit {min_commit_seq}",
                field="min_commit_seq",
            )
        return entry
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
    return entry
