"""Plans are pure: every property here needs token counts and no model."""

from hypothesis import given, settings
from hypothesis import strategies as st

from raskrank.planning import SPREAD_MIN_WORK, Run, plan

LENGTHS = st.lists(st.integers(1, 600), max_size=60)
CORES = st.integers(1, 64)
HIDDEN = st.sampled_from([0, 32, 128, 384, 768, 1024])
CASES = settings(deadline=None, database=None)


def indices(runs: list[Run]) -> list[int]:
    return [index for run in runs for index in run.indices]


def test_nothing_to_plan() -> None:
    assert plan([], cores=2, hidden_size=768) == []


def test_longest_first_and_ties_in_input_order() -> None:
    runs = plan([3, 7, 3, 9, 7], cores=2, hidden_size=32)
    assert [(run.length, run.indices) for run in runs] == [(9, (3,)), (7, (1,)), (7, (4,)), (3, (0,)), (3, (2,))]


@CASES
@given(LENGTHS, CORES, HIDDEN)
def test_every_pair_is_in_exactly_one_run(lengths: list[int], cores: int, hidden_size: int) -> None:
    assert sorted(indices(plan(lengths, cores=cores, hidden_size=hidden_size))) == list(range(len(lengths)))


@CASES
@given(LENGTHS, CORES, HIDDEN)
def test_the_pairs_of_a_run_have_its_length(lengths: list[int], cores: int, hidden_size: int) -> None:
    for run in plan(lengths, cores=cores, hidden_size=hidden_size):
        assert run.indices
        assert {lengths[index] for index in run.indices} == {run.length}


@CASES
@given(LENGTHS, CORES, HIDDEN)
def test_runs_go_from_long_to_short_and_equal_lengths_keep_their_order(
    lengths: list[int], cores: int, hidden_size: int
) -> None:
    order = indices(plan(lengths, cores=cores, hidden_size=hidden_size))
    assert order == sorted(order, key=lambda index: (-lengths[index], index))


@CASES
@given(LENGTHS, CORES, HIDDEN)
def test_planning_changes_nothing_and_is_repeatable(lengths: list[int], cores: int, hidden_size: int) -> None:
    before = list(lengths)
    first = plan(lengths, cores=cores, hidden_size=hidden_size)
    assert plan(tuple(lengths), cores=cores, hidden_size=hidden_size) == first
    assert lengths == before


@CASES
@given(LENGTHS, CORES, HIDDEN)
def test_a_run_is_spread_only_where_cores_are_idle_and_it_is_worth_it(lengths: list[int], cores: int, hidden_size: int) -> None:
    for run in plan(lengths, cores=cores, hidden_size=hidden_size):
        assert run.spread == (len(lengths) < cores and run.length * hidden_size * hidden_size >= SPREAD_MIN_WORK)


def test_a_long_pair_alone_is_spread_and_a_short_one_or_a_full_house_is_not() -> None:
    spread = {(n, length): plan(n * [length], cores=2, hidden_size=768)[0].spread for n in (1, 2) for length in (2, 3, 512)}
    assert spread == {(1, 2): False, (1, 3): True, (1, 512): True, (2, 2): False, (2, 3): False, (2, 512): False}
