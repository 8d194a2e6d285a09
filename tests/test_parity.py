"""Agreement numbers against published values, a second implementation, and scipy where it is installed."""

import importlib
import importlib.util
import json
import math
from fractions import Fraction
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raskrank.activation import sigmoid
from raskrank.backend import Float32Array
from raskrank.parity import Parity, compare, kendall_tau


def floats(*values: float) -> Float32Array:
    return np.array(values, np.float32)


def pair_count_tau(first: list[int], second: list[int]) -> float:
    """tau-b by counting pairs one by one; 0 where one list is all ties."""
    concordant = discordant = only_first = only_second = 0
    for i, j in combinations(range(len(first)), 2):
        a, b = first[i] - first[j], second[i] - second[j]
        concordant += a * b > 0
        discordant += a * b < 0
        only_first += b == 0 and a != 0
        only_second += a == 0 and b != 0
    untied = concordant + discordant
    scale = (untied + only_first) * (untied + only_second)
    return float(concordant - discordant) / math.sqrt(scale) if scale else 0.0


@pytest.mark.parametrize(
    ("first", "second", "tau"),
    [
        ((1, 2, 3, 4), (10, 20, 30, 40), 1.0),
        ((1, 2, 3, 4), (4, 3, 2, 1), -1.0),
        ((1, 2, 3, 4), (1, 2, 4, 3), 4 / 6),
        # From scipy.stats.kendalltau's documentation, with ties on both sides.
        ((12, 2, 1, 12, 2), (1, 4, 7, 1, 0), -0.47140452079103173),
        ((1, 1, 1), (1, 2, 3), 0.0),
        ((1, 2, 3), (5, 5, 5), 0.0),
        ((1,), (2,), 0.0),
        ((), (), 0.0),
    ],
)
def test_kendall_tau_of_known_lists(first: tuple[float, ...], second: tuple[float, ...], tau: float) -> None:
    assert kendall_tau(floats(*first), floats(*second)) == pytest.approx(tau, abs=1e-12)


@settings(deadline=None, database=None)
@given(st.lists(st.tuples(st.integers(-4, 4), st.integers(-4, 4)), max_size=25))
def test_kendall_tau_counts_pairs(points: list[tuple[int, int]]) -> None:
    first, second = [a for a, _ in points], [b for _, b in points]
    found = kendall_tau(floats(*first), floats(*second))
    assert found == pytest.approx(pair_count_tau(first, second), abs=1e-12)
    if importlib.util.find_spec("scipy") and len(set(first)) > 1 and len(set(second)) > 1:
        scipy = importlib.import_module("scipy.stats")
        assert found == pytest.approx(float(scipy.kendalltau(first, second).statistic), abs=1e-12)


def test_sigmoid_neither_overflows_nor_leaves_its_range() -> None:
    # Warnings are errors here, so an overflow in exp would fail.
    values = sigmoid(floats(-1e4, -200, -89, 0, 89, 200, 1e4, -3.4e38, 3.4e38))
    assert values.dtype == np.float32
    assert values.tolist() == [0, 0, pytest.approx(2.2e-39, rel=0.1), 0.5, 1, 1, 1, 0, 1]


def test_sigmoid_of_what_is_not_finite() -> None:
    minus, plus, nan = sigmoid(floats(-math.inf, math.inf, math.nan))
    assert (minus, plus) == (0, 1)
    assert math.isnan(nan)


@settings(deadline=None, database=None)
@given(st.floats(-80, 80, width=32))
def test_sigmoid_is_the_textbook_formula(x: float) -> None:
    (found,) = sigmoid(floats(x))
    exact = 1 / (1 + Fraction(math.exp(-x)))
    assert found == pytest.approx(float(exact), rel=1e-6)


