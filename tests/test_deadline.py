"""A deadline: what is scored by then, in which order, and how late an answer may be.

But for the last section the time is a number that only the fake machine moves on, so that nothing depends on how busy the real
one is.
"""

import math
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pytest

from backends import BOTH, note_runs
from callers import DOCUMENTS, QUERY
from conftest import BROKEN
from raskrank import InputError, NonFiniteScore, Ranked, Ranking, Reranker
from raskrank.encoding import PairEncoder
from raskrank.process.until import Until
from raskrank.running import FIRST_TOKENS
from raskrank.scoring import DEADLINE_CHARS

pytestmark = BOTH
TOKEN = 0.001  # seconds that the fake machine takes for a token of a run
FOREVER = 1e6
WAIT = 30.0  # seconds until a test that waits for another thread fails
TEXTS = [f"{number} {document}" for number, document in enumerate(DOCUMENTS * 5)]


class Machine:
    """A clock, and a model whose runs take `token` seconds for each token."""

    def __init__(self) -> None:
        self.now, self.token, self.encode = 1000.0, TOKEN, 0.0
        self.runs: list[tuple[int, int]] = []  # pairs, tokens of each
        self.spikes: list[float] = []  # of the next runs, by how much they are slower

    def run(self, shape: tuple[int, ...]) -> None:
        pairs, length = shape
        self.runs.append((pairs, length))
        self.now += self.cost(shape) * (self.spikes.pop(0) if self.spikes else 1)

    def cost(self, shape: tuple[int, ...]) -> float:
        return math.prod(shape) * self.token


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    machine = Machine()
    monkeypatch.setattr(Until, "clock", staticmethod(lambda: machine.now))
    note_runs(monkeypatch, machine.run)
    real = PairEncoder.encode_windows

    def encode_windows(self: PairEncoder, pairs: Sequence[tuple[str, str]], windows: Any) -> Any:
        machine.now += machine.encode * sum(len(document) for _, document in pairs)
        return real(self, pairs, windows)

    monkeypatch.setattr(PairEncoder, "encode_windows", encode_windows)
    return machine


@pytest.fixture
def single(machine: Machine) -> Iterator[Reranker]:
    """With one worker, so that runs follow one another."""
    with Reranker.load(threads=1) as reranker:
        machine.runs.clear()
        yield reranker


def scored(ranking: Ranking) -> list[int]:
    return sorted(hit.index for hit in ranking if not math.isnan(hit.score))


def took(machine: Machine, function: Callable[[], Ranking]) -> tuple[Ranking, float]:
    begin = machine.now
    return function(), machine.now - begin


# What is answered


def test_with_time_enough_it_is_the_whole_ranking(single: Reranker) -> None:
    expected = single.rank(QUERY, TEXTS)
    found = single.rank(QUERY, TEXTS, deadline=FOREVER)
    assert found == expected
    assert not found.partial
    assert found.tokens == expected.tokens


def test_scored_are_the_first_of_the_callers_and_the_rest_follows_without_a_score(single: Reranker, machine: Machine) -> None:
    full = {hit.index: hit for hit in single.rank(QUERY, TEXTS)}
    found, seconds = took(machine, lambda: single.rank(QUERY, TEXTS, deadline=1.0))
    assert found.partial
    assert seconds <= 1.0
    done = scored(found)
    assert 5 < len(done) < len(TEXTS)
    assert found[: len(done)] == sorted((full[index] for index in done), key=lambda hit: (-hit.score, hit.index))
    rest = [index for index in range(len(TEXTS)) if index not in done]
    assert [hit.index for hit in found[len(done) :]] == rest
    assert all(math.isnan(score) and not truncated and span is None for _, score, truncated, span in found[len(done) :])


def test_documents_are_taken_in_the_callers_order(single: Reranker, machine: Machine) -> None:
    single.rank(QUERY, TEXTS[:1])
    lengths = [single.rank(QUERY, [text]).tokens for text in TEXTS]
    machine.runs.clear()
    found = single.rank(QUERY, TEXTS, deadline=1.0)
    taken = [length for pairs, length in machine.runs for _ in range(pairs)]
    assert taken[0] == lengths[0]
    assert sorted(taken) == sorted(lengths[index] for index in scored(found))
    first_missing = min(set(range(len(TEXTS))) - set(scored(found)))
    later = [index for index in scored(found) if index > first_missing]
    earlier = {lengths[index] for index in range(first_missing)}
    assert all(lengths[index] in earlier for index in later), "such as share a run with an earlier one"


