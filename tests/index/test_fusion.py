from hypothesis import given
from hypothesis import strategies as st

from index.fusion import reciprocal_rank_fusion

RANKINGS = st.lists(st.integers(0, 40), unique=True, max_size=40)


def naive(first: list[int], second: list[int], limit: int) -> list[tuple[int, float]]:
    scores: dict[int, float] = {}
    for ranking in (first, second):
        for rank, row in enumerate(ranking, 1):
            scores[row] = scores.get(row, 0.0) + 1 / (60 + rank)
    return sorted(scores.items(), key=lambda scored: (-scored[1], scored[0]))[:limit]


@given(RANKINGS, RANKINGS, st.integers(1, 50))
def test_fusion_is_the_sum_of_reciprocal_ranks(
    first: list[int], second: list[int], limit: int
) -> None:
    assert reciprocal_rank_fusion(first, second, limit) == naive(first, second, limit)


def test_equal_scores_are_ordered_by_row_even_at_the_cut() -> None:
    assert [row for row, _ in reciprocal_rank_fusion([9, 3], [4, 7], 3)] == [4, 9, 3]
    assert reciprocal_rank_fusion([2, 1], [1, 2], 1) == naive([2, 1], [1, 2], 1)


def test_the_longest_rankings_are_fused_to_their_end() -> None:
    first, second = list(range(1000)), list(range(999, 1999))
    assert reciprocal_rank_fusion(first, second, 2000) == naive(first, second, 2000)


def test_nothing_fused_with_nothing_is_nothing() -> None:
    assert reciprocal_rank_fusion([], [], 10) == []
