from __future__ import annotations

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manifests.errors import BadQuery, GenerationCollected, NotYetActivated
from manifests.record import ControlRecord, GenerationEntry
from query.resolve import MAX_COMMIT_SEQ, resolve
from tests.manifests import samples

RECORD = samples.record(10, 20, 30, active=20)
ENTRIES = {entry.high_seq: entry for entry in RECORD.published}


def never() -> bool:
    return False


def not_read() -> ControlRecord:
    raise AssertionError("the record is not needed for this")


def not_active() -> GenerationEntry:
    raise AssertionError("the pointer is not needed for this")


def resolved(as_of: int | None, least: int | None, active: int = 20) -> int:
    return resolve(
        lambda: ENTRIES[active],
        lambda: RECORD,
        as_of_commit_seq=as_of,
        as_of_time=None,
        min_commit_seq=least,
        keep_waiting=never,
    ).entry.high_seq


@pytest.mark.parametrize(
    ("as_of", "least", "expected"),
    [
        (None, None, 20),
        (None, 0, 20),
        (None, 20, 20),
        (25, None, 20),
        (20, None, 20),
        (19, None, 10),
        (10, None, 10),
        (30, None, 30),
        (99, None, 30),
        (MAX_COMMIT_SEQ, None, 30),
        (25, 20, 20),
        (25, 11, 20),
        (30, 30, 30),
    ],
)
def test_the_generation_read(as_of: int | None, least: int | None, expected: int) -> None:
    assert resolved(as_of, least) == expected


@pytest.mark.parametrize(
    ("as_of", "least", "field"),
    [
        (-1, None, "as_of_commit_seq"),
        (MAX_COMMIT_SEQ + 1, None, "as_of_commit_seq"),
        (None, -1, "min_commit_seq"),
        (None, 2**64, "min_commit_seq"),
        (25, 21, "min_commit_seq"),
        (25, 26, "min_commit_seq"),
        (99, 31, "min_commit_seq"),
    ],
)
def test_what_no_generation_can_answer_is_a_bad_query(
    as_of: int | None, least: int | None, field: str
) -> None:
    with pytest.raises(BadQuery) as caught:
        resolved(as_of, least)
    assert caught.value.facts["field"] == field


@pytest.mark.parametrize("as_of", [0, 1, 5, 9])
def test_row_58_before_the_oldest_retained_names_the_range(as_of: int) -> None:
    with pytest.raises(GenerationCollected) as caught:
        resolved(as_of, None)
    assert (caught.value.facts["retained_low_seq"], caught.value.facts["retained_high_seq"]) == (
        10,
        30,
    )


@given(st.integers(0, 60))
def test_as_of_is_never_newer_than_asked(as_of: int) -> None:
    if as_of < 10:
        with pytest.raises(GenerationCollected):
            resolved(as_of, None)
    else:
        found = resolved(as_of, None)
        assert found == max(high_seq for high_seq in ENTRIES if high_seq <= as_of)


def test_the_latest_reads_the_pointer_and_nothing_else() -> None:
    chosen = resolve(
        lambda: ENTRIES[10],
        not_read,
        as_of_commit_seq=None,
        as_of_time=None,
        min_commit_seq=None,
        keep_waiting=never,
    )
    assert chosen.entry.high_seq == 10


def test_time_travel_does_not_read_the_pointer() -> None:
    chosen = resolve(
        not_active,
        lambda: RECORD,
        as_of_commit_seq=15,
        as_of_time=None,
        min_commit_seq=None,
        keep_waiting=never,
    )
    assert chosen.entry.high_seq == 10


def test_a_minimum_that_is_not_activated_in_time_is_not_yet_activated() -> None:
    with pytest.raises(NotYetActivated) as caught:
        resolved(None, 21)
    assert caught.value.facts == {"min_commit_seq": 21, "active_high_seq": 20}


def test_a_minimum_waits_until_another_thread_swaps() -> None:
    active = [10]
    looked, swapped = threading.Event(), threading.Event()

    def swap() -> None:
        assert looked.wait(30)
        active[0] = 20
        swapped.set()

    def keep_waiting() -> bool:
        looked.set()
        return swapped.wait(30)

    thread = threading.Thread(target=swap)
    thread.start()
    chosen = resolve(
        lambda: ENTRIES[active[0]],
        not_read,
        as_of_commit_seq=None,
        as_of_time=None,
        min_commit_seq=15,
        keep_waiting=keep_waiting,
    )
    thread.join()
    assert chosen.entry.high_seq == 20


def test_a_minimum_keeps_waiting_while_swaps_do_not_reach_it() -> None:
    steps = iter([10, 10, 20, 20, 30])
    waited: list[int] = []

    def keep_waiting() -> bool:
        waited.append(1)
        return True

    chosen = resolve(
        lambda: ENTRIES[next(steps)],
        not_read,
        as_of_commit_seq=None,
        as_of_time=None,
        min_commit_seq=30,
        keep_waiting=keep_waiting,
    )
    assert (chosen.entry.high_seq, len(waited)) == (30, 4)