def test_queries_are_ranked_apart() -> None:
    # Each query keeps its order, though not one of all pairs across queries does.
    pairs = [("a", "1"), ("b", "1"), ("a", "2"), ("b", "2")]
    parity = compare(pairs, ("reference", floats(1, 10, 2, 20)), ("candidate", floats(100, 1, 200, 2)))
    assert parity.queries == (0, 1, 0, 1)
    assert (parity.tau, parity.top1) == (1.0, 1.0)
    swapped = compare(pairs, ("reference", floats(1, 10, 2, 20)), ("candidate", floats(1, 20, 2, 10)))
    assert (swapped.tau, swapped.top1) == (0.0, 0.5)


def test_a_query_without_an_order_does_not_count() -> None:
    pairs = [("a", "1"), ("a", "2"), ("b", "1"), ("c", "1"), ("c", "2")]
    parity = compare(pairs, ("reference", floats(1, 2, 5, 7, 7)), ("candidate", floats(2, 1, 5, 8, 9)))
    assert (parity.tau, parity.top1) == (-1.0, 0.0)


def test_differences_and_drift() -> None:
    pairs = [("q", "a"), ("q", "b"), ("q", "c")]
    parity = compare(pairs, ("r", floats(0, 2, -4)), ("c", floats(1, 2, -6)))
    assert parity.logit_differences.tolist() == [1, 0, 2]
    assert (parity.max_logit_difference, parity.mean_logit_difference) == (2, 1)
    expected = [1 / (1 + math.exp(-1)) - 0.5, 0, 1 / (1 + math.exp(4)) - 1 / (1 + math.exp(6))]
    assert parity.drifts.tolist() == pytest.approx(expected, abs=1e-6)
    assert parity.max_drift == pytest.approx(expected[0], abs=1e-6)
    assert parity.mean_drift == pytest.approx(sum(expected) / 3, abs=1e-6)
    assert parity.logit_spread == pytest.approx(float(np.std([0, 2, -4])))


def test_no_pairs_agree() -> None:
    parity = compare([], ("r", floats()), ("c", floats()))
    assert parity.summary() == {
        "reference": "r",
        "candidate": "c",
        "part": "all",
        "pairs": 0,
        "queries": 0,
        "logit_spread": 0.0,
        "rounding": None,
        "max_logit_difference": 0.0,
        "mean_logit_difference": 0.0,
        "max_drift": 0.0,
        "mean_drift": 0.0,
        "tau": None,
        "top1": None,
    }


@pytest.mark.parametrize("side", ["reference", "candidate"])
def test_a_logit_that_is_no_number_is_no_agreement(side: str) -> None:
    good, bad = floats(1, 2, 3), floats(1, math.nan, 3)
    reference, candidate = (bad, good) if side == "reference" else (good, bad)
    parity = compare([("q", "a"), ("q", "b"), ("q", "c")], ("r", reference), ("c", candidate))
    # A threshold is met only by a comparison that holds, and none holds with NaN.
    assert math.isnan(parity.max_logit_difference)
    assert math.isnan(parity.mean_logit_difference)
    assert math.isnan(parity.max_drift)
    assert math.isnan(parity.mean_drift)
    assert parity.tau != 1.0


def test_the_summary_is_json_and_the_text_has_its_numbers() -> None:
    pairs = [("q", "a"), ("q", "b"), ("p", "a"), ("p", "b")]
    parity = compare(pairs, ("torch fp32", floats(1, 2, 3, 4)), ("onnx int8", floats(1.25, 2, 4, 3)))
    assert json.loads(json.dumps(parity.summary(), allow_nan=False)) == parity.summary()
    assert parity.summary()["pairs"] == 4
    assert parity.summary()["queries"] == 2
    text = str(parity)
    for part in ("onnx int8 against torch fp32", "4 pairs of 2 queries", "tau 0.0000", "50.0%", f"{parity.max_drift:.4f}"):
        assert part in text


def test_parities_are_compared_by_identity() -> None:
    # Arrays have no single truth value, so a generated == would raise.
    first, second = (compare([("q", "a")], ("r", floats(1)), ("c", floats(1))) for _ in range(2))
    assert first == first
    assert first != second
    assert isinstance(first, Parity)
