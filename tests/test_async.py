"""`arank` and `ascore`: the results of `rank` and `score`, a loop that is never blocked, and nothing that runs on.

Backends wait where the test says, so that no test depends on how fast a machine is.
"""

import asyncio
import contextvars
import gc
import math
import os
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest

from backends import BOTH, note_runs
from callers import DOCUMENTS, QUERY
from conftest import BROKEN
from measured import linux
from processes import run_script
from raskrank import ClosedError, InferenceError, InputError, LimitError, Limits, NonFiniteScore, Ranking, Reranker
from raskrank.process import threads
from raskrank.process.callers import MAX_CALLERS, Callers
from raskrank.process.until import Until

pytestmark = BOTH
WAIT = 30.0  # seconds until a test that waits fails


class Gate:
    """Runs wait at it until it is opened. runs: that have come to it."""

    def __init__(self) -> None:
        self.runs = 0
        self.begun, self.opened = threading.Event(), threading.Event()

    def __call__(self, _: tuple[int, ...]) -> None:
        self.runs += 1
        self.begun.set()
        assert self.opened.wait(WAIT)

    async def come(self) -> None:
        """Until a run has come."""
        async with asyncio.timeout(WAIT):
            while not self.begun.is_set():
                await asyncio.sleep(0.001)


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch, single: Reranker) -> Iterator[Gate]:
    gate = Gate()
    note_runs(monkeypatch, gate)
    yield gate
    gate.opened.set()


@pytest.fixture
def single(bundle_backend: object) -> Iterator[Reranker]:
    with Reranker.load(threads=1) as reranker:
        yield reranker


def run(coroutine: Coroutine[Any, Any, Any]) -> Any:
    async def bounded() -> Any:
        async with asyncio.timeout(WAIT):
            return await coroutine

    return asyncio.run(bounded())


def ours() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("raskrank")]


# Results


@pytest.mark.parametrize(
    "options",
    [{}, {"top_k": 3}, {"raw_scores": True}, {"score_threshold": 0.5}, {"long_documents": "windows"}, {"deadline": WAIT}],
    ids=str,
)
def test_arank_is_rank(nano: Reranker, options: dict[str, Any]) -> None:
    found = run(nano.arank(QUERY, DOCUMENTS, **options))
    assert isinstance(found, Ranking)
    assert found == nano.rank(QUERY, DOCUMENTS, **options)
    assert not found.partial


@pytest.mark.parametrize("options", [{}, {"raw_scores": True}, {"long_documents": "windows"}], ids=str)
def test_ascore_is_score(nano: Reranker, options: dict[str, Any]) -> None:
    found = run(nano.ascore(QUERY, DOCUMENTS, **options))
    assert found.tobytes() == nano.score(QUERY, DOCUMENTS, **options).tobytes()


@pytest.mark.parametrize("make", [tuple, lambda items: dict.fromkeys(items).keys()], ids=["tuple", "keys"])
def test_collections_of_all_kinds(nano: Reranker, make: Callable[[list[str]], Any]) -> None:
    assert run(nano.arank(QUERY, make(DOCUMENTS))) == nano.rank(QUERY, DOCUMENTS)
    assert run(nano.arank(QUERY, [])) == []


def test_a_list_may_be_changed_at_once(nano: Reranker) -> None:
    async def change() -> Ranking:
        documents = list(DOCUMENTS)
        task = asyncio.create_task(nano.arank(QUERY, documents))
        await asyncio.sleep(0)
        documents[:] = ["noe annet"]
        return await task

    assert run(change()) == nano.rank(QUERY, DOCUMENTS)


def test_a_thousand_calls_at_once_take_few_threads(nano: Reranker) -> None:
    most = 0

    async def call(number: int) -> float:
        nonlocal most
        (score,) = await nano.ascore(QUERY, [f"dokument {number}"])
        most = max(most, sum("caller" in thread.name for thread in ours()))
        return float(score)

    async def call_all() -> list[float]:
        return await asyncio.gather(*(call(number) for number in range(1000)))

    assert run(call_all()) == nano.score(QUERY, [f"dokument {number}" for number in range(1000)]).tolist()
    assert 1 <= most <= MAX_CALLERS


