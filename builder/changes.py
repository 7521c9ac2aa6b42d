"""From a range of commits to what a build has to do: the net change, and nothing else (pure)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from commits.documents import Upsert
from commits.local_log import Commit
from manifests.errors import CommitRangeGap, EmbedderMismatch


@dataclass(frozen=True, slots=True)
class BuildPlan:
    """What the commits ``low_seq`` … ``high_seq`` come to.

    ``upserts`` holds the last version of every document that they left in existence, in the order
    of its last change; ``touched`` all ids they changed or deleted, whose earlier versions go.
    ``parent_generation_id`` names the generation that the commits follow upon, if there is one.
    """

    low_seq: int
    high_seq: int
    head_commit_id: str
    upserts: tuple[Upsert, ...]
    touched: tuple[str, ...]
    parent_generation_id: str | None = None


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


def plan_anew(commits: Iterable[Commit], low_seq: int, vector_size_bytes: int | None) -> BuildPlan:
    """Fold all commits into a build from ``low_seq`` on that takes nothing over from its parent.

    That is how a writer changes its embedder: vectors of two embedders cannot be compared, so every
    document gets a vector of the new one.

    Args:
        commits: every commit of the log.
        low_seq: the first one after the parent generation.
        vector_size_bytes: how long the vectors are that documents must have brought; ``None`` where
            the new embedder computes them.

    Raises:
        CommitRangeGap: the commits are not contiguous from 1 on.
        EmbedderMismatch: a document has brought no such vector.
    """
    plan = plan_build(commits, 1, None)
    for upsert in plan.upserts if vector_size_bytes is not None else ():
        if len(upsert.vector or b"") != vector_size_bytes:
            raise EmbedderMismatch(
                f"the settings name another embedder than the generation before was built with, "
                f"and document {upsert.id!r} has no vector for it: ingest every document again "
                "with its vector, or put the former embedder back",
                field="vector",
                id=upsert.id,
            )
    return replace(plan, low_seq=low_seq)
