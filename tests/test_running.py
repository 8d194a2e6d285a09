"""Worker threads: every run once, the first error stops the rest, and nothing runs on after a call."""

import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest

from raskrank.backend import Float32Array, Int64Array
from raskrank.encoding import EncodedPair
from raskrank.errors import ClosedError, InferenceError
from raskrank.planning import Run, plan
from raskrank.running import Workers, run_pairs

DEADLINE = 20.0  # seconds until a test that waits for another thread fails


def runs(count: int) -> list[Run]:
    return [Run(5, (index,), False) for index in range(count)]


@pytest.fixture(params=[1, 2, 4])
def workers(request: pytest.FixtureRequest) -> Iterator[Workers]:
    pool = Workers(request.param)
    yield pool
    pool.close()


def test_every_run_is_done_once_before_the_call_returns(workers: Workers) -> None:
    done: list[int] = []
    workers.run(lambda run: done.extend(run.indices), runs(300))
    assert sorted(done) == list(range(300))


def test_runs_are_taken_in_order() -> None:
    pool, taken = Workers(1), list[int]()
    pool.run(lambda run: taken.extend(run.indices), runs(20))
    pool.close()
    assert taken == list(range(20))


def test_no_runs() -> None:
    pool, called = Workers(2), list[Run]()
    pool.run(called.append, [])
    pool.close()
    assert called == []


def test_as_many_runs_are_in_flight_as_there_are_threads() -> None:
    pool, together, waited = Workers(3), threading.Barrier(3, timeout=DEADLINE), list[int]()
    pool.run(lambda _: waited.append(together.wait()), runs(6))  # a barrier that breaks raises
    pool.close()
    assert sorted(waited) == [0, 0, 1, 1, 2, 2]


def test_work_happens_in_threads_that_carry_our_name(workers: Workers) -> None:
    names: set[str] = set()
    workers.run(lambda _: names.add(threading.current_thread().name), runs(8))
    assert names
    assert all(name.startswith("raskrank") for name in names)


def test_a_single_run_of_the_only_call_is_in_its_own_thread_and_beside_another_in_a_worker() -> None:
    pool, names = Workers(2), list[str]()
    held, free = threading.Event(), threading.Event()

    def note(_: Run) -> None:
        names.append(threading.current_thread().name)

    def hold(_: Run) -> None:
        held.set()
        assert free.wait(DEADLINE)

    pool.run(note, runs(1))
    other = threading.Thread(target=lambda: pool.run(hold, runs(1)), name="other")
    other.start()
    assert held.wait(DEADLINE)
    pool.run(note, runs(1))
    free.set()
    other.join()
    pool.close()
    assert names[0] == threading.current_thread().name
    assert names[1].startswith("raskrank")


def test_the_first_error_stops_the_rest_and_the_pool_stays_usable() -> None:
    pool, started = Workers(1), list[int]()

    def work(run: Run) -> None:
        started.extend(run.indices)
        if run.indices == (3,):
            raise InferenceError("run 3")

    with pytest.raises(InferenceError, match="run 3"):
        pool.run(work, runs(10))
    assert started == [0, 1, 2, 3]
    again: list[int] = []
    pool.run(lambda run: again.extend(run.indices), runs(10))
    assert again == list(range(10))
    pool.close()


def test_nothing_of_a_call_runs_on_after_its_error() -> None:
    pool, both = Workers(2), threading.Barrier(2, timeout=DEADLINE)
    started, finished = list[int](), list[int]()

    def work(run: Run) -> None:
        started.extend(run.indices)
        both.wait()
        if run.indices == (0,):
            raise ValueError("run 0")
        time.sleep(0.2)  # the error is on its way while this run is still at work
        finished.extend(run.indices)

    with pytest.raises(ValueError, match="run 0"):
        pool.run(work, runs(50))
    assert (sorted(started), finished) == ([0, 1], [1])
    pool.close()


def test_an_error_stops_threads_that_the_caller_does_not_wait_for_yet() -> None:
    pool, both = Workers(2), threading.Barrier(2, timeout=DEADLINE)
    started: list[int] = []

    def work(run: Run) -> None:
        started.extend(run.indices)
        if run.indices[0] < 2:
            both.wait()
            if threading.current_thread().name.endswith("_1"):
                raise ValueError("second thread")
        time.sleep(0.001)

    with pytest.raises(ValueError, match="second thread"):
        pool.run(work, runs(3000))
    assert len(started) < 1000
    pool.close()


def test_an_interrupt_in_a_worker_reaches_the_caller() -> None:
    pool = Workers(2)

    def work(run: Run) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pool.run(work, runs(4))
    pool.close()


def test_callers_share_a_pool_without_mixing(workers: Workers) -> None:
    results: dict[int, list[int]] = {caller: [] for caller in range(4)}

    def call(caller: int) -> None:
        for _ in range(20):
            workers.run(lambda run: results[caller].extend(run.indices), runs(10))

    callers = [threading.Thread(target=call, args=(caller,), daemon=True) for caller in results]
    for thread in callers:
        thread.start()
    for thread in callers:
        thread.join(DEADLINE)
    assert all(sorted(result) == sorted(20 * list(range(10))) for result in results.values())


