"""From a range of commits to what a build has to do: the net change, and nothing else (pure)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from commits.documents import Upsert
from commits.local_log import Commit
from manifests.errors import CommitRangeGap


@dataclass(frozen=True, slots=True)
class BuildPlan:
    """What the commits ``low_seq`` … ``high_seq`` come to.

    ``upserts`` holds the last version of every document that they left in existence, in the order
    of its last change; ``touched`` all ids they changed or deleted, whose earlier versions go.
    """

    low_seq: int
    high_seq: int
    head_commit_id: str
    upserts: tuple[Upsert, ...]
    touched: tuple[str, ...]


def plan_build(commits: Iterable[Commit], low_seq: int, predecessor: str | None) -> BuildPlan:
    """Fold commits (at least one, starting at ``low_seq``) into their net change.

    ``predecessor`` is the id of the commit before, the last one of the parent generation.

    Raises:
        CommitRangeGap: the commits are not contiguous from ``low_seq`` on, or do not follow
            ``predecessor``.
    """
    upserts: dict[str, Upsert] = {}
    touched: dict[str, None] = {}
    next_seq, head_commit_id = low_seq, ""
    for commit in commits:
        if commit.commit_seq != next_seq:
            raise CommitRangeGap(
                f"the log gave commit {commit.commit_seq} where {next_seq} was due",
                expected_low_seq=next_seq,
                found_low_seq=commit.commit_seq,
            )
        if predecessor is not None and commit.capsule.predecessor != predecessor:
            raise CommitRangeGap(
                f"commit {commit.commit_seq} of the log follows {commit.capsule.predecessor}, but "
                f"the generation before was built up to {predecessor}: another log?",
                commit_seq=commit.commit_seq,
            )
        for operation in commit.capsule.operations:
            touched[operation.id] = None
            upserts.pop(operation.id, None)
            if isinstance(operation, Upsert):
                upserts[operation.id] = operation
        next_seq, head_commit_id = next_seq + 1, commit.commit_id
        predecessor = commit.commit_id
    return BuildPlan(low_seq, next_seq - 1, head_commit_id, tuple(upserts.values()), tuple(touched))