def test_loops_of_two_threads_share_a_reranker(nano: Reranker) -> None:
    expected, found = nano.rank(QUERY, DOCUMENTS), list[Ranking]()

    async def call() -> None:
        found.extend(await asyncio.gather(*(nano.arank(QUERY, DOCUMENTS) for _ in range(10))))

    threads = [threading.Thread(target=run, args=(call(),), daemon=True) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT)
    assert found == [expected] * 20


# Errors


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ((None, DOCUMENTS), "query: expected str"),
        ((QUERY, "en tekst"), "documents: expected a sequence such as a list, got str"),
        ((QUERY, [None]), "document 0: expected str"),
        ((QUERY, DOCUMENTS, 0), "top_k: expected an int of at least 1"),
    ],
)
def test_wrong_arguments(nano: Reranker, arguments: tuple[Any, ...], error: str) -> None:
    with pytest.raises(InputError, match=f"^{error}"):
        run(nano.arank(*arguments))


@pytest.mark.parametrize("option", ["raw_scores", "score_threshold", "long_documents", "deadline"])
def test_wrong_options(nano: Reranker, option: str) -> None:
    with pytest.raises(InputError, match=f"^{option}: expected "):
        run(nano.arank(QUERY, DOCUMENTS, **{option: object()}))  # type: ignore[arg-type]


def test_limits_hold() -> None:
    with Reranker.load(limits=Limits(max_documents=2)) as reranker, pytest.raises(LimitError, match="3 items"):
        run(reranker.arank(QUERY, ["a", "b", "c"]))


def test_errors_of_the_model_reach_whoever_awaits(broken: Path) -> None:
    with Reranker.load(broken) as reranker:
        with pytest.raises(NonFiniteScore) as caught:
            run(reranker.ascore(QUERY, ["Python", BROKEN]))
        assert caught.value.indices == (1,)
        assert len(run(reranker.ascore(QUERY, ["Python"]))) == 1


def test_outside_of_a_loop_it_is_an_error_of_pythons_own(nano: Reranker) -> None:
    coroutine = nano.arank(QUERY, DOCUMENTS)
    with pytest.raises(RuntimeError, match="no running event loop"):
        coroutine.send(None)


# The loop goes on


def test_the_loop_ticks_while_a_call_is_under_way(single: Reranker, gate: Gate) -> None:
    """The run ends after the loop has ticked so often; were it blocked, it never would."""
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        await gate.come()
        while ticks < 50:
            await asyncio.sleep(0)
            ticks += 1
        gate.opened.set()

    async def both() -> Ranking:
        found, _ = await asyncio.gather(single.arank(QUERY, DOCUMENTS), tick())
        return found

    assert len(run(both())) == len(DOCUMENTS)
    assert ticks == 50


def test_calls_of_one_loop_are_in_progress_together(single: Reranker, gate: Gate) -> None:
    """A small call comes to its end while a large one of the same loop is not half done."""
    done: list[str] = []

    async def call(name: str, documents: list[str]) -> None:
        await single.arank(name, documents)
        done.append(name)

    async def both() -> int:
        large = asyncio.create_task(call("large", [f"dokument {number}" for number in range(2000)]))
        await gate.come()
        small = asyncio.create_task(call("small", DOCUMENTS[:5]))
        while single._workers._line.waiting == 0:
            await asyncio.sleep(0.001)
        gate.opened.set()
        await small
        runs = gate.runs
        await large
        return runs

    assert run(both()) < gate.runs / 2
    assert done == ["small", "large"]


def test_context_variables_are_those_of_the_task() -> None:
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable")
    pool = Callers()

    async def call(value: str) -> str:
        variable.set(value)
        return await pool.call(lambda: variable.get() + variable.set("changed").var.get(), Until())

    async def both() -> list[str]:
        return list(await asyncio.gather(call("a"), call("b")))

    assert run(both()) == ["achanged", "bchanged"]
    pool.close()