def test_nothing_is_scored_after_the_deadline(single: Reranker, machine: Machine) -> None:
    single.rank(QUERY, TEXTS[:1])
    machine.runs.clear()
    found, seconds = took(machine, lambda: single.rank(QUERY, TEXTS, deadline=1e-9))
    assert (machine.runs, seconds) == ([], 0)
    assert found.partial
    assert found.tokens == 0
    assert [hit.index for hit in found] == list(range(len(TEXTS)))
    assert scored(found) == []


def test_no_documents_are_no_partial_answer(single: Reranker) -> None:
    found = single.rank(QUERY, [], deadline=1e-9)
    assert found == []
    assert not found.partial


def test_top_k_counts_all_and_a_threshold_leaves_out_what_is_not_scored(single: Reranker) -> None:
    found = single.rank(QUERY, TEXTS, deadline=1.0)
    done = scored(found)
    assert single.rank(QUERY, TEXTS, len(done) + 2, deadline=1.0)[: len(done)] == found[: len(done)]
    above = single.rank(QUERY, TEXTS, score_threshold=0.0, deadline=1.0)
    assert above.partial
    assert sorted(hit.index for hit in above) == scored(single.rank(QUERY, TEXTS, deadline=1.0))


def test_raw_scores_and_duplicates(single: Reranker) -> None:
    raw = {hit.index: hit.score for hit in single.rank(QUERY, TEXTS, raw_scores=True)}
    found = single.rank(QUERY, [*TEXTS, TEXTS[0]], raw_scores=True, deadline=1.0)
    assert len(TEXTS) in scored(found)
    assert all(hit.score == raw[hit.index % len(TEXTS)] for hit in found if hit.index in scored(found))


def test_a_document_counts_as_scored_when_all_its_windows_are(single: Reranker, machine: Machine) -> None:
    long = " ".join(DOCUMENTS * 20)
    whole = single.rank(QUERY, ["by", long], long_documents="windows")
    windows = single.rank(QUERY, [long], long_documents="windows").tokens // 512 + 1
    assert windows > 3
    machine.runs.clear()
    found = single.rank(QUERY, ["by", long], long_documents="windows", deadline=3 * 512 * TOKEN)
    assert 1 <= len([length for _, length in machine.runs if length > 400]) < windows
    assert scored(found) == [0]
    assert found[0] == next(hit for hit in whole if hit.index == 0)
    assert found[1][2:] == (False, None)
    assert single.rank(QUERY, ["by", long], long_documents="windows", deadline=FOREVER) == whole


def test_a_score_that_is_no_number_is_an_error_all_the_same(broken: Any, machine: Machine) -> None:
    with Reranker.load(broken, threads=1) as reranker:
        with pytest.raises(NonFiniteScore):
            reranker.rank(QUERY, [BROKEN, *TEXTS], deadline=1.0)
        found = reranker.rank(QUERY, [*TEXTS, BROKEN], deadline=0.5)
        assert found.partial
        assert len(TEXTS) not in scored(found)


@pytest.mark.parametrize("deadline", [0, -1.0, float("nan"), "1", True, [1.0]])
def test_a_deadline_is_a_number_of_seconds(single: Reranker, machine: Machine, deadline: Any) -> None:
    machine.runs.clear()
    with pytest.raises(InputError, match=r"^deadline: expected "):
        single.rank(QUERY, TEXTS, deadline=deadline)
    assert machine.runs == []


@pytest.mark.parametrize("deadline", [1, np.float32(1.0), np.int64(1), math.inf])
def test_numbers_of_all_kinds_are_deadlines(single: Reranker, deadline: Any) -> None:
    assert scored(single.rank(QUERY, TEXTS[:2], deadline=deadline)) == [0, 1]


# What is begun


def test_no_run_begins_that_is_not_expected_to_end_in_time(single: Reranker, machine: Machine) -> None:
    single.rank(QUERY, TEXTS)  # learn
    for deadline in (0.05, 0.3, 1.0, 2.5):
        machine.runs.clear()
        found, seconds = took(machine, lambda: single.rank(QUERY, TEXTS, deadline=deadline))  # noqa: B023
        assert found.partial
        assert seconds <= deadline
        assert seconds > deadline - 600 * TOKEN, "and it goes on as long as a run of the longest pair fits"


def test_a_machine_that_becomes_slower_makes_an_answer_late_by_one_run_at_most(single: Reranker, machine: Machine) -> None:
    single.rank(QUERY, TEXTS)
    machine.token = 20 * TOKEN
    longest = 512 * machine.token
    for deadline in (0.5, 3.0, 30.0):
        _, seconds = took(machine, lambda: single.rank(QUERY, TEXTS, deadline=deadline))  # noqa: B023
        assert seconds <= deadline + longest


