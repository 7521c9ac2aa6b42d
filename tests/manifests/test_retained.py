"""Tags, pins and collections as changes of the record (rows 7, 39, 47 and 58)."""

from __future__ import annotations

import pytest

from manifests.canonical import parse_document, to_canonical
from manifests.errors import (
    BadSetting,
    CommitRangeGap,
    GenerationCollected,
    GenerationNotPublished,
    GenerationRevoked,
    WriterFenced,
)
from manifests.invariants import check_lineage
from manifests.record import SCHEMA_VERSION, CollectedCommits, ControlRecord
from manifests.record_changes import (
    rollback_target,
    with_active,
    with_published,
    with_revoked,
    with_rollback,
)
from manifests.retained import (
    never_collected,
    with_collection_begun,
    with_collection_ended,
    with_pin,
    with_tag,
    without_pin,
    without_tag,
)
from tests.manifests import samples

RECORD = samples.record(10, 20, 30, 40, 50)
FIRST, SECOND, THIRD, FOURTH, FIFTH = (entry.generation_id for entry in RECORD.published)
UNKNOWN = "g000000000099-0123456789ab"
TOKEN, OTHER_TOKEN = "a" * 64, "b" * 64


def ranges(record: ControlRecord) -> list[tuple[int, int]]:
    return [(span.low_seq, span.high_seq) for span in record.collected]


def without(*dropped: str, record: ControlRecord = RECORD) -> ControlRecord:
    return with_collection_ended(with_collection_begun(record, set(dropped), TOKEN), TOKEN)


# --- tags and pins ----------------------------------------------------------------------------


def test_tags_are_kept_by_name_and_the_same_again_changes_nothing() -> None:
    record = with_tag(with_tag(RECORD, "red", SECOND), "blue", SECOND)
    assert [(tag.name, tag.generation_id) for tag in record.tags] == [
        ("blue", SECOND),
        ("red", SECOND),
    ]
    assert with_tag(record, "red", SECOND) == record
    assert (record.kind, record.reason, record.active) == ("activate", None, FIFTH)
    assert parse_document(to_canonical(record), ControlRecord, SCHEMA_VERSION) == record


def test_a_tag_is_of_one_generation_until_it_is_taken_away() -> None:
    record = with_tag(RECORD, "blue", SECOND)
    with pytest.raises(BadSetting, match="genctl untag") as caught:
        with_tag(record, "blue", THIRD)
    assert caught.value.facts == {"generation_id": SECOND}
    moved = with_tag(without_tag(record, "blue"), "blue", THIRD)
    assert [tag.generation_id for tag in moved.tags] == [THIRD]
    assert without_tag(RECORD, "blue") == RECORD


@pytest.mark.parametrize(
    "name", ["", "Blue", "-x", ".x", "a b", "a/b", "..", "é", "x" * 64, "a\n", UNKNOWN, "\udcff"]
)
def test_what_cannot_be_a_tag_is_refused(name: str) -> None:
    with pytest.raises(BadSetting, match="cannot be a tag"):
        with_tag(RECORD, name, SECOND)


def test_pins_are_kept_by_generation_and_a_new_reason_takes_the_place_of_the_old() -> None:
    record = with_pin(with_pin(RECORD, THIRD, "a paper"), SECOND, "an audit")
    assert [(pin.generation_id, pin.reason) for pin in record.pins] == [
        (SECOND, "an audit"),
        (THIRD, "a paper"),
    ]
    assert with_pin(record, THIRD, "a paper") == record
    again = with_pin(record, THIRD, "two papers")
    assert [pin.reason for pin in again.pins] == ["an audit", "two papers"]
    assert without_pin(without_pin(again, THIRD), SECOND) == RECORD
    assert without_pin(RECORD, SECOND) == RECORD