# Cancelling


def test_a_cancelled_call_ends_at_once_and_begins_no_further_run(single: Reranker, gate: Gate) -> None:
    async def cancel() -> None:
        task = asyncio.create_task(single.arank(QUERY, [f"dokument {number}" for number in range(1000)]))
        await gate.come()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not gate.opened.is_set(), "its run is still under way"

    run(cancel())
    gate.opened.set()
    single.close()  # waits for what is under way
    assert gate.runs == 1


def test_a_call_that_is_cancelled_while_it_tokenizes_makes_no_run(
    single: Reranker, monkeypatch: pytest.MonkeyPatch, runs: list[tuple[int, ...]]
) -> None:
    begun, opened, real = threading.Event(), threading.Event(), single._loaded.encoder.encode_windows

    def encode(*arguments: Any) -> Any:
        begun.set()
        assert opened.wait(WAIT)
        return real(*arguments)

    monkeypatch.setattr(single._loaded.encoder, "encode_windows", encode)

    async def cancel() -> None:
        task = asyncio.create_task(single.arank(QUERY, DOCUMENTS))
        while not begun.is_set():
            await asyncio.sleep(0.001)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    runs.clear()
    run(cancel())
    opened.set()
    single.close()
    assert runs == []


def test_the_reranker_works_after_a_cancelled_call(single: Reranker, gate: Gate) -> None:
    async def cancel_and_go_on() -> Ranking:
        task = asyncio.create_task(single.arank(QUERY, [f"dokument {number}" for number in range(1000)]))
        await gate.come()
        task.cancel()
        gate.opened.set()
        return await single.arank(QUERY, DOCUMENTS)

    assert run(cancel_and_go_on()) == single.rank(QUERY, DOCUMENTS)


def test_timeouts_and_groups(single: Reranker, gate: Gate) -> None:
    async def time_out() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await single.arank(QUERY, DOCUMENTS)

    async def fail_beside() -> None:
        async def fail() -> None:
            await gate.come()
            raise KeyError

        async with asyncio.TaskGroup() as group:
            group.create_task(single.arank(QUERY, DOCUMENTS))
            group.create_task(fail())

    run(time_out())
    with pytest.raises(ExceptionGroup) as caught:
        run(fail_beside())
    assert [type(error) for error in caught.value.exceptions] == [KeyError]
    gate.opened.set()
    assert len(run(single.arank(QUERY, DOCUMENTS))) == len(DOCUMENTS)


def test_a_call_that_is_cancelled_while_it_waits_for_its_turn_costs_nothing(single: Reranker, gate: Gate) -> None:
    async def cancel() -> None:
        tasks = [asyncio.create_task(single.arank(QUERY, [f"nr {number}"])) for number in range(MAX_CALLERS)]
        await gate.come()
        waiting = [asyncio.create_task(single.arank(QUERY, [f"til {number}"])) for number in range(500)]
        await asyncio.sleep(0)
        for task in waiting:
            task.cancel()
        ends = await asyncio.gather(*waiting, return_exceptions=True)
        assert {type(end) for end in ends} == {asyncio.CancelledError}
        gate.opened.set()
        await asyncio.gather(*tasks)

    run(cancel())
    single.close()
    assert gate.runs == MAX_CALLERS


# Deadlines


def test_a_deadline_counts_while_a_call_waits_for_its_turn(single: Reranker, gate: Gate) -> None:
    async def call() -> Ranking:
        tasks = [asyncio.create_task(single.arank(QUERY, [f"nr {number}"])) for number in range(MAX_CALLERS)]
        await gate.come()
        found = await single.arank(QUERY, DOCUMENTS, deadline=0.02)
        assert not any(task.done() for task in tasks)
        gate.opened.set()
        await asyncio.gather(*tasks)
        return found

    found = run(call())
    assert found.partial
    assert [hit.index for hit in found] == list(range(len(DOCUMENTS)))
    assert all(math.isnan(hit.score) for hit in found)


