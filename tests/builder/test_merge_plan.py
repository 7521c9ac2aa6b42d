"""The rules of merging, without a file."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builder.merge_plan import DEFAULT_POLICY, Merge, Part, plan_merges

SIZES = st.integers(1, 1 << 40)
NO_LIMIT = 1 << 62


@st.composite
def parts(draw: st.DrawFn) -> list[Part]:
    found = []
    for number in range(draw(st.integers(0, 40))):
        live, dead = draw(st.integers(0, 1000)), draw(st.integers(0, 1000))
        live += not live + dead
        found.append(Part(f"part {number}", live, dead, draw(SIZES), draw(st.integers(1, 2))))
    return found


def shards_after(before: list[Part], merges: list[Merge[Part]]) -> int:
    merged = [part for merge in merges for part in merge.parts]
    made = sum(1 for merge in merges if merge.live)
    return sum(part.shards for part in before) - sum(part.shards for part in merged) + made


@given(parts(), st.integers(1, 12), st.integers(0, 1 << 42), st.booleans())
def test_merges_are_of_neighbours_and_no_part_is_merged_twice(
    before: list[Part], most: int, max_bytes: int, must: bool
) -> None:
    merges = plan_merges(before, DEFAULT_POLICY, most=most, max_bytes=max_bytes, must=must)
    names = [part.name for part in before]
    places = [[names.index(part.name) for part in merge.parts] for merge in merges]
    assert all(place == list(range(place[0], place[-1] + 1)) for place in places)
    flat = [place for each in places for place in each]
    assert flat == sorted(set(flat))
    again = plan_merges(before, DEFAULT_POLICY, most=most, max_bytes=max_bytes, must=must)
    assert merges == again


@given(parts(), st.integers(1, 12), st.integers(0, 1 << 42))
def test_where_the_bound_must_hold_it_does(before: list[Part], most: int, max_bytes: int) -> None:
    merges = plan_merges(before, DEFAULT_POLICY, most=most, max_bytes=max_bytes, must=True)
    assert shards_after(before, merges) <= most
    if sum(part.shards for part in before) <= most:
        assert all(merge.reason == "dead documents" for merge in merges)


@given(parts(), st.integers(1, 12), st.integers(0, 1 << 42))
def test_where_it_need_not_nothing_is_read_beyond_the_budget(
    before: list[Part], most: int, max_bytes: int
) -> None:
    merges = plan_merges(before, DEFAULT_POLICY, most=most, max_bytes=max_bytes, must=False)
    assert sum(merge.read_bytes for merge in merges) <= max_bytes


@given(parts())
def test_without_a_limit_every_part_that_is_mostly_dead_is_written_again_and_no_other(
    before: list[Part],
) -> None:
    merges = plan_merges(before, DEFAULT_POLICY, most=1000, max_bytes=NO_LIMIT, must=False)
    stale = [part.name for part in before if part.dead > part.live]
    assert [merge.parts[0].name for merge in merges] == stale
    assert all(len(merge.parts) == 1 for merge in merges)


def sized(*sizes_bytes: int) -> list[Part]:
    return [Part(str(n), 100, 0, size, 1) for n, size in enumerate(sizes_bytes)]


@pytest.mark.parametrize(
    ("sizes_bytes", "most", "merged"),
    [
        ([900, 100, 10, 10, 10], 5, []),
        ([900, 100, 10, 10, 10], 4, [10, 10, 10]),
        ([900, 100, 19, 10, 10], 4, [19, 10, 10]),
        ([900, 100, 21, 10, 10], 4, [10, 10]),
        ([900, 100, 21, 10, 10], 3, [21, 10, 10]),
        ([900, 100, 60, 35, 20], 4, [100, 60, 35, 20]),
        ([900, 100, 60, 35, 20], 1, [900, 100, 60, 35, 20]),
        ([10, 10, 10, 900], 3, [10, 10, 10, 900]),
    ],
)
def test_the_newest_parts_are_merged_up_to_the_first_that_is_much_larger(
    sizes_bytes: list[int], most: int, merged: list[int]
) -> None:
    merges = plan_merges(
        sized(*sizes_bytes), DEFAULT_POLICY, most=most, max_bytes=NO_LIMIT, must=True
    )
    assert [part.size_bytes for merge in merges for part in merge.parts] == merged


def test_where_the_newest_parts_are_too_much_the_cheapest_neighbours_are_merged() -> None:
    before = sized(10, 10, 10, 900)
    merges = plan_merges(before, DEFAULT_POLICY, most=3, max_bytes=100, must=True)
    assert [part.name for part in merges[0].parts] == ["0", "1"]
    merges = plan_merges(before, DEFAULT_POLICY, most=1, max_bytes=30, must=False)
    assert [part.name for part in merges[0].parts] == ["0", "1", "2"], "as much as may be read"
    assert plan_merges(before, DEFAULT_POLICY, most=1, max_bytes=19, must=False) == []
    merges = plan_merges(before, DEFAULT_POLICY, most=1, max_bytes=19, must=True)
    assert len(merges[0].parts) == 4


def test_what_holds_nothing_live_is_dropped_for_nothing() -> None:
    gone = Part("gone", 0, 7, 1 << 50, 1)
    (merge,) = plan_merges([gone], DEFAULT_POLICY, most=12, max_bytes=0, must=False)
    assert (merge.read_bytes, merge.written_bytes, merge.live) == (0, 0, 0)


def amplification(batches: list[int], documents: int, seed: int) -> tuple[float, int]:
    """Random replacements planned build by build, sizes being documents: written for each one of
    the batches', and the most shards there were."""
    chance = random.Random(seed)
    held: list[tuple[Part, set[int]]] = []
    written = most_shards = 0

    def add(place: int, ids: set[int]) -> None:
        held.insert(place, (Part("part", len(ids), 0, len(ids), 1), ids))

    add(0, set(range(documents)))
    for batch in batches:
        changed = set(chance.sample(range(documents), batch))
        held = [
            (replace(part, live=len(ids - changed), dead=part.size_bytes - len(ids - changed)), ids)
            for part, ids in held
        ]
        merges = plan_merges(
            [part for part, _ in held], DEFAULT_POLICY, most=11, max_bytes=NO_LIMIT, must=True
        )
        by_part = {id(part): ids for part, ids in held}
        for merge in merges:
            place = next(n for n, (part, _) in enumerate(held) if part is merge.parts[0])
            left = set().union(*(by_part[id(part)] for part in merge.parts)) - changed
            del held[place : place + len(merge.parts)]
            written += len(left)
            if left:
                add(place, left)
        held = [(part, ids - changed) for part, ids in held]
        add(len(held), changed)
        written += len(changed)
        most_shards = max(most_shards, len(held))
    return written / sum(batches), most_shards


def even(chance: random.Random) -> int:
    del chance
    return 50


def uneven(chance: random.Random) -> int:
    return chance.randint(1, 100)


def bursts(chance: random.Random) -> int:
    return min(2000, int(chance.expovariate(1 / 50)) + 1)


@pytest.mark.parametrize("batch", [even, uneven, bursts])
def test_two_hundred_random_updates_write_less_than_four_bytes_for_each_of_theirs(
    batch: Callable[[random.Random], int],
) -> None:
    chance = random.Random(11)
    print("seed", 11)  # noqa: T201
    written, shards = amplification([batch(chance) for _ in range(200)], 5_000, seed=12)
    assert shards == 12, "no build may pass the bound, and none merges before it is reached"
    assert 1 < written <= 4