def test_only_what_can_be_read_gets_a_tag_or_a_pin() -> None:
    record = with_revoked(without(SECOND), FOURTH, "it leaks")
    for generation_id, error in (
        (UNKNOWN, GenerationNotPublished),
        ("nonsense", GenerationNotPublished),
        (SECOND, GenerationCollected),
        (FOURTH, GenerationRevoked),
    ):
        with pytest.raises(error):
            with_tag(record, "blue", generation_id)
        with pytest.raises(error):
            with_pin(record, generation_id, "why")
    for generation_id, error in (
        (UNKNOWN, GenerationNotPublished),
        (SECOND, GenerationCollected),
    ):
        with pytest.raises(error):
            without_pin(record, generation_id)


def test_a_record_of_an_older_schema_becomes_one_of_the_newest_when_it_is_given_a_tag() -> None:
    older = RECORD.model_copy(update={"schema_version": 1, "published_at": {}})
    assert with_tag(older, "blue", SECOND).schema_version == SCHEMA_VERSION
    assert with_pin(older, SECOND, "why").schema_version == SCHEMA_VERSION
    assert without_tag(older, "blue") == older
    assert without_pin(older, SECOND) == older


# --- collections ------------------------------------------------------------------------------


def test_what_the_record_cannot_do_without_is_named_with_the_reason() -> None:
    assert never_collected(RECORD) == {
        FIFTH: ("active", "newest"),
        FOURTH: ("the one that a rollback goes to",),
    }
    back = with_rollback(RECORD, THIRD, "wrong answers")
    (entry,) = samples.entries(10, 20, 30, 40, 50, 60)[5:]
    assert never_collected(with_published(back, entry, samples.NOW)) == {
        THIRD: ("active",),
        SECOND: ("the one that a rollback goes to",),
        FIFTH: ("the one that was gone back from",),
        entry.generation_id: ("newest",),
    }
    empty = ControlRecord(shard="main", kind="publish", writer_epoch=1)
    assert never_collected(empty) == {}


def test_row_59_the_way_back_leaves_out_what_was_revoked() -> None:
    revoked = with_revoked(RECORD, FOURTH, "it leaks")
    assert set(never_collected(revoked)) == {FIFTH, THIRD}


def test_row_22_what_a_rollback_would_go_to_is_protected_and_not_what_was_gone_back_from() -> None:
    back = with_rollback(RECORD, THIRD, "wrong answers")
    entry, later = samples.entries(10, 20, 30, 40, 50, 60, 70)[5:]
    forward = with_active(with_published(back, entry, samples.NOW), entry.generation_id)
    newest = with_published(forward, later, samples.NOW)
    assert never_collected(newest)[THIRD] == ("the one that a rollback goes to",)
    assert rollback_target(newest) == THIRD
    left = without(FOURTH, record=newest)
    assert (newest.passed_over, left.passed_over) == ((FOURTH, FIFTH), (FIFTH,))


def test_row_59_a_revocation_is_not_forgotten_with_what_it_is_of() -> None:
    left = without(FOURTH, record=with_revoked(RECORD, FOURTH, "it leaks"))
    with pytest.raises(GenerationRevoked):
        left.refuse_revoked(FOURTH)  # by a node that was away, and has it still


def test_row_39_a_collection_is_in_the_record_before_anything_is_deleted() -> None:
    record = with_collection_begun(RECORD, {FIRST, SECOND}, TOKEN)
    assert [entry.generation_id for entry in record.published] == [THIRD, FOURTH, FIFTH]
    assert record.retained == (THIRD, FOURTH, FIFTH)
    assert set(record.published_at) == {THIRD, FOURTH, FIFTH}
    assert (record.collecting, ranges(record)) == (TOKEN, [(1, 20)])
    assert (record.kind, record.active) == (RECORD.kind, FIFTH)
    assert parse_document(to_canonical(record), ControlRecord, SCHEMA_VERSION) == record
    assert with_collection_ended(record, TOKEN).collecting is None


def test_row_47_a_collection_that_another_one_took_over_cannot_end_it() -> None:
    record = with_collection_begun(RECORD, {FIRST}, TOKEN)
    taken_over = with_collection_begun(record, set(), OTHER_TOKEN)
    assert ranges(taken_over) == [(1, 10)]
    with pytest.raises(WriterFenced):
        with_collection_ended(taken_over, TOKEN)
    assert with_collection_ended(taken_over, OTHER_TOKEN).collecting is None
    with pytest.raises(WriterFenced):
        with_collection_ended(RECORD, TOKEN)


