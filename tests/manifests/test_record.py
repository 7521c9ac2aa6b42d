from __future__ import annotations

import pytest

from manifests.canonical import parse_document, to_canonical
from manifests.errors import (
    CommitRangeGap,
    GenerationCollected,
    GenerationNotPublished,
    GenerationRevoked,
    NothingPublished,
    UnsignedRollback,
)
from manifests.record import SCHEMA_VERSION, ControlRecord
from manifests.record_changes import (
    rollback_target,
    went_back_from_seq,
    with_active,
    with_published,
    with_rollback,
)
from tests.manifests import samples
from tests.manifests.samples import NOW

EMPTY = ControlRecord(shard="main", kind="publish", writer_epoch=1)
UNKNOWN = "g000000000099-0123456789ab"


@pytest.mark.parametrize(
    ("asked", "answered"), [(10, 10), (11, 10), (19, 10), (20, 20), (25, 20), (30, 30), (99, 30)]
)
def test_as_of_is_the_greatest_that_is_not_newer_than_asked(asked: int, answered: int) -> None:
    assert samples.record(10, 20, 30).as_of(asked).high_seq == answered


def test_as_of_does_not_depend_on_which_one_is_active() -> None:
    assert samples.record(10, 20, 30, active=10).as_of(99).high_seq == 30


@pytest.mark.parametrize("asked", [0, 5, 9])
def test_row_58_as_of_before_the_oldest_is_collected_and_gives_the_range(asked: int) -> None:
    with pytest.raises(GenerationCollected) as caught:
        samples.record(10, 20, 30).as_of(asked)
    assert caught.value.facts == {
        "as_of_commit_seq": asked,
        "retained_low_seq": 10,
        "retained_high_seq": 30,
    }
    assert "10 to 30" in caught.value.message


def test_row_58_what_is_not_retained_is_never_read() -> None:
    record = samples.record(10, 20, 30)
    kept = record.model_copy(update={"retained": record.retained[1:]})
    assert kept.as_of(25).high_seq == 20
    with pytest.raises(GenerationCollected) as caught:
        kept.as_of(15)
    assert caught.value.facts["retained_low_seq"] == 20


def test_row_59_what_is_revoked_is_never_read() -> None:
    record = samples.record(10, 20, 30)
    revoked = record.model_copy(update={"revoked": (record.published[1].generation_id,)})
    with pytest.raises(GenerationRevoked) as caught:
        revoked.as_of(25)
    assert caught.value.facts["readable_before"] == record.published[0].generation_id
    assert revoked.as_of(19).high_seq == 10
    with pytest.raises(GenerationRevoked):
        with_rollback(revoked, record.published[1].generation_id, "why")


def test_as_of_without_any_generation_says_so() -> None:
    with pytest.raises(NothingPublished):
        EMPTY.as_of(5)


def test_publishing_adds_an_entry_and_leaves_the_active_one() -> None:
    first, second = samples.entries(10, 20)
    record = with_active(with_published(EMPTY, first, NOW), first.generation_id)
    after = with_published(record, second, NOW)
    assert after.kind == "publish"
    assert after.active == first.generation_id
    assert after.published == (first, second)
    assert after.retained == (first.generation_id, second.generation_id)
    assert record.published == (first,)


def test_row_7_publishing_out_of_order_is_a_gap() -> None:
    first, second, third = samples.entries(10, 20, 30)
    record = with_published(EMPTY, first, NOW)
    for wrong in (first, third, second.model_copy(update={"parent_generation_id": None})):
        with pytest.raises(CommitRangeGap) as caught:
            with_published(record, wrong, NOW)
        assert caught.value.facts["expected_low_seq"] == 11
    with pytest.raises(CommitRangeGap):
        with_published(EMPTY, second, NOW)


def test_activating_takes_a_published_generation() -> None:
    record = samples.record(10, 20)
    with pytest.raises(GenerationNotPublished):
        with_active(record, UNKNOWN)
    assert with_active(record, record.published[1].generation_id).kind == "activate"


def test_row_22_activating_an_older_generation_takes_a_rollback() -> None:
    record = samples.record(10, 20, 30)
    old = record.published[0].generation_id
    with pytest.raises(UnsignedRollback):
        with_active(record, old)
    rolled = with_rollback(record, old, "bad answers")
    assert (rolled.kind, rolled.reason, rolled.active) == ("rollback", "bad answers", old)
    assert rolled.published == record.published


def test_going_forward_again_clears_kind_and_reason() -> None:
    record = samples.record(10, 20, 30)
    rolled = with_rollback(record, record.published[0].generation_id, "bad answers")
    forward = with_active(rolled, record.published[2].generation_id)
    assert (forward.kind, forward.reason) == ("activate", None)
    (entry,) = samples.entries(10, 20, 30, 40)[3:]
    assert with_published(rolled, entry, NOW).reason is None


def test_a_record_says_what_it_went_back_from_until_that_is_active_again() -> None:
    record = samples.record(10, 20, 30)
    first, second, third = (entry.generation_id for entry in record.published)
    assert (record.rolled_back_from, went_back_from_seq(record)) == (None, 0)
    rolled = with_rollback(record, second, "bad answers")
    further = with_rollback(rolled, first, "worse answers")
    (entry,) = samples.entries(10, 20, 30, 40)[3:]
    for each in (
        rolled,
        further,
        with_published(further, entry, NOW),
        with_active(further, second),
    ):
        assert (each.rolled_back_from, went_back_from_seq(each)) == (third, 30)
    assert with_active(further, third).rolled_back_from is None
    assert (
        with_active(with_published(further, entry, NOW), entry.generation_id).rolled_back_from
        is None
    )


def test_a_record_of_version_1_goes_back_as_one_of_version_2() -> None:
    record = samples.record(10, 20).model_copy(update={"schema_version": 1})
    old = record.published[0].generation_id
    assert with_rollback(record, old, "bad answers").schema_version == 2
    written = record.model_copy(update={"kind": "rollback", "active": old})
    assert went_back_from_seq(written) == 20


def test_a_rollback_takes_a_published_and_retained_generation() -> None:
    record = samples.record(10, 20, 30)
    with pytest.raises(GenerationNotPublished):
        with_rollback(record, UNKNOWN, "why")
    collected = record.model_copy(update={"retained": record.retained[1:]})
    with pytest.raises(GenerationCollected, match="as of 20 to 30"):
        with_rollback(collected, record.published[0].generation_id, "why")


def test_the_rollback_target_is_the_retained_one_before_the_active() -> None:
    record = samples.record(10, 20, 30)
    first, second, _ = record.published
    assert rollback_target(record) == second.generation_id
    back = with_rollback(record, second.generation_id, "why")
    assert rollback_target(back) == first.generation_id
    revoked = record.model_copy(update={"revoked": (second.generation_id,)})
    assert rollback_target(revoked) == first.generation_id
    with pytest.raises(NothingPublished):
        rollback_target(with_rollback(record, first.generation_id, "why"))
    with pytest.raises(NothingPublished):
        rollback_target(EMPTY)


def test_the_active_entry_of_an_empty_record_is_nothing_published() -> None:
    with pytest.raises(NothingPublished):
        EMPTY.active_entry()


def test_a_record_is_read_as_it_was_written() -> None:
    record = samples.record(10, 20, 30, active=20)
    assert parse_document(to_canonical(record), ControlRecord, SCHEMA_VERSION) == record
