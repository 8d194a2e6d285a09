"""nDCG, MRR and top-1 against numbers worked out by hand, and against their definitions."""

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raskrank.measure.quality import ndcg, quality, reciprocal_rank

GRADES = st.lists(st.integers(0, 3), min_size=1, max_size=6)


@pytest.mark.parametrize(
    ("grades", "expected"),
    [
        ([1, 0, 0], 1.0),
        ([0, 1, 0], 0.6309297535714574),  # 1 / log2(3)
        ([0, 0, 1], 0.5),  # 1 / log2(4)
        ([1, 0, 1], 1.5 / 1.6309297535714573),
        ([3, 2, 1], 1.0),
        ([1, 2, 3], (1 + 2 / 1.584962500721156 + 3 / 2) / (3 + 2 / 1.584962500721156 + 1 / 2)),
        ([0] * 10 + [1], 0.0),  # below the tenth rank
        ([1] + [0] * 10 + [1], 1 / 1.6309297535714573),  # two could stand in the first ten
        ([1] * 12, 1.0),
        ([0, 0], 0.0),
    ],
)
def test_ndcg_by_hand(grades: list[int], expected: float) -> None:
    assert ndcg(grades) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(
    ("grades", "expected"),
    [([2, 0], 1.0), ([0, 1, 1], 0.5), ([0] * 9 + [1], 0.1), ([0] * 10 + [1], 0.0), ([0], 0.0)],
)
def test_reciprocal_rank_by_hand(grades: list[int], expected: float) -> None:
    assert reciprocal_rank(grades) == expected


def test_quality_is_the_mean_over_the_queries() -> None:
    found = quality([[1, 0, 0], [0, 0, 1]])
    assert (found.queries, found.ndcg, found.top1) == (2, 0.75, 0.5)
    assert found.mrr == pytest.approx((1 + 1 / 3) / 2)


@given(GRADES, st.integers(1, 6))
def test_ndcg_is_the_share_of_the_best_order(grades: list[int], depth: int) -> None:
    def gain(order: tuple[int, ...]) -> float:
        # The definition of 2002: from rank b = 2 on, the gain is divided by log b of the rank; here of rank + 1, as trec_eval.
        return math.fsum(grade * math.log(2) / math.log(rank + 2) for rank, grade in enumerate(order) if rank < depth)

    best = max(map(gain, itertools.permutations(grades)))
    assert ndcg(grades, depth) == pytest.approx(gain(tuple(grades)) / best if best else 0.0, abs=1e-9)


@given(GRADES, st.integers(1, 6))
def test_reciprocal_rank_is_the_largest_of_a_relevant_rank(grades: list[int], depth: int) -> None:
    ranks = [rank for rank in range(1, len(grades) + 1) if rank <= depth and grades[rank - 1] > 0]
    assert reciprocal_rank(grades, depth) == max((1 / rank for rank in ranks), default=0.0)


@given(st.lists(GRADES, min_size=1, max_size=5))
def test_each_mean_is_between_0_and_1(rankings: list[list[int]]) -> None:
    found = quality(rankings)
    assert all(0 <= number <= 1 for number in (found.ndcg, found.mrr, found.top1))
