from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builder.changes import plan_build
from commits.capsule import Capsule
from commits.documents import Delete, Operation, Upsert
from commits.local_log import Commit
from manifests.errors import CommitRangeGap
from manifests.identifiers import content_id

IDS = st.sampled_from("abcdef")
OPERATIONS = st.one_of(
    st.builds(lambda identity, text: Upsert(identity, text=text), IDS, st.text("xyz", max_size=3)),
    st.builds(Delete, IDS),
)
BATCHES = st.lists(st.lists(OPERATIONS, min_size=1, max_size=5), min_size=1, max_size=6)


def id_of(commit_seq: int) -> str:
    return content_id(f"commit {commit_seq}".encode())


def commits(batches: Sequence[Sequence[Operation]], low_seq: int = 1) -> list[Commit]:
    return [
        Commit(
            seq,
            id_of(seq),
            Capsule(
                version=1,
                shard="main",
                commit_seq=seq,
                predecessor=id_of(seq - 1),
                message_id="",
                source="",
                ts_ms=0,
                meta={},
                operations=tuple(batch),
            ),
        )
        for seq, batch in enumerate(batches, low_seq)
    ]


@given(BATCHES)
def test_a_plan_is_what_the_commits_come_to(batches: list[list[Operation]]) -> None:
    plan = plan_build(commits(batches), 1, id_of(0))
    state: dict[str, Operation] = {}
    for batch in batches:
        for operation in batch:
            state.pop(operation.id, None)
            state[operation.id] = operation
    assert list(plan.upserts) == [each for each in state.values() if isinstance(each, Upsert)]
    assert set(plan.touched) == set(state)
    assert len(plan.touched) == len(state)
    assert (plan.low_seq, plan.high_seq) == (1, len(batches))
    assert plan.head_commit_id == id_of(len(batches))


def test_added_and_deleted_again_is_touched_and_not_added() -> None:
    plan = plan_build(commits([[Upsert("a")], [Delete("a"), Upsert("b")]], 5), 5, id_of(4))
    assert plan.upserts == (Upsert("b"),)
    assert set(plan.touched) == {"a", "b"}
    assert (plan.low_seq, plan.high_seq) == (5, 6)


def test_deleted_and_added_again_is_added() -> None:
    plan = plan_build(commits([[Delete("a")], [Upsert("a", text="new")]]), 1, None)
    assert plan.upserts == (Upsert("a", text="new"),)


def test_row_7_commits_that_do_not_follow_one_another_are_a_gap() -> None:
    whole = commits([[Upsert("a")], [Upsert("b")], [Upsert("c")]])
    for wrong in ([whole[0], whole[2]], [whole[0], whole[0]], [whole[1]], whole[::-1]):
        with pytest.raises(CommitRangeGap):
            plan_build(wrong, 1, id_of(0))


def test_row_7_commits_of_another_log_are_a_gap() -> None:
    whole = commits([[Upsert("a")], [Upsert("b")]], 5)
    with pytest.raises(CommitRangeGap, match="another log"):
        plan_build(whole, 5, content_id(b"another log's commit"))
    alien = Commit(6, id_of(6), commits([[Upsert("b")]], 9)[0].capsule)
    with pytest.raises(CommitRangeGap):
        plan_build([whole[0], alien], 5, id_of(4))
