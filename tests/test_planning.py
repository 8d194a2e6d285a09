"""Plans are pure: every property here needs token counts and no model."""

import functools
import itertools
import math

from hypothesis import given, settings
from hypothesis import strategies as st

from raskrank import planning
from raskrank.planning import GROUP_TOKENS, Run

# Of a few lengths, so that many are equal, and of many.
LENGTHS = st.lists(st.sampled_from([3, 16, 17, 128, 129, 600]), max_size=60) | st.lists(st.integers(1, 600), max_size=60)
CORES = st.integers(1, 64)
HIDDEN = st.sampled_from([0, 32, 128, 384, 768, 1024])
MIN_SHARE = 15_000_000
CASES = settings(deadline=None, database=None)


plan = functools.partial(planning.plan, min_share=MIN_SHARE)


def indices(runs: list[Run]) -> list[int]:
    return [index for run in runs for index in run.indices]


def shapes(runs: list[Run]) -> list[tuple[int, int]]:
    return [(len(run.indices), run.length) for run in runs]


def test_nothing_to_plan() -> None:
    assert plan([], cores=2, hidden_size=768, groups=True) == []
    assert plan([], cores=2, hidden_size=768, groups=False) == []


def test_longest_first_and_ties_in_input_order() -> None:
    lengths = [3, 7, 3, 9, 7]
    runs = plan(lengths, cores=2, hidden_size=32, groups=False)
    assert [(run.length, run.indices) for run in runs] == [(9, (3,)), (7, (1,)), (7, (4,)), (3, (0,)), (3, (2,))]
    runs = plan(lengths, cores=2, hidden_size=32, groups=True)
    assert [(run.length, run.indices) for run in runs] == [(9, (3,)), (7, (1, 4)), (3, (0, 2))]


def test_equal_lengths_share_runs_of_at_most_256_tokens() -> None:
    assert GROUP_TOKENS == 256
    assert shapes(plan(40 * [16], cores=1, hidden_size=384, groups=True)) == [(16, 16), (16, 16), (8, 16)]
    assert shapes(plan(4 * [85], cores=1, hidden_size=384, groups=True)) == [(3, 85), (1, 85)]
    assert shapes(plan(3 * [128], cores=1, hidden_size=384, groups=True)) == [(2, 128), (1, 128)]
    assert shapes(plan(2 * [129], cores=1, hidden_size=384, groups=True)) == [(1, 129), (1, 129)]
    assert shapes(plan(2 * [600], cores=1, hidden_size=384, groups=True)) == [
        (1, 600),
        (1, 600),
    ]  # longer than a group may be


def test_every_core_gets_a_part_of_equal_pairs() -> None:
    assert shapes(plan(8 * [16], cores=2, hidden_size=384, groups=True)) == [(4, 16), (4, 16)]
    assert shapes(plan(8 * [16], cores=3, hidden_size=384, groups=True)) == [(3, 16), (3, 16), (2, 16)]
    assert shapes(plan(8 * [16], cores=8, hidden_size=384, groups=True)) == 8 * [(1, 16)]
    assert shapes(plan(8 * [16], cores=64, hidden_size=384, groups=True)) == 8 * [(1, 16)]


@CASES
@given(LENGTHS, CORES, HIDDEN, st.booleans())
def test_every_pair_is_in_exactly_one_run(lengths: list[int], cores: int, hidden_size: int, groups: bool) -> None:
    runs = plan(lengths, cores=cores, hidden_size=hidden_size, groups=groups)
    assert sorted(indices(runs)) == list(range(len(lengths)))


@CASES
@given(LENGTHS, CORES, HIDDEN, st.booleans())
def test_the_pairs_of_a_run_have_its_length(lengths: list[int], cores: int, hidden_size: int, groups: bool) -> None:
    for run in plan(lengths, cores=cores, hidden_size=hidden_size, groups=groups):
        assert run.indices
        assert {lengths[index] for index in run.indices} == {run.length}


@CASES
@given(LENGTHS, CORES, HIDDEN)
def test_a_run_holds_what_the_tokens_and_the_cores_allow(lengths: list[int], cores: int, hidden_size: int) -> None:
    for run in plan(lengths, cores=cores, hidden_size=hidden_size, groups=True):
        size = len(run.indices)
        assert size == 1 or size * run.length <= GROUP_TOKENS
        assert size <= math.ceil(len(lengths) / cores)


