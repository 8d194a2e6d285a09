"""Several calls on one Reranker share its workers fairly. Shown by counting runs, whose backend waits where the test says."""

import math
import threading
from collections.abc import Callable, Iterator

import pytest

from backends import BOTH, note_runs
from raskrank import Reranker
from raskrank.planning import GROUP_TOKENS

pytestmark = BOTH
DEADLINE = 30.0  # seconds until a test that waits for another thread fails

SMALL = ["Python og SQL, i flere år, med skyen som arbeidsplass"] * 10
LARGE = ["by"] * 1000
LONGEST_OF_LARGE = 12  # tokens, with the query; those of SMALL have more


def numbered(documents: list[str]) -> list[str]:
    """So that none is there twice."""
    return [f"{number:04} {document}" for number, document in enumerate(documents)]


class Gate:
    """Notes the shapes of runs, in order; the first one waits until `opened`."""

    def __init__(self) -> None:
        self.runs: list[tuple[int, ...]] = []
        self.begun, self.opened = threading.Event(), threading.Event()
        self._first = threading.Lock()

    def __call__(self, shape: tuple[int, ...]) -> None:
        self.runs.append(shape)
        if self._first.acquire(blocking=False):
            self.begun.set()
            assert self.opened.wait(DEADLINE)


@pytest.fixture
def single() -> Iterator[Reranker]:
    with Reranker.load(threads=1) as reranker:
        yield reranker


def in_thread(function: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=function, daemon=True)
    thread.start()
    return thread


def wait_for(condition: Callable[[], bool]) -> None:
    waited = threading.Event()
    for _ in range(int(DEADLINE * 1000)):
        if condition():
            return
        waited.wait(0.001)
    raise AssertionError("it did not come to that")


def test_ten_documents_beside_a_thousand_wait_for_as_many_tokens_of_the_others_as_they_have(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gate = Gate()
    with Reranker.load(threads=1) as reranker:
        note_runs(monkeypatch, gate)
        threads = [in_thread(lambda: reranker.score("q", numbered(LARGE)))]
        assert gate.begun.wait(DEADLINE)
        threads.append(in_thread(lambda: reranker.score("q", numbered(SMALL))))
        wait_for(lambda: reranker._workers._line.waiting == 1)
        gate.opened.set()
        for thread in threads:
            thread.join(DEADLINE)
    small = [place for place, (_, length) in enumerate(gate.runs) if length > LONGEST_OF_LARGE]
    pairs = sum(gate.runs[place][0] for place in small)
    own = sum(math.prod(gate.runs[place]) for place in small)
    beside = sum(math.prod(shape) for place, shape in enumerate(gate.runs[: small[-1]]) if place not in small)
    assert (pairs, sum(pairs for pairs, _ in gate.runs)) == (10, 1010)
    assert beside <= own + 2 * GROUP_TOKENS, "its own share, the run that was under way, and a turn"


def test_results_are_the_same_whatever_runs_beside(single: Reranker) -> None:
    alone = {query: single.score(query, numbered(SMALL)).tobytes() for query in ("a", "b", "c")}
    large, found = in_thread(lambda: single.score("q", numbered(LARGE))), dict[str, bytes]()
    threads = [
        in_thread(lambda query=query: found.update({query: single.score(query, numbered(SMALL)).tobytes()}))  # type: ignore[misc]
        for query in alone
    ]
    for thread in [*threads, large]:
        thread.join(DEADLINE)
        assert not thread.is_alive()
    assert found == alone


def test_an_error_of_one_call_leaves_the_other_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    gate, failed = Gate(), list[str]()

    def fail(shape: tuple[int, ...]) -> None:
        gate(shape)
        if shape[1] > LONGEST_OF_LARGE:
            raise RuntimeError("of the small call")

    with Reranker.load(threads=1) as reranker:
        expected = reranker.score("q", LARGE[:1])
        note_runs(monkeypatch, fail)
        found: list[bytes] = []
        large = in_thread(lambda: found.append(reranker.score("q", numbered(LARGE)).tobytes()))

        def small() -> None:
            with pytest.raises(RuntimeError, match="of the small call"):
                reranker.score("q", numbered(SMALL))
            failed.append("small")

        assert gate.begun.wait(DEADLINE)
        other = in_thread(small)
        wait_for(lambda: reranker._workers._line.waiting == 1)
        gate.opened.set()
        for thread in (large, other):
            thread.join(DEADLINE)
    assert failed == ["small"]
    assert len(found[0]) == 1000 * len(expected.tobytes())
