"""Promise 1: a pair's score depends on the pair alone, bit for bit, whatever runs beside it, before it or how."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from backends import BOTH
from builders import ENGLISH, NORWEGIAN, PAIRS, SENTENCES, Family
from conftest import Tiny
from raskrank import Reranker, onnx_backend, planning
from raskrank.native_backend import NativeBackend
from raskrank.onnx_backend import OnnxBackend
from raskrank.options import BackendName

pytestmark = BOTH

# Short and long, of equal and of odd lengths, empty, truncated, and outliers that would widen a shared int8 range.
POOL: tuple[tuple[str, str], ...] = (
    *PAIRS,
    ("", ""),
    ("", "a"),
    ("a", ""),
    (NORWEGIAN[0], NORWEGIAN[0]),
    (NORWEGIAN[0], " ".join(SENTENCES)),
    (" ".join(ENGLISH), NORWEGIAN[1]),
    (" ".join(NORWEGIAN), " ".join(ENGLISH)),
    ("🙂", "漢字 👩‍👩‍👧‍👦 \u0301"),
    ("%%%%", "()()()()" * 20),
    *((NORWEGIAN[2], "x" * length) for length in (1, 2, 3, 30, 90)),
    *(
        (NORWEGIAN[4], " ".join(["Oslo"] * count))
        for count in (1, 2, 7, 15, 16, 17, 31, 32, 33, 63, 64, 65, 110, 127, 128, 129)
    ),
)
# One set of words in many orders: as many tokens in each, so that they share runs, with outliers and empty texts between.
CROWD: tuple[tuple[str, str], ...] = tuple(
    (NORWEGIAN[2], " ".join(words[shift:] + words[:shift]))
    for words in (["Oslo", "%"], ["Når", "går", "den", "siste", "bussen"], " ".join(NORWEGIAN[3:6]).split())
    for shift in range(len(words))
)
THREADS = (1, 2, 3, 4)
BUNDLES = (*(f"{family} int8" for family in get_args(Family)), "bert fp32", "xlm-roberta fp32", "modernbert fp32", "nano")
WORD = st.sampled_from(sorted({word for sentence in SENTENCES for word in sentence.split()}))
TEXT = st.lists(WORD, max_size=40).map(" ".join) | st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
PAIR = st.sampled_from(POOL) | st.tuples(TEXT, TEXT)
CASES = settings(
    deadline=None, database=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


@st.composite
def crowds(draw: st.DrawFn) -> list[tuple[str, str]]:
    """Up to 64 pairs of one length among others: few words shuffled."""
    query, words, random = draw(TEXT), draw(st.lists(WORD, min_size=1, max_size=12)), draw(st.randoms(use_true_random=False))
    equal = [(query, " ".join(random.sample(words, len(words)))) for _ in range(draw(st.integers(2, 64)))]
    pairs = equal + draw(st.lists(PAIR, max_size=4))
    random.shuffle(pairs)
    return pairs


class Loads:
    """One bundle, loaded with each number of threads and once more; and the scores of pairs that were alone."""

    def __init__(self, bundle: Path | None, stack: ExitStack) -> None:
        self.rerankers = [stack.enter_context(Reranker.load(bundle, threads=threads)) for threads in (*THREADS, 2)]
        self._alone: dict[tuple[str, str], bytes] = {}

    def alone(self, pair: tuple[str, str]) -> bytes:
        if pair not in self._alone:
            self._alone[pair] = self.rerankers[0].score_pairs([pair]).tobytes()
        return self._alone[pair]

    def expected(self, pairs: list[tuple[str, str]]) -> bytes:
        return b"".join(map(self.alone, pairs))

    def __repr__(self) -> str:
        return self.rerankers[0].info().name


@pytest.fixture(scope="module", params=BUNDLES)
def loads(request: pytest.FixtureRequest, tiny: Tiny, bundle_backend: BackendName) -> Iterator[Loads]:
    family, _, precision = request.param.partition(" ")
    with ExitStack() as stack:
        yield Loads(tiny.bundle(family, precision) if precision else None, stack)


@pytest.fixture(params=["spread as planned", "spread whenever cores are idle"])
def spread(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tiny models are too small to be spread over cores by themselves."""
    if request.param != "spread as planned":
        monkeypatch.setattr(OnnxBackend, "min_share", 1)
        monkeypatch.setattr(NativeBackend, "min_share", 1)
        monkeypatch.setattr(onnx_backend, "SPREAD_ALONE", 0)


@settings(CASES, max_examples=25)
@given(pairs=st.lists(PAIR, max_size=12), which=st.integers(0, len(THREADS)))
def test_in_any_company_order_and_number_of_threads(
    loads: Loads, spread: None, pairs: list[tuple[str, str]], which: int
) -> None:
    assert loads.rerankers[which].score_pairs(pairs).tobytes() == loads.expected(pairs)


@settings(CASES, max_examples=15)
@given(pairs=crowds(), which=st.integers(0, len(THREADS)))
def test_in_a_crowd_of_equal_length(loads: Loads, pairs: list[tuple[str, str]], which: int) -> None:
    assert loads.rerankers[which].score_pairs(pairs).tobytes() == loads.expected(pairs)


def test_alone_with_any_number_of_threads_and_in_any_load(loads: Loads, spread: None) -> None:
    for pair in POOL[::2]:
        scores = {reranker.score_pairs([pair]).tobytes() for reranker in loads.rerankers}
        assert scores == {loads.alone(pair)}


def test_all_together_forwards_and_backwards(loads: Loads) -> None:
    pairs = [*POOL, *CROWD]
    assert loads.rerankers[3].score_pairs(pairs).tobytes() == loads.expected(pairs)
    assert loads.rerankers[4].score_pairs(pairs[::-1]).tobytes() == loads.expected(pairs[::-1])
    assert loads.rerankers[1].score_pairs(pairs[::2] + pairs).tobytes() == loads.expected(pairs[::2] + pairs)


def test_the_scores_of_a_ranking_are_those_of_the_pairs(loads: Loads) -> None:
    documents = [document for _, document in POOL + CROWD][::2]
    for query in (NORWEGIAN[0], "", " ".join(ENGLISH)):
        found = {hit.index: np.float32(hit.score).tobytes() for hit in loads.rerankers[-1].rank(query, documents)}
        assert b"".join(found[index] for index in range(len(documents))) == loads.rerankers[0].score(query, documents).tobytes()


@settings(CASES, max_examples=10)
@given(data=st.data())
def test_what_ran_before_leaves_no_trace(loads: Loads, data: st.DataObject) -> None:
    reranker = loads.rerankers[1]
    for _ in range(4):
        pair = data.draw(PAIR)
        assert reranker.score_pairs([pair]).tobytes() == loads.alone(pair)


def test_the_pool_has_scores_to_tell_apart(loads: Loads) -> None:
    # Were all scores equal, every test here would pass.
    assert len({loads.alone(pair) for pair in POOL}) > len(POOL) / 2


def test_the_crowd_shares_runs(loads: Loads) -> None:
    # Were there none, no test here would see a group.
    reranker = loads.rerankers[1]
    if not reranker._loaded.backend.groups:
        pytest.skip("onnxruntime's product in groups depends on the number of rows: each pair has a run of its own")
    lengths = [len(pair.input_ids) for pair in reranker._loaded.encoder.encode(CROWD)]
    runs = planning.plan(lengths, cores=2, hidden_size=32, groups=reranker._loaded.backend.groups, min_share=1)
    assert sum(len(run.indices) for run in runs if len(run.indices) > 1) > len(CROWD) / 2
