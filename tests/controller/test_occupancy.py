"""What generations occupy that share files, and which go first."""

from __future__ import annotations

from collections.abc import Mapping

from hypothesis import given, strategies

from controller.occupancy import Occupancy, Resident

NAMES = [f"g{number}" for number in range(6)]
SIZES = {name: 10**place for place, name in enumerate("uvwxyz")}


def of(parts: Mapping[str, set[str]], kept: set[str]) -> Occupancy:
    """Generations that were opened in the order in which they are given."""
    residents = [
        Resident(name, place, {part: SIZES[part] for part in named})
        for place, (name, named) in enumerate(parts.items())
    ]
    return Occupancy(residents, kept)


def test_what_a_kept_generation_has_is_not_old() -> None:
    occupancy = of({"a": {"u", "v"}, "b": {"v", "w"}, "c": {"w", "x"}}, {"c"})
    assert occupancy.old_bytes == SIZES["u"] + SIZES["v"]
    assert occupancy.remove("a") == SIZES["u"], "b has the other still"
    assert occupancy.old_bytes == SIZES["v"]
    assert occupancy.remove("b") == SIZES["v"]
    assert occupancy.old_bytes == 0


def test_the_one_that_was_opened_longest_ago_goes_first_and_of_equals_the_older() -> None:
    residents = [Resident(name, opened, {}) for name, opened in (("c", 5), ("a", 9), ("b", 5))]
    assert Occupancy(residents, {"d"}).least_recent() == ["b", "c", "a"]
    assert Occupancy(residents, {"b"}).least_recent() == ["c", "a"]


@given(
    strategies.dictionaries(
        strategies.sampled_from(NAMES), strategies.sets(strategies.sampled_from(sorted(SIZES)))
    ),
    strategies.sets(strategies.sampled_from(NAMES)),
)
def test_what_going_frees_adds_up_to_what_nobody_has_left(
    parts: dict[str, set[str]], kept: set[str]
) -> None:
    occupancy = of(parts, kept)
    left = dict(parts)
    for name in occupancy.least_recent():
        before = set().union(*left.values())
        del left[name]
        after = set().union(*left.values())
        assert occupancy.remove(name) == sum(SIZES[part] for part in before - after)
        needed = set().union(*(left[each] for each in left.keys() & kept))
        assert occupancy.old_bytes == sum(SIZES[part] for part in after - needed)
    assert occupancy.old_bytes == 0
    assert left.keys() <= kept