@CASES
@given(LENGTHS, CORES, HIDDEN)
def test_of_each_length_only_the_last_run_is_not_full(lengths: list[int], cores: int, hidden_size: int) -> None:
    sizes: dict[int, list[int]] = {}
    for run in plan(lengths, cores=cores, hidden_size=hidden_size, groups=True):
        sizes.setdefault(run.length, []).append(len(run.indices))
    for length, counts in sizes.items():
        full = max(1, min(GROUP_TOKENS // length, math.ceil(len(lengths) / cores)))
        assert set(counts[:-1]) <= {full}
        assert counts[-1] <= full


@CASES
@given(LENGTHS, CORES, HIDDEN)
def test_without_groups_every_pair_has_a_run_of_its_own(lengths: list[int], cores: int, hidden_size: int) -> None:
    assert {len(run.indices) for run in plan(lengths, cores=cores, hidden_size=hidden_size, groups=False)} <= {1}


@CASES
@given(LENGTHS, CORES, HIDDEN, st.booleans())
def test_runs_go_from_long_to_short_and_equal_lengths_keep_their_order(
    lengths: list[int], cores: int, hidden_size: int, groups: bool
) -> None:
    order = indices(plan(lengths, cores=cores, hidden_size=hidden_size, groups=groups))
    assert order == sorted(order, key=lambda index: (-lengths[index], index))


@CASES
@given(LENGTHS, CORES, HIDDEN, st.booleans())
def test_planning_changes_nothing_and_is_repeatable(lengths: list[int], cores: int, hidden_size: int, groups: bool) -> None:
    before = list(lengths)
    first = plan(lengths, cores=cores, hidden_size=hidden_size, groups=groups)
    assert plan(tuple(lengths), cores=cores, hidden_size=hidden_size, groups=groups) == first
    assert lengths == before


@CASES
@given(LENGTHS, CORES, HIDDEN, st.booleans(), st.sampled_from([1, MIN_SHARE]))
def test_a_run_is_spread_only_where_cores_are_idle_and_each_gets_its_share(
    lengths: list[int], cores: int, hidden_size: int, groups: bool, min_share: int
) -> None:
    runs = plan(lengths, cores=cores, hidden_size=hidden_size, groups=groups, min_share=min_share)
    for run in runs:
        assert run.threads == 1 or run.length * hidden_size**2 >= min_share * run.threads
    assert sum(run.threads for run in runs) <= max(cores, len(runs))
    if len(lengths) >= cores:
        assert {run.threads for run in runs} <= {1}


@CASES
@given(st.lists(st.integers(1, 600), min_size=1, max_size=60), CORES)
def test_no_core_is_idle_where_any_share_is_enough(lengths: list[int], cores: int) -> None:
    runs = plan(lengths, cores=cores, hidden_size=768, groups=True, min_share=1)
    assert sum(run.threads for run in runs) >= cores or len(lengths) >= cores
    for longer, shorter in itertools.pairwise(runs):
        assert longer.threads >= shorter.threads


def test_a_long_pair_alone_is_spread_and_a_short_one_or_a_full_house_is_not() -> None:
    threads = {
        (n, length): plan(n * [length], cores=2, hidden_size=768, groups=True)[0].threads
        for n in (1, 2)
        for length in (50, 51, 512)
    }
    assert threads == {(1, 50): 1, (1, 51): 2, (1, 512): 2, (2, 50): 1, (2, 51): 1, (2, 512): 1}


def test_idle_cores_go_to_the_longest_runs() -> None:
    runs = plan([64, 512, 64], cores=16, hidden_size=768, groups=True)
    assert [(run.length, run.threads) for run in runs] == [(512, 12), (64, 2), (64, 2)]


@CASES
@given(LENGTHS, CORES, HIDDEN, st.booleans())
def test_in_order_each_run_stands_where_its_first_pair_does(
    lengths: list[int], cores: int, hidden_size: int, groups: bool
) -> None:
    runs = plan(lengths, cores=cores, hidden_size=hidden_size, groups=groups, in_order=True)
    assert [run.indices[0] for run in runs] == sorted(run.indices[0] for run in runs)
    longest_first = plan(lengths, cores=cores, hidden_size=hidden_size, groups=groups)
    assert {run[:2] for run in runs} == {run[:2] for run in longest_first}, "of the same pairs"