def test_collected_commits_that_touch_are_one_range() -> None:
    apart = without(FIRST, THIRD)
    assert ranges(apart) == [(1, 10), (21, 30)]
    assert ranges(without(SECOND, record=apart)) == [(1, 30)]


def test_what_is_tagged_pinned_or_needed_cannot_be_collected() -> None:
    record = with_pin(with_tag(RECORD, "blue", FIRST), SECOND, "a paper")
    back = with_rollback(record, THIRD, "wrong answers")
    for before, generation_id in (
        (record, FIRST),
        (record, SECOND),
        (record, FOURTH),
        (record, FIFTH),
        (back, THIRD),
        (back, FIFTH),
    ):
        with pytest.raises(BadSetting, match=generation_id) as caught:
            with_collection_begun(before, {generation_id}, TOKEN)
        assert caught.value.facts == {"generation_id": generation_id}
    assert with_collection_begun(back, {FOURTH}, TOKEN).collecting == TOKEN


def test_an_override_goes_with_its_generation() -> None:
    from manifests.record import EmbedderOverride

    overrides = tuple(
        EmbedderOverride(
            generation_id=each, name="other", revision=TOKEN, dimensions=4, reason="why"
        )
        for each in (SECOND, FIFTH)
    )
    record = RECORD.model_copy(update={"embedder_overrides": overrides})
    assert [e.generation_id for e in without(SECOND, record=record).embedder_overrides] == [FIFTH]


def test_row_58_a_collected_generation_is_named_so_and_the_range_that_is_left_is_given() -> None:
    record = without(FIRST, THIRD)
    for refused in (
        lambda: record.entry(THIRD),
        lambda: with_active(record, THIRD),
        lambda: with_rollback(record, THIRD, "why"),
        lambda: with_revoked(record, THIRD, "why"),
    ):
        with pytest.raises(GenerationCollected, match="as of 20 to 50") as caught:
            refused()
        assert caught.value.facts["retained_low_seq"] == 20
        assert caught.value.facts["retained_high_seq"] == 50
    with pytest.raises(GenerationCollected):
        record.as_of(15)
    assert record.as_of(35).high_seq == 20
    with pytest.raises(GenerationNotPublished):
        record.entry(UNKNOWN)


def test_row_58_an_id_of_collected_commits_that_never_was_counts_as_collected() -> None:
    with pytest.raises(GenerationCollected):
        without(FIRST).entry("g000000000007-0123456789ab")


def test_row_22_a_rollback_goes_over_what_was_collected() -> None:
    record = without(THIRD)
    assert rollback_target(record) == FOURTH
    back = with_rollback(record, FOURTH, "wrong answers")
    assert rollback_target(back) == SECOND


def test_row_7_what_a_collection_leaves_still_accounts_for_every_commit() -> None:
    record = without(FIRST, THIRD)
    for entry in record.published:
        check_lineage(record, entry)
    (entry,) = samples.entries(10, 20, 30, 40, 50, 60)[5:]
    check_lineage(with_published(record, entry, samples.NOW), entry)


@pytest.mark.parametrize(
    "collected",
    [
        (),
        ((1, 10),),
        ((1, 9), (21, 30)),
        ((1, 10), (22, 30)),
        ((1, 10), (21, 31)),
        ((1, 10), (11, 20), (21, 30)),
        ((2, 10), (21, 30)),
    ],
)
def test_row_7_a_record_whose_collected_commits_leave_a_gap_or_overlap_is_refused(
    collected: tuple[tuple[int, int], ...],
) -> None:
    wrong = without(FIRST, THIRD).model_copy(
        update={"collected": tuple(CollectedCommits(low_seq=a, high_seq=b) for a, b in collected)}
    )
    with pytest.raises(CommitRangeGap):
        check_lineage(wrong, wrong.published[-1])