# Closing


def test_close_waits_for_calls_and_leaves_no_thread(gate: Gate, single: Reranker) -> None:
    others = ours()

    async def close() -> list[Any]:
        tasks = [asyncio.create_task(single.arank(f"{number}", DOCUMENTS)) for number in range(MAX_CALLERS + 5)]
        await gate.come()
        threading.Timer(0.05, gate.opened.set).start()
        single.close()  # in the loop's own thread
        return await asyncio.gather(*tasks, return_exceptions=True)

    ends = run(close())
    done = [end for end in ends if isinstance(end, Ranking)]
    refused = [str(end) for end in ends if isinstance(end, ClosedError)]
    assert len(done) + len(refused) == len(ends)
    assert done
    assert len(refused) >= 5, "those that had no thread yet"
    assert set(refused) == {"this Reranker is closed; load it again"}
    assert [thread for thread in ours() if thread not in others] == []
    with pytest.raises(ClosedError, match="closed; load it again"):
        run(single.arank(QUERY, DOCUMENTS))


def test_close_of_one_that_was_never_used_and_use_after_it() -> None:
    reranker = Reranker.load()
    reranker.close()
    reranker.close()
    with pytest.raises(ClosedError):
        run(reranker.ascore(QUERY, []))


def test_a_loop_that_ends_before_its_answer_is_no_error(single: Reranker, gate: Gate) -> None:
    async def leave() -> None:
        asyncio.get_running_loop().create_task(single.arank(QUERY, DOCUMENTS))
        await gate.come()

    run(leave())  # asyncio.run cancels what is left
    gate.opened.set()
    assert len(single.rank(QUERY, DOCUMENTS)) == len(DOCUMENTS)


@linux
def test_one_that_is_dropped_ends_its_threads_too() -> None:
    def use_and_drop() -> None:
        reranker = Reranker.load()
        run(reranker.arank(QUERY, DOCUMENTS))

    before = len(ours())
    use_and_drop()
    gc.collect()
    end = time.monotonic() + WAIT
    while len(ours()) > before and time.monotonic() < end:
        time.sleep(0.001)
    assert len(ours()) <= before


def test_a_call_without_any_thread_is_refused(single: Reranker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "start", lambda *_, **__: [])
    with pytest.raises(InferenceError, match="no thread could be started for a call"):
        run(single.arank(QUERY, DOCUMENTS))
    monkeypatch.undo()
    assert len(run(single.arank(QUERY, DOCUMENTS))) == len(DOCUMENTS)


# Each in a process of its own


def test_a_process_ends_while_calls_are_in_flight(tmp_path: Path) -> None:
    source = """
import asyncio
from raskrank import Reranker

reranker = Reranker.load()

async def leave():
    tasks = [asyncio.create_task(reranker.arank("by", [f"{n} en by" for n in range(2000)])) for _ in range(50)]
    await asyncio.sleep(0.2)
    print("left")

asyncio.run(leave())
"""
    assert run_script(tmp_path, source, deadline=60).stdout == "left\n"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
def test_after_a_fork_it_says_so(tmp_path: Path) -> None:
    source = """
import asyncio, os
from raskrank import ForkError, Reranker

reranker = Reranker.load()
asyncio.run(reranker.arank("by", ["en by"]))
child = os.fork()
if child == 0:
    try:
        asyncio.run(reranker.arank("by", ["en by"]))
    except ForkError as error:
        print(error, flush=True)
    os._exit(0)
os.waitpid(child, 0)
"""
    assert "load it in the child process" in run_script(tmp_path, source, deadline=60).stdout


def test_asyncio_is_not_imported_for_nothing(tmp_path: Path) -> None:
    source = """
import sys
from raskrank import Reranker

Reranker.load().rank("by", ["en by"])
print("asyncio" in sys.modules)
"""
    assert run_script(tmp_path, source, deadline=60).stdout == "False\n"
