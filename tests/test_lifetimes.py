"""Rerankers that are copied, pickled, closed, and shared by threads."""

import gc
import pickle
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from backends import BOTH
from builders import NORWEGIAN
from callers import DOCUMENTS, QUERY
from conftest import Tiny
from raskrank import ClosedError, Reranker
from raskrank.native_backend import NativeBackend
from raskrank.onnx_backend import OnnxBackend
from raskrank.scoring import CHUNK_PAIRS

pytestmark = BOTH
DEADLINE = 30.0  # seconds until a test that waits for another thread fails


def test_pickling_loads_the_same_again(tiny: Tiny) -> None:
    with Reranker.load(tiny.bundle("bert", "int8"), threads=2) as reranker:
        with pickle.loads(pickle.dumps(reranker)) as again:
            assert again is not reranker
            assert again.score(QUERY, DOCUMENTS).tobytes() == reranker.score(QUERY, DOCUMENTS).tobytes()
            assert again.info() == reranker.info()
        assert len(reranker.score(QUERY, DOCUMENTS)) == len(DOCUMENTS)


def test_a_pickle_is_small_and_holds_no_texts(nano: Reranker) -> None:
    nano.score("hemmelig spørring", ["hemmelig dokument"])
    data = pickle.dumps(nano)
    assert len(data) < 2000
    assert b"hemmelig" not in data


@pytest.mark.parametrize("used", [False, True])
def test_use_after_close(tiny: Tiny, used: bool) -> None:
    reranker = Reranker.load(tiny.bundle("bert", "int8"), threads=2)
    if used:
        reranker.score(QUERY, DOCUMENTS)
    reranker.close()
    reranker.close()
    calls: list[Callable[[], object]] = [
        lambda: reranker.rank(QUERY, DOCUMENTS),
        lambda: reranker.rank(QUERY, []),
        lambda: reranker.score(QUERY, DOCUMENTS),
        lambda: reranker.score(QUERY, []),
        lambda: reranker.score_pairs([(QUERY, "a")]),
        lambda: reranker.verify(),
        lambda: reranker.verify([(QUERY, "a")]),
    ]
    for call in calls:
        with pytest.raises(ClosedError, match="closed; load it again"):
            call()
    assert reranker.info().name == "checkpoint-bert"


def test_a_context_manager_closes_on_errors_too(tiny: Tiny) -> None:
    with Reranker.load(tiny.bundle("bert", "int8")) as left:
        left.score(QUERY, ["a"])
    with pytest.raises(KeyError), Reranker.load(tiny.bundle("bert", "int8")) as reranker:
        raise KeyError
    for closed in (left, reranker):
        with pytest.raises(ClosedError, match="closed"):
            closed.score(QUERY, ["a"])


def test_close_ends_the_threads(tiny: Tiny) -> None:
    before = threading.active_count()
    reranker = Reranker.load(tiny.bundle("bert", "int8"), threads=4)
    reranker.score(QUERY, DOCUMENTS)
    assert before < threading.active_count() <= before + 4
    reranker.close()
    assert threading.active_count() == before


@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux's /proc")
def test_one_that_is_dropped_ends_its_threads_too(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(OnnxBackend, "min_share", 1)
    monkeypatch.setattr(NativeBackend, "min_share", 1)

    def native_threads() -> int:
        return len(list(Path("/proc/self/task").iterdir()))

    def use_and_drop() -> None:
        reranker = Reranker.load(tiny.bundle("bert", "int8"), threads=3)
        for documents in (DOCUMENTS, DOCUMENTS[:1], DOCUMENTS[:1]):  # the last two spread over threads
            reranker.score(QUERY, documents)

    use_and_drop()
    gc.collect()
    before = native_threads()
    for _ in range(5):
        use_and_drop()
    gc.collect()
    deadline = time.monotonic() + DEADLINE
    while native_threads() > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert native_threads() <= before


@pytest.mark.parametrize("workers", [1, 2])
def test_close_lets_calls_of_other_threads_end(tiny: Tiny, runs: list[tuple[int, ...]], workers: int) -> None:
    reranker = Reranker.load(tiny.bundle("bert", "int8"), threads=workers)
    documents = [f"{number} {document}" for number in range(2 * CHUNK_PAIRS // len(DOCUMENTS)) for document in DOCUMENTS]
    expected = reranker.score(QUERY, documents)
    results: list[bytes] = []
    refused: list[str] = []

    def call() -> None:
        try:
            results.append(reranker.score(QUERY, documents).tobytes())
        except ClosedError as error:  # one that had not begun
            refused.append(str(error))

    runs.clear()
    callers = [threading.Thread(target=call, daemon=True) for _ in range(3)]
    for caller in callers:
        caller.start()
    deadline = time.monotonic() + DEADLINE
    while not runs and time.monotonic() < deadline:
        time.sleep(0.001)
    closers = [threading.Thread(target=reranker.close, daemon=True) for _ in range(2)]
    for thread in closers:
        thread.start()
    for thread in [*closers, *callers]:
        thread.join(DEADLINE)
        assert not thread.is_alive()
    assert len(results) + len(refused) == 3
    assert results
    assert set(results) == {expected.tobytes()}
    assert set(refused) <= {"this Reranker is closed; load it again"}


def test_threads_share_a_reranker(tiny: Tiny) -> None:
    queries = [QUERY, *NORWEGIAN[:7]]
    with Reranker.load(tiny.bundle("xlm-roberta", "int8"), threads=2) as reranker:
        serial = {query: (reranker.score(query, DOCUMENTS).tobytes(), reranker.rank(query, DOCUMENTS)) for query in queries}
        wrong: list[str] = []
        finished: list[str] = []

        def call(query: str) -> None:
            for _ in range(12):
                if (reranker.score(query, DOCUMENTS).tobytes(), reranker.rank(query, DOCUMENTS)) != serial[query]:
                    wrong.append(query)
            finished.append(query)

        threads = [threading.Thread(target=call, args=(query,), daemon=True) for query in queries]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(DEADLINE)
    assert sorted(finished) == sorted(queries)
    assert wrong == []


def test_two_rerankers_do_not_meet(tiny: Tiny, nano: Reranker) -> None:
    alone = nano.score(QUERY, DOCUMENTS).tobytes()
    with Reranker.load(tiny.bundle("bert", "int8")) as other:
        assert other.score(QUERY, DOCUMENTS).tobytes() != alone
        assert nano.score(QUERY, DOCUMENTS).tobytes() == alone
    assert nano.score(QUERY, DOCUMENTS).tobytes() == alone
