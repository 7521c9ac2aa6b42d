from __future__ import annotations

from datetime import timedelta

import pytest

from manifests.canonical import parse_document, to_canonical
from manifests.errors import (
    CollectionUnderWay,
    CommitRangeGap,
    GenerationCollected,
    GenerationNotPublished,
    GenerationRevoked,
    ManifestMalformed,
    NothingPublished,
    UnsignedRollback,
)
from manifests.record import SCHEMA_VERSION, ControlRecord, utc_text
from manifests.record_changes import (
    as_newest_schema,
    is_rolled_back,
    readable_entry,
    rollback_target,
    went_back_from_seq,
    with_active,
    with_published,
    with_revoked,
    with_rollback,
)
from manifests.retained import with_collection_begun, with_collection_ended, with_pin, with_tag
from tests.manifests import samples
from tests.manifests.samples import NOW

EMPTY = ControlRecord(shard="main", kind="publish", writer_epoch=1)
TOKEN = "f" * 64
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
        "retained_low_time": utc_text(NOW),
        "retained_high_time": utc_text(NOW),
    }
    assert f"10 to 30, published {utc_text(NOW)} to {utc_text(NOW)}" in caught.value.message


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


def of_version(version: int, *high_seqs: int) -> ControlRecord:
    """A record as an older genctl wrote it."""
    record = samples.record(*high_seqs)
    return record.model_copy(update={"schema_version": version, "published_at": {}})


@pytest.mark.parametrize("version", [1, 2])
def test_a_record_of_an_older_schema_goes_back_and_publishes_as_one_of_the_newest(
    version: int,
) -> None:
    record = of_version(version, 10, 20)
    old, new = (entry.generation_id for entry in record.published)
    back = with_rollback(record, old, "bad answers")
    assert (back.schema_version, back.rolled_back_from) == (SCHEMA_VERSION, new)
    (entry,) = samples.entries(10, 20, 30)[2:]
    after = with_published(record, entry, NOW)
    assert after.schema_version == SCHEMA_VERSION
    assert after.published_at == {entry.generation_id: "2026-11-20T12:00:00Z"}
    assert with_active(record, new).schema_version == version


def test_a_record_of_version_1_that_went_back_still_says_so_in_the_newest() -> None:
    record = of_version(1, 10, 20)
    old, new = (entry.generation_id for entry in record.published)
    went_back = record.model_copy(update={"kind": "rollback", "active": old})
    assert went_back_from_seq(went_back) == 20
    assert is_rolled_back(went_back, new)
    assert as_newest_schema(went_back).rolled_back_from == new
    assert as_newest_schema(record).rolled_back_from is None


def test_publishing_later_by_a_clock_that_was_set_back_is_not_earlier() -> None:
    first, second = samples.entries(10, 20)
    record = with_published(EMPTY, first, NOW)
    record = with_published(record, second, NOW - timedelta(minutes=30))
    assert record.published_at[second.generation_id] == record.published_at[first.generation_id]


def test_a_clock_that_was_far_ahead_once_spoils_no_later_time() -> None:
    first, second = samples.entries(10, 20)
    record = with_published(EMPTY, first, NOW + timedelta(days=365))
    record = with_published(record, second, NOW)
    assert record.published_at[second.generation_id] == utc_text(NOW)
    assert record.as_of_time(NOW) == second


def test_row_47_nothing_is_published_while_a_collection_is_under_way() -> None:
    (entry,) = samples.entries(10, 20, 30)[2:]
    record = with_collection_begun(samples.record(10, 20), set(), TOKEN)
    with pytest.raises(CollectionUnderWay) as caught:
        with_published(record, entry, NOW)
    assert caught.value.facts == {"collecting": TOKEN}
    assert with_published(with_collection_ended(record, TOKEN), entry, NOW).collecting is None


@pytest.mark.parametrize("text", ["2026-02-31T00:00:00Z", "2026-11-20T25:00:00Z"])
def test_row_3_a_time_that_no_calendar_has_is_refused(text: str) -> None:
    record = samples.record(10)
    written = to_canonical(record).replace(b"2026-11-20T12:00:00Z", text.encode())
    with pytest.raises(ManifestMalformed):
        parse_document(written, ControlRecord, SCHEMA_VERSION)


# --- revoked ----------------------------------------------------------------------------------


def test_row_59_a_revoked_generation_is_neither_activated_nor_gone_back_to_nor_read() -> None:
    record = samples.record(10, 20, 30)
    first, second, third = (entry.generation_id for entry in record.published)
    revoked = with_revoked(record, second, "it leaks")
    assert (revoked.kind, revoked.reason, revoked.active) == ("revoke", "it leaks", third)
    assert revoked.published == record.published
    assert [entry.generation_id for entry in revoked.retained_entries()] == [first, third]
    for refused in (
        lambda: with_active(revoked, second),
        lambda: with_rollback(revoked, second, "why"),
        lambda: revoked.as_of(25),
        lambda: readable_entry(revoked, second),
    ):
        with pytest.raises(GenerationRevoked) as caught:
            refused()
        assert caught.value.facts == {"generation_id": second, "readable_before": first}
    assert rollback_target(revoked) == first
    assert with_revoked(revoked, second, "another reason") is revoked