def test_a_first_call_makes_a_small_run_to_know_its_pace(single: Reranker, machine: Machine) -> None:
    assert not single._workers.pace.known
    long = " ".join(DOCUMENTS)
    found, seconds = took(machine, lambda: single.rank(QUERY, [long, *TEXTS], deadline=0.4))
    assert machine.runs[0] == (1, FIRST_TOKENS)
    assert len(machine.runs) == 1, "the first document has too many tokens for the time"
    assert seconds <= 0.4
    assert scored(found) == []
    machine.runs.clear()
    single.rank(QUERY, TEXTS, deadline=1.0)
    assert (1, FIRST_TOKENS) not in machine.runs[:1], "and no second time"


def test_calls_without_a_deadline_are_learned_from(single: Reranker, machine: Machine) -> None:
    single.score(QUERY, TEXTS[:3])
    machine.runs.clear()
    single.rank(QUERY, TEXTS[:1], deadline=1.0)
    assert len(machine.runs) == 1


def test_one_run_that_took_for_ever_is_forgotten(single: Reranker, machine: Machine) -> None:
    single.rank(QUERY, TEXTS)
    usual = len(scored(single.rank(QUERY, TEXTS, deadline=1.0)))
    machine.spikes = [10_000.0]
    single.score(QUERY, TEXTS[:1])
    counts = [len(scored(single.rank(QUERY, TEXTS, deadline=1.0))) for _ in range(20)]
    assert counts[0] == 0
    assert counts[-1] >= 0.9 * usual


def test_tokenizing_ends_with_the_deadline(single: Reranker, machine: Machine) -> None:
    single.rank(QUERY, TEXTS[:1])
    machine.encode = 1e-5
    texts = [f"{number} " + "ord " * 500 for number in range(200)]  # 2,000 characters each
    _, seconds = took(machine, lambda: single.rank(QUERY, texts, deadline=1.0))
    assert seconds <= 1.0 + DEADLINE_CHARS * machine.encode, "what was begun"
    machine.encode = 1.0
    machine.runs.clear()
    found, seconds = took(machine, lambda: single.rank(QUERY, texts, deadline=1.0))
    assert scored(found) == []
    assert seconds <= DEADLINE_CHARS
    assert machine.runs == []


# Beside others


def test_a_call_that_gets_no_worker_answers_at_its_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    begun, opened = threading.Event(), threading.Event()

    def wait(_: tuple[int, ...]) -> None:
        begun.set()
        assert opened.wait(WAIT)

    with Reranker.load(threads=1) as reranker:
        note_runs(monkeypatch, wait)
        other = threading.Thread(target=lambda: reranker.score("q", ["annen", "en lengre tekst"]), daemon=True)
        other.start()
        assert begun.wait(WAIT)
        found = reranker.rank(QUERY, TEXTS, deadline=0.05)
        assert not opened.is_set(), "the other call is still at it"
        assert scored(found) == []
        assert found.partial
        opened.set()
        other.join(WAIT)
        assert scored(reranker.rank(QUERY, TEXTS[:1], deadline=WAIT)) == [0]


def test_nothing_of_a_call_runs_on_after_its_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    inside, made = set[int](), list[int]()

    def note(shape: tuple[int, ...]) -> None:
        inside.add(threading.get_ident())
        time.sleep(0.01)
        made.append(shape[0])
        inside.discard(threading.get_ident())

    with Reranker.load(threads=3) as reranker:
        note_runs(monkeypatch, note)
        for _ in range(5):
            reranker.rank(QUERY, TEXTS, deadline=0.1)
            assert inside == set()
            before = len(made)
            time.sleep(0.02)
            assert len(made) == before > 0


HOG = "import time\nend = time.monotonic() + 60\nwhile time.monotonic() < end: pass"
FEW, MANY, DEADLINE = 100, 3000, 0.3


def test_a_busy_machine_is_not_late_by_much() -> None:
    texts = [f"{number} " + " ".join(DOCUMENTS) for number in range(MANY)]
    few, late = list[float](), list[float]()
    with Reranker.load() as reranker:
        hogs = [subprocess.Popen([sys.executable, "-c", HOG]) for _ in range(4)]
        try:
            for _ in range(3):
                begin = time.monotonic()
                reranker.rank(QUERY, texts[:FEW])
                between = time.monotonic()
                found = reranker.rank(QUERY, texts, deadline=DEADLINE)
                late.append(time.monotonic() - between - DEADLINE)
                few.append(between - begin)
                assert found.partial
        finally:
            for hog in hogs:
                hog.kill()
                hog.wait()
    assert sorted(late)[1] < MANY / FEW / 2 * sorted(few)[1], (late, few)  # half of what all of them take here
    assert found[0] != Ranked(0, math.nan, truncated=False)
