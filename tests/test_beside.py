"""Work in a thread of its own: results, errors, and that nothing of a closed generator runs on."""

import threading
import time
from contextlib import closing

import pytest

from raskrank.process.beside import ahead, beside

DEADLINE = 10


def test_a_result_and_an_error_reach_whoever_asks() -> None:
    assert beside(lambda: 1 + 1).result() == 2
    with pytest.raises(ZeroDivisionError):
        beside(lambda: 1 // 0).result()


def test_it_runs_at_once_where_no_thread_can_start(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: threading.Thread) -> None:
        raise RuntimeError("can't create new thread at interpreter shutdown")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    assert beside(threading.get_ident).result() == threading.get_ident()


@pytest.mark.parametrize("count", [0, 1, 2, 5])
def test_results_come_in_order(count: int) -> None:
    assert list(ahead(lambda number: number * 10, range(count))) == [number * 10 for number in range(count)]


def test_the_next_is_computed_meanwhile_and_no_further() -> None:
    begun, second = list[int](), threading.Event()

    def work(number: int) -> int:
        begun.append(number)
        if number == 1:
            second.set()
        return number

    results = ahead(work, [0, 1, 2, 3])
    assert next(results) == 0
    assert second.wait(DEADLINE)
    assert begun == [0, 1]
    results.close()


def test_an_error_comes_in_its_turn() -> None:
    results = ahead(lambda number: 1 // number, [1, 0, 1])
    assert next(results) == 1
    with pytest.raises(ZeroDivisionError):
        next(results)


def test_nothing_runs_on_after_it_is_closed() -> None:
    finished = threading.Event()

    def work(number: int) -> None:
        if number:
            time.sleep(0.2)
            finished.set()

    with closing(ahead(work, [0, 1, 2])) as results:
        next(results)
    assert finished.is_set()