def test_row_59_revoking_the_active_one_goes_back_and_says_from_where() -> None:
    record = samples.record(10, 20, 30)
    first, second, third = (entry.generation_id for entry in record.published)
    revoked = with_revoked(record, third, "it leaks")
    assert (revoked.active, revoked.rolled_back_from) == (second, third)
    assert went_back_from_seq(revoked) == 30
    further = with_revoked(revoked, second, "this one too")
    assert (further.active, further.rolled_back_from) == (first, third)
    (entry,) = samples.entries(10, 20, 30, 40)[3:]
    forward = with_active(with_published(further, entry, NOW), entry.generation_id)
    assert (forward.rolled_back_from, forward.revoked) == (None, (third, second))
    with pytest.raises(NothingPublished):
        with_revoked(further, first, "all of them")


def test_row_59_revoking_what_is_not_active_is_no_rollback_of_what_waits_to_be_activated() -> None:
    record = samples.record(10, 20, 30, active=20)
    first, _, third = (entry.generation_id for entry in record.published)
    assert not is_rolled_back(with_revoked(record, first, "it leaks"), third)
    assert with_revoked(record, third, "it leaks").active == record.active


def test_row_59_a_revocation_takes_tags_and_pins_away() -> None:
    record = samples.record(10, 20)
    first, second = (entry.generation_id for entry in record.published)
    record = with_pin(with_tag(with_tag(record, "blue", first), "red", second), first, "a paper")
    revoked = with_revoked(record, first, "it leaks")
    assert [tag.name for tag in revoked.tags] == ["red"]
    assert revoked.pins == ()


# --- as of a time -----------------------------------------------------------------------------


def hourly(*high_seqs: int) -> ControlRecord:
    """One generation an hour, the first at NOW."""
    record = EMPTY
    for hours, entry in enumerate(samples.entries(*high_seqs)):
        record = with_published(record, entry, NOW + timedelta(hours=hours))
    return record


@pytest.mark.parametrize(("minutes", "answered"), [(0, 10), (59, 10), (60, 20), (600, 30)])
def test_as_of_a_time_is_the_newest_that_was_published_by_then(minutes: int, answered: int) -> None:
    assert hourly(10, 20, 30).as_of_time(NOW + timedelta(minutes=minutes)).high_seq == answered


def test_row_58_as_of_a_time_before_the_oldest_is_collected_and_gives_the_range() -> None:
    with pytest.raises(GenerationCollected) as caught:
        hourly(10, 20, 30).as_of_time(NOW - timedelta(seconds=1))
    assert caught.value.facts["retained_low_seq"] == 10
    assert "2026-11-20T11:59:59Z" in caught.value.message


def test_as_of_a_time_those_of_unknown_time_are_older_than_all_others() -> None:
    record = of_version(2, 10, 20)
    (entry,) = samples.entries(10, 20, 30)[2:]
    record = with_published(record, entry, NOW)
    assert record.as_of_time(NOW - timedelta(days=9)).high_seq == 20
    assert record.as_of_time(NOW).high_seq == 30


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


def test_a_rollback_does_not_go_to_what_was_gone_back_from_before() -> None:
    record = samples.record(10, 20, 30)
    first, second, third = (entry.generation_id for entry in record.published)
    back = with_rollback(record, second, "the third is bad")
    assert (back.passed_over, rollback_target(back)) == ((third,), first)
    (entry,) = samples.entries(10, 20, 30, 40)[3:]
    forward = with_active(with_published(back, entry, NOW), entry.generation_id)
    assert (forward.rolled_back_from, forward.passed_over) == (None, (third,))
    assert rollback_target(forward) == second
    again = with_rollback(forward, second, "the fourth is bad, too")
    assert again.passed_over == (third, entry.generation_id)
    assert with_active(again, third).passed_over == (entry.generation_id,)
    assert rollback_target(with_revoked(forward, second, "it leaks")) == first
    assert parse_document(to_canonical(again), ControlRecord, SCHEMA_VERSION) == again


def test_a_rollback_passes_over_all_that_it_goes_behind_but_what_it_names() -> None:
    record = samples.record(10, 20, 30, 40)
    first, second, third, fourth = (entry.generation_id for entry in record.published)
    back = with_rollback(record, first, "all of them")
    assert back.passed_over == (second, third, fourth)
    forward = with_active(back, third)
    assert (forward.passed_over, rollback_target(forward)) == ((second, fourth), first)
    named = with_rollback(forward, second, "the second was good after all")
    assert named.passed_over == (third, fourth)
    assert with_revoked(named, fourth, "it leaks").passed_over == (third,)


def test_where_all_before_the_active_were_gone_back_from_a_rollback_wants_a_name() -> None:
    record = samples.record(10, 20, 30)
    first, second, third = (entry.generation_id for entry in record.published)
    forward = with_active(with_rollback(record, first, "the second is bad"), third)
    alone = with_revoked(forward, first, "it leaks")
    with pytest.raises(NothingPublished, match=f"rollback --to {second}"):
        rollback_target(alone)
    assert with_rollback(alone, second, "better than nothing").active == second


def test_a_record_of_version_2_that_went_back_passes_over_that_in_the_newest() -> None:
    record = of_version(2, 10, 20, 30)
    first, second, third = (entry.generation_id for entry in record.published)
    went_back = record.model_copy(update={"active": first, "rolled_back_from": third})
    assert as_newest_schema(went_back).passed_over == (second, third)
    assert as_newest_schema(record).passed_over == ()


def test_the_active_entry_of_an_empty_record_is_nothing_published() -> None:
    with pytest.raises(NothingPublished):
        EMPTY.active_entry()


def test_a_record_is_read_as_it_was_written() -> None:
    record = samples.record(10, 20, 30, active=20)
    assert parse_document(to_canonical(record), ControlRecord, SCHEMA_VERSION) == record
