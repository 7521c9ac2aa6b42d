"""Which generations a policy keeps, and why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from manifests.invariants import check_lineage
from manifests.record import ControlRecord, GenerationEntry
from manifests.record_changes import with_active, with_published, with_revoked, with_rollback
from manifests.retained import never_collected, with_collection_begun, with_pin, with_tag
from manifests.retention import KEEPS_ALL, KeepEvery, Retention, RetentionPolicy, retention

EPOCH = datetime(2026, 11, 20, tzinfo=UTC)
EMPTY = ControlRecord(shard="main", kind="publish", writer_epoch=1)
TOKEN = "f" * 64
DAY_H, MONTH_H = 24, 30 * 24
THINNING = RetentionPolicy(
    keep_every=(
        KeepEvery(every_hours=1, for_hours=DAY_H),
        KeepEvery(every_hours=DAY_H, for_hours=MONTH_H),
    )
)


def id_of(number: int) -> str:
    return f"g{number:012d}-{number:012x}"


def entry(number: int) -> GenerationEntry:
    return GenerationEntry(
        generation_id=id_of(number),
        manifest_id=f"{number:064x}",
        manifest_size_bytes=100,
        low_seq=number,
        high_seq=number,
        parent_generation_id=id_of(number - 1) if number > 1 else None,
    )


def published(*minutes: float) -> ControlRecord:
    """Generation N is published so many minutes after the EPOCH; the newest is active."""
    record = EMPTY
    for number, after in enumerate(minutes, 1):
        record = with_published(record, entry(number), EPOCH + timedelta(minutes=after))
        record = with_active(record, id_of(number))
    return record


def numbers(generation_ids: Sequence[str]) -> list[int]:
    return [int(each[1:13]) for each in generation_ids]


def kept(
    record: ControlRecord,
    policy: RetentionPolicy,
    hours: float = 0,
    leased: Mapping[str, Sequence[str]] | None = None,
) -> dict[int, tuple[str, ...]]:
    """Why each is kept, so many hours after the EPOCH, by number."""
    found = retention(record, policy, leased or {}, EPOCH + timedelta(hours=hours))
    return {int(each[1:13]): why for each, why in found.kept.items()}


HOURLY = published(*range(0, 600, 60))


def test_where_nothing_is_set_everything_is_kept() -> None:
    found = retention(HOURLY, RetentionPolicy(), {}, EPOCH + timedelta(days=9999))
    assert found.dropped == ()
    assert all(KEEPS_ALL in why for why in found.kept.values())


def test_the_last_so_many_are_kept() -> None:
    assert kept(HOURLY, RetentionPolicy(keep_last=3)) == {
        8: ("last 3",),
        9: ("the one that a rollback goes to", "last 3"),
        10: ("active", "newest", "last 3"),
    }


def test_those_of_the_last_so_many_hours_are_kept() -> None:
    found = kept(HOURLY, RetentionPolicy(keep_within_hours=48), hours=48 + 6)
    assert list(found) == [7, 8, 9, 10]
    assert found[7] == ("within 2 days",)
    assert list(kept(HOURLY, RetentionPolicy(keep_within_hours=48), hours=999)) == [9, 10]


def test_the_newest_of_each_window_is_kept_with_windows_counted_from_the_epoch() -> None:
    record = published(0, 59, 61, 119, 121, 179, 200, 230)
    policy = RetentionPolicy(keep_every=(KeepEvery(every_hours=1, for_hours=5),))
    assert kept(record, policy, hours=4) == {
        2: ("hourly for 5 hours",),
        4: ("hourly for 5 hours",),
        6: ("hourly for 5 hours",),
        7: ("the one that a rollback goes to",),
        8: ("active", "newest", "hourly for 5 hours"),
    }
    assert list(kept(record, policy, hours=6)) == [4, 6, 7, 8]


def test_hourly_for_a_day_and_daily_for_a_month_leave_one_of_each() -> None:
    half_days, half_hours = range(0, 38 * 24 * 60, 12 * 60), range(38 * 24 * 60, 40 * 24 * 60, 30)
    record = published(*half_days, *half_hours)
    found = kept(record, THINNING, hours=40 * 24)
    hourly = [each for each, why in found.items() if "hourly for 1 day" in why]
    daily = [each for each, why in found.items() if "daily for 30 days" in why]
    assert (len(hourly), len(daily)) == (24, 30)
    assert len(found) == 24 + 29 + 1  # the newest is both, and the one before it the way back
    assert min(found) == 11 * 2


@pytest.mark.parametrize(
    ("rule", "told"),
    [
        ((1, 1), "hourly for 1 hour"),
        ((6, 36), "every 6 hours for 36 hours"),
        ((48, 168), "every 2 days for 7 days"),
        ((168, 1680), "weekly for 70 days"),
    ],
)
def test_a_rule_is_told_in_words(rule: tuple[int, int], told: str) -> None:
    assert str(KeepEvery(every_hours=rule[0], for_hours=rule[1])) == told


def test_tagged_pinned_and_leased_ones_are_kept_and_why_is_told() -> None:
    record = with_tag(HOURLY, "blue", id_of(2))
    record = with_tag(record, "red", id_of(2))
    record = with_pin(record, id_of(3), "what the paper cites")
    leased = {
        id_of(4): ["lease of backup until 2026-11-21T00:00:00Z", "lease of node-7"],
        id_of(99): ["lease of what nobody knows"],
    }
    found = kept(record, RetentionPolicy(keep_last=1), hours=99, leased=leased)
    assert list(found) == [2, 3, 4, 9, 10]
    assert found[2] == ("tag blue", "tag red")
    assert found[3] == ("pin: what the paper cites",)
    assert found[4] == ("lease of backup until 2026-11-21T00:00:00Z", "lease of node-7")


def test_row_59_what_was_revoked_is_kept_by_no_policy_and_counts_as_none_of_the_last() -> None:
    record = with_revoked(HOURLY, id_of(8), "it leaks")
    assert list(kept(record, RetentionPolicy(keep_last=3))) == [7, 9, 10]
    everything = retention(record, RetentionPolicy(), {}, EPOCH)
    assert numbers(everything.dropped) == [8]
    leased = {id_of(8): ["lease of counsel"]}
    assert kept(record, RetentionPolicy(), leased=leased)[8] == (
        "lease of counsel",
        "revoked: goes once no lease keeps it",
    )


def test_row_59_a_revoked_one_stays_while_it_is_the_newest_or_was_gone_back_from() -> None:
    record = with_revoked(HOURLY, id_of(10), "it leaks")
    policy = RetentionPolicy(keep_last=1)
    until = "revoked: goes once something newer is active"
    assert kept(record, policy)[10] == ("the one that was gone back from", "newest", until)
    record = with_published(record, entry(11), EPOCH + timedelta(hours=11))
    assert kept(record, policy)[10] == ("the one that was gone back from", until)
    record = with_active(record, id_of(11))
    assert list(kept(record, policy)) == [9, 11]


def of_unknown_time(count: int) -> ControlRecord:
    record = published(*range(count))
    return record.model_copy(update={"schema_version": 2, "published_at": {}})


def test_those_of_unknown_time_count_as_published_just_before_the_oldest_known() -> None:
    record = with_published(of_unknown_time(4), entry(5), EPOCH)
    record = with_published(record, entry(6), EPOCH + timedelta(hours=2))
    record = with_active(record, id_of(6))
    within = RetentionPolicy(keep_within_hours=3)
    assert list(kept(record, within, hours=2)) == [1, 2, 3, 4, 5, 6]
    assert list(kept(record, within, hours=3)) == [5, 6]
    every = RetentionPolicy(keep_every=(KeepEvery(every_hours=1, for_hours=24),))
    assert list(kept(record, every, hours=2)) == [4, 5, 6]


def test_those_of_unknown_time_have_a_window_of_their_own() -> None:
    record = published(*range(6)).model_copy(update={"active": None})
    times = [*record.published_at.items()]
    record = record.model_copy(update={"published_at": dict(times[2:])})
    every = RetentionPolicy(keep_every=(KeepEvery(every_hours=1, for_hours=2),))
    assert list(kept(record, every)) == [2, 6]
    after = with_collection_begun(record, {id_of(each) for each in (1, 3, 4, 5)}, TOKEN)
    assert list(kept(after, every)) == [2, 6]


def test_where_no_time_is_known_all_count_as_published_now() -> None:
    within = RetentionPolicy(keep_within_hours=1)
    assert list(kept(of_unknown_time(4), within, hours=9999)) == [1, 2, 3, 4]


def test_an_empty_record_has_nothing_to_keep_or_drop() -> None:
    assert retention(EMPTY, THINNING, {}, EPOCH) == Retention({}, ())


@pytest.mark.parametrize(
    "settings",
    [
        {"keep_last": 0},
        {"keep_last": -1},
        {"keep_within_hours": 0},
        {"keep_within_hours": 10**9},
        {"keep_every": ({"every_hours": 24, "for_hours": 1},)},
        {"keep_every": ({"every_hours": 0, "for_hours": 1},)},
        {"keep_every": ({"every_hours": 1},)},
        {"keep_every": ({"every_hours": 1, "for_hours": 1},) * 17},
        {"keep_daily": 3},
    ],
)
def test_a_policy_that_makes_no_sense_is_refused(settings: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        RetentionPolicy.model_validate(settings)


# --- what holds for every record and policy ---------------------------------------------------

COUNT = 12
NUMBERS = st.integers(1, COUNT)


@st.composite
def records(draw: st.DrawFn) -> ControlRecord:
    """Published at any pace, then anything done to it that the record can say."""
    paces = draw(st.lists(st.integers(0, 3000), min_size=COUNT, max_size=COUNT))
    record = published(*(sum(paces[: number + 1]) for number in range(COUNT)))
    if draw(st.booleans()):
        known = draw(st.integers(0, COUNT))
        times = [*record.published_at.items()][known:]
        record = record.model_copy(update={"published_at": dict(times)})
    for number in draw(st.lists(NUMBERS, max_size=2, unique=True)):
        record = with_tag(record, f"t{number}", id_of(number))
    for number in draw(st.lists(NUMBERS, max_size=2, unique=True)):
        record = with_pin(record, id_of(number), "why")
    if draw(st.booleans()):
        target = entry(draw(st.integers(2, COUNT))).generation_id
        record = with_rollback(record, target, "wrong answers")
    for number in draw(st.lists(st.integers(2, COUNT), max_size=3, unique=True)):
        record = with_revoked(record, id_of(number), "it leaks")
    return record


HOURS = st.integers(1, 900)
RULES = st.builds(
    lambda every, more: KeepEvery(every_hours=every, for_hours=every + more),
    st.integers(1, 100),
    HOURS,
)
POLICIES = st.builds(
    RetentionPolicy,
    keep_last=st.none() | st.integers(1, COUNT),
    keep_within_hours=st.none() | HOURS,
    keep_every=st.lists(RULES, max_size=3).map(tuple),
)
LEASED = st.lists(NUMBERS, max_size=2).map(
    lambda each: {id_of(number): ["lease of x"] for number in each}
)
NOWS = st.integers(-100, 2000).map(lambda hours: EPOCH + timedelta(hours=hours))
MORE_HOURS = st.integers(0, 500)


@given(records(), POLICIES, LEASED, NOWS)
def test_what_must_be_kept_always_is(
    record: ControlRecord,
    policy: RetentionPolicy,
    leased: dict[str, list[str]],
    now: datetime,
) -> None:
    found = retention(record, policy, leased, now)
    needed = never_collected(record).keys() | leased.keys()
    needed |= {tag.generation_id for tag in record.tags}
    needed |= {pin.generation_id for pin in record.pins}
    assert needed <= found.kept.keys()
    assert all(found.kept.values())
    in_order = [each.generation_id for each in record.published]
    assert [each for each in in_order if each in found.kept] == list(found.kept)
    assert [each for each in in_order if each not in found.kept] == list(found.dropped)
    readable = {each.generation_id for each in record.retained_entries()}
    assert found.kept.keys() <= readable | needed
    if policy.keeps_all:
        assert readable <= found.kept.keys()


@given(records(), POLICIES, LEASED, NOWS)
def test_rows_7_and_20_what_is_left_can_be_signed_and_drops_nothing_more(
    record: ControlRecord,
    policy: RetentionPolicy,
    leased: dict[str, list[str]],
    now: datetime,
) -> None:
    first = retention(record, policy, leased, now)
    after = with_collection_begun(record, set(first.dropped), TOKEN)
    for each in after.published:
        check_lineage(after, each)
    again = retention(after, policy, leased, now)
    assert (list(again.kept), again.dropped) == (list(first.kept), ())


@given(records(), POLICIES, NOWS, st.integers(0, 5), MORE_HOURS, RULES)
def test_a_wider_policy_keeps_no_less(
    record: ControlRecord,
    policy: RetentionPolicy,
    now: datetime,
    more: int,
    more_hours: int,
    rule: KeepEvery,
) -> None:
    narrow = policy.model_copy(update={"keep_last": policy.keep_last or 1})
    within = narrow.keep_within_hours
    wide = RetentionPolicy(
        keep_last=(narrow.keep_last or 1) + more,
        keep_within_hours=None if within is None else within + more_hours,
        keep_every=(
            *(
                KeepEvery(every_hours=each.every_hours, for_hours=each.for_hours + more_hours)
                for each in narrow.keep_every
            ),
            rule,
        ),
    )
    less, enough, all_of_it = (
        retention(record, each, {}, now).kept.keys() for each in (narrow, wide, RetentionPolicy())
    )
    assert less <= enough <= all_of_it


@given(records(), POLICIES, LEASED, NOWS, st.integers(1, 500))
def test_as_time_passes_only_rules_about_time_let_go(
    record: ControlRecord,
    policy: RetentionPolicy,
    leased: dict[str, list[str]],
    now: datetime,
    hours: int,
) -> None:
    before = retention(record, policy, leased, now).kept
    after = retention(record, policy, leased, now + timedelta(hours=hours)).kept
    timed = {str(rule) for rule in policy.keep_every}
    timed |= {words for why in before.values() for words in why if words.startswith("within ")}
    for each, why in before.items():
        assert set(after.get(each, ())) <= set(why)
        assert set(why) - set(after.get(each, ())) <= timed
    assert after.keys() <= before.keys()