def test_an_error_of_one_caller_leaves_another_alone() -> None:
    pool, failed = Workers(2), threading.Event()
    done: list[int] = []

    def patient(run: Run) -> None:
        assert failed.wait(DEADLINE)
        done.extend(run.indices)

    other = threading.Thread(target=pool.run, args=(patient, runs(1)), daemon=True)
    other.start()

    def failing(run: Run) -> None:
        raise ValueError

    with pytest.raises(ValueError):  # noqa: PT011  raised above, without a message
        pool.run(failing, runs(3))
    failed.set()
    other.join(DEADLINE)
    assert done == [0]
    pool.close()


def test_close_waits_for_calls_and_a_later_call_says_so() -> None:
    pool, begun, done = Workers(1), threading.Event(), list[int]()

    def slow(run: Run) -> None:
        begun.set()
        time.sleep(0.02)
        done.extend(run.indices)

    caller = threading.Thread(target=pool.run, args=(slow, runs(10)), daemon=True)
    caller.start()
    assert begun.wait(DEADLINE)
    pool.close()
    caller.join(DEADLINE)
    assert done == list(range(10))
    with pytest.raises(ClosedError, match="closed"):
        pool.run(slow, runs(1))
    pool.close()


def test_a_call_that_waits_for_a_thread_is_not_dropped_by_close() -> None:
    pool, begun, release = Workers(1), threading.Event(), threading.Event()
    done: list[str] = []

    def first(run: Run) -> None:
        begun.set()
        assert release.wait(DEADLINE)
        done.append("first")

    callers = [threading.Thread(target=pool.run, args=(first, runs(2)), daemon=True)]  # a single run would need no thread
    callers[0].start()
    assert begun.wait(DEADLINE)
    callers.append(threading.Thread(target=pool.run, args=(lambda _: done.append("second"), runs(1)), daemon=True))
    callers[1].start()
    while pool._line.waiting == 0:  # until the second call waits behind the first
        time.sleep(0.001)
    callers.append(threading.Thread(target=pool.close, daemon=True))
    callers[2].start()
    release.set()
    for thread in callers:
        thread.join(DEADLINE)
    assert sorted(done) == ["first", "first", "second"]


class Sums:
    """A backend whose logit is the sum of a pair's ids and types."""

    name = "sums"
    hidden_size = 1000
    groups = True
    min_share = 25_000_000

    def __init__(self, concurrency: int) -> None:
        self.concurrency = concurrency
        self.threads: list[int] = []
        self.shapes: list[tuple[int, ...]] = []

    def logits(self, input_ids: Int64Array, token_type_ids: Int64Array, *, threads: int = 1) -> Float32Array:
        assert input_ids.dtype == token_type_ids.dtype == np.int64
        assert input_ids.shape == token_type_ids.shape
        self.shapes.append(input_ids.shape)
        self.threads.append(threads)
        result: Float32Array = (input_ids + token_type_ids).sum(axis=1).astype(np.float32)
        return result

    def expect(self, helpers: int) -> None:
        pass

    def close(self) -> None:
        pass


@pytest.mark.parametrize("threads", [1, 3])
def test_each_logit_lands_at_its_pair(threads: int) -> None:
    generator = np.random.default_rng(1)
    lengths = generator.integers(1, 30, 200).tolist()
    encoded = [EncodedPair(generator.integers(0, 99, n), generator.integers(0, 2, n), False) for n in lengths]
    backend, pool, advanced = Sums(threads), Workers(threads), list[int]()
    logits = run_pairs(backend, pool, encoded, advanced.append)
    pool.close()
    assert logits.dtype == np.float32
    assert logits.tolist() == [float((pair.input_ids + pair.token_type_ids).sum()) for pair in encoded]
    assert sum(advanced) == 200
    assert sorted(shape[1] for shape in backend.shapes for _ in range(shape[0])) == sorted(lengths)
    if threads == 1:
        order = plan(lengths, cores=threads, hidden_size=backend.hidden_size, groups=True, min_share=backend.min_share)
        assert [shape[1] for shape in backend.shapes] == [run.length for run in order]


def test_no_pairs_need_no_backend() -> None:
    backend, pool = Sums(2), Workers(2)
    logits = run_pairs(backend, pool, [])
    pool.close()
    assert logits.dtype == np.float32
    assert logits.shape == (0,)
    assert backend.shapes == []


def test_a_single_pair_is_spread_over_idle_cores() -> None:
    backend, pool = Sums(2), Workers(2)
    for length, count in ((100, 1), (1, 1), (100, 2)):
        pair = EncodedPair(np.ones(length, np.int64), np.zeros(length, np.int64), False)
        assert run_pairs(backend, pool, count * [pair]).tolist() == count * [length]
    pool.close()
    assert backend.threads == [2, 1, 1, 1]
