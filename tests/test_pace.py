"""How long runs are expected to take, and how long they may go on: pure, with numbers that the tests choose."""

import math

import pytest

from raskrank.pace import FALL, FULL, Pace
from raskrank.planning import Run
from raskrank.process.until import Stopped, Until


def pace_of(*seconds: float) -> Pace:
    """After runs of FULL work that took so long."""
    pace = Pace()
    for measured in seconds:
        pace.note(FULL, measured)
    return pace


def test_nothing_is_expected_before_anything_was_measured() -> None:
    pace = Pace()
    assert not pace.known
    assert pace.expected(1e9) == 0
    pace.doubt()
    assert not pace.known


def test_work_takes_as_long_as_it_took() -> None:
    pace = pace_of(2.0)
    assert pace.known
    assert pace.expected(FULL) == 2.0
    assert pace.expected(10 * FULL) == 20.0


def test_it_rises_at_once_and_falls_slowly() -> None:
    assert pace_of(1.0, 8.0).expected(FULL) == 8.0
    assert pace_of(8.0, 1.0).expected(FULL) == 8.0 - 7.0 * FALL
    assert pace_of(8.0, *[1.0] * 20).expected(FULL) == pytest.approx(1.0, rel=0.05)


def test_a_small_run_says_little_of_a_large_one() -> None:
    pace = pace_of(1.0)
    pace.note(FULL / 16, 1.0)  # 16 times as slow
    assert 1.0 < pace.expected(FULL) < 2.0


def test_doubt_leads_back_to_the_best_that_was_measured_and_no_further() -> None:
    pace = pace_of(1.0, 1000.0)
    for _ in range(10):
        pace.doubt()
    assert 1.0 <= pace.expected(FULL) < 2.0


@pytest.mark.parametrize(("hidden_size", "seconds"), [(128, (0.053, 0.455, 3.288)), (384, (0.470, 4.044, 22.933))])
def test_runs_of_all_lengths_have_the_same_pace_as_measured(hidden_size: int, seconds: tuple[float, ...]) -> None:
    """Milliseconds of the native backend for one pair of 16, 128 and 512 tokens, nano and MiniLM-L-6, on an AMD EPYC."""
    runs = [Run(length, (0,), 1) for length in (16, 128, 512)]
    rates = [measured / run.work(hidden_size) for run, measured in zip(runs, seconds, strict=True)]
    assert max(rates) / min(rates) < 1.35


def test_pairs_of_a_run_and_cores_count() -> None:
    one, four = Run(64, (0,), 1), Run(64, (0, 1, 2, 3), 1)
    assert 3 < four.work(384) / one.work(384) < 4
    assert 1 < one.work(384) / one._replace(threads=4).work(384) < 4
    assert one.work(0) > 0


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time, in its only item."""
    now = [100.0]
    monkeypatch.setattr(Until, "clock", staticmethod(lambda: now[0]))
    return now


def test_time_runs_out(clock: list[float]) -> None:
    until = Until(2.5)
    assert until.limited
    assert until.left() == 2.5
    clock[0] += 3
    assert until.left() == -0.5
    until.check()
    assert not Until().limited
    assert Until().left() == math.inf


def test_a_deadline_may_come_early(clock: list[float]) -> None:
    until = Until(2.5)
    until.expire()
    assert until.left() < 0
    assert clock == [100.0]


def test_whoever_works_is_told_to_stop_once() -> None:
    until, told = Until(), list[str]()
    until.tells(lambda: told.append("first"))
    until.tells(lambda: told.append("second"))
    assert told == []
    until.stop()
    assert told == ["second"]
    assert until.left() == -math.inf
    with pytest.raises(Stopped):
        until.check()


def test_whoever_begins_to_work_too_late_is_told_at_once() -> None:
    until, told = Until(), list[str]()
    until.stop()
    until.tells(lambda: told.append("late"))
    assert told == ["late"]
