"""Long documents ranked in windows: each window is scored as any pair is, bit for bit, and the best is a document's score."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from backends import BOTH
from builders import ENGLISH, NORWEGIAN, SENTENCES
from conftest import BROKEN, Tiny
from raskrank import InputError, NonFiniteScore, Ranked, Ranking, RaskrankWarning, Reranker, Windows, scoring
from raskrank.options import BackendName

pytestmark = BOTH

QUERY = "Hvem kan lære bort Python?"
ANSWER = "Kari har skrevet Python i ti år og lærer gjerne bort det hun kan."
OTHER = "Torsken gyter langs kysten om våren, og fisket er viktig for bygdene. Været skifter ofte på disse kanter. "
FEW = Windows(max_windows=6, overlap=10)
CASES = settings(
    deadline=None,
    database=None,
    max_examples=20,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


def long(*, before: int, after: int) -> str:
    """A document with the answer among other sentences, 30 tokens each about."""
    return OTHER * before + ANSWER + " " + OTHER * after


LONG = (
    long(before=0, after=60),
    long(before=25, after=25),
    long(before=60, after=1),
    " ".join(SENTENCES * 3),
    "Ærlig talt 👩‍👩‍👧‍👦 på øya! " * 150,
    "\n\n".join(NORWEGIAN[::-1] * 4),
)
SHORT = ("", ANSWER, "Bil", NORWEGIAN[7])


class Bits:
    """A model, and what it gives for the ids of each window alone: the definition of what its documents score."""

    def __init__(self, reranker: Reranker) -> None:
        self.reranker = reranker
        self._known: dict[bytes, float] = {}

    def logit(self, window: Any) -> float:
        key = window.input_ids.tobytes() + window.token_type_ids.tobytes()
        if key not in self._known:
            (logit,) = self.reranker._loaded.backend.logits(window.input_ids[None], window.token_type_ids[None])
            self._known[key] = float(logit)
        return self._known[key]

    def expected(self, query: str, document: str, windows: Windows) -> tuple[float, bool, tuple[int, int] | None]:
        (found,) = self.reranker._loaded.encoder.encode_windows([(query, document)], windows)
        logits = [self.logit(window) for window in found]
        best = found[logits.index(max(logits))]
        return max(logits), best.truncated, best.span


@pytest.fixture(scope="module", params=["bert int8", "xlm-roberta int8", "roberta fp32", "nano"])
def bits(request: pytest.FixtureRequest, tiny: Tiny, bundle_backend: BackendName | None) -> Iterator[Bits]:
    family, _, precision = request.param.partition(" ")
    with Reranker.load(tiny.bundle(family, precision) if precision else None, threads=2) as reranker:
        yield Bits(reranker)


@settings(CASES)
@given(
    query=st.sampled_from([QUERY, "", " ".join(ENGLISH)]),
    documents=st.lists(st.sampled_from([*LONG, *SHORT]), max_size=6),
    most=st.integers(1, 8),
    overlap=st.integers(0, 100),
)
def test_each_document_scores_as_its_best_window_alone(
    bits: Bits, query: str, documents: list[str], most: int, overlap: int
) -> None:
    windows = Windows(max_windows=most, overlap=overlap)
    expected = [bits.expected(query, document, windows) for document in documents]
    found = bits.reranker.assess([(query, document) for document in documents], raw_scores=True, long_documents=windows)
    assert [hit[1:] for hit in found] == expected
    assert [hit.index for hit in found] == list(range(len(documents)))
    scores = bits.reranker.score(query, documents, raw_scores=True, long_documents=windows)
    assert scores.tolist() == [logit for logit, _, _ in expected]


def test_the_bits_are_those_of_any_company_and_any_number_of_threads(bits: Bits) -> None:
    pairs = [(query, document) for query in (QUERY, NORWEGIAN[3]) for document in (*LONG, *SHORT)]
    alone = [bits.reranker.assess([pair], long_documents=FEW)[0][1:] for pair in pairs]
    bundle = bits.reranker.info().bundle
    with ExitStack() as stack:
        for threads in (1, 3):
            other = stack.enter_context(Reranker.load(Path(str(bundle)), threads=threads))
            assert [hit[1:] for hit in other.assess(pairs, long_documents=FEW)] == alone
            assert [hit[1:] for hit in other.assess(pairs[::-1], long_documents=FEW)] == alone[::-1]


def test_the_text_of_a_span_scores_the_same_as_a_document(nano: Reranker) -> None:
    for document in LONG:
        (hit,) = nano.rank(QUERY, [document], long_documents=FEW)
        assert hit.span is not None
        (alone,) = nano.rank(QUERY, [document[slice(*hit.span)]])
        assert alone.score == hit.score
        assert not alone.truncated


def test_a_document_that_fits_scores_the_same_bits(bits: Bits) -> None:
    for document in SHORT:
        (hit,), (alone,) = (bits.reranker.rank(QUERY, [document], long_documents=how) for how in ("windows", "truncate"))
        assert hit.score == alone.score
        assert (hit.span, alone.span) == ((0, len(document)), None)


def test_an_answer_is_found_wherever_it_stands(nano: Reranker) -> None:
    for document in LONG[:3]:
        (hit,) = nano.rank(QUERY, [document], long_documents="windows")
        start, end = hit.span or (0, 0)
        assert ANSWER in document[start:end]
        assert hit.score > 0.9
        assert not hit.truncated
    (cut,) = nano.rank(QUERY, [LONG[2]])
    assert cut.truncated
    assert cut.score < 0.5


def test_every_method_says_the_same(bits: Bits) -> None:
    documents = [*LONG, *SHORT]
    pairs = [(QUERY, document) for document in documents]
    scores = bits.reranker.score(QUERY, documents, long_documents=FEW)
    assert bits.reranker.score_pairs(pairs, long_documents=FEW).tobytes() == scores.tobytes()
    assessed = bits.reranker.assess(pairs, long_documents=FEW)
    assert type(assessed) is Ranking
    assert [hit.score for hit in assessed] == scores.tolist()
    hits = bits.reranker.rank(QUERY, documents, long_documents=FEW)
    assert sorted(hits) == assessed
    assert bits.reranker.rank(QUERY, documents, 3, long_documents=FEW) == hits[:3]
    without = bits.reranker.assess(pairs)
    assert [hit.score for hit in without] == bits.reranker.score(QUERY, documents).tolist()
    assert {hit.span for hit in without} == {None}


def test_windows_are_counted_as_what_the_model_read(nano: Reranker, runs: list[tuple[int, ...]]) -> None:
    ranking = nano.rank(QUERY, LONG, long_documents=Windows(max_windows=3))
    assert ranking.tokens == sum(rows * length for rows, length in runs)
    assert max(length for _, length in runs) <= 512
    assert sum(rows for rows, _ in runs) == 3 * len(LONG) - sum(
        3 - len(found)
        for found in nano._loaded.encoder.encode_windows([(QUERY, text) for text in LONG], Windows(max_windows=3))
    )
    assert {hit.truncated for hit in ranking} == {True, False}
    assert ranking.tokenize_seconds > 0 < ranking.score_seconds
    assert not ranking.partial


def test_progress_counts_documents_and_not_windows(nano: Reranker) -> None:
    done: list[int] = []
    with nano.progress(done.append):
        nano.rank(QUERY, [*LONG, *SHORT, LONG[0], SHORT[1]], long_documents="windows")
    assert sum(done) == len(LONG) + len(SHORT) + 2
    assert min(done) > 0


@pytest.mark.parametrize("method", ["rank", "score", "score_pairs", "assess"])
def test_an_unknown_way_with_long_documents_is_refused(nano: Reranker, runs: list[tuple[int, ...]], method: str) -> None:
    arguments = [[(QUERY, "a")]] if method in ("score_pairs", "assess") else [QUERY, ["a"]]
    with pytest.raises(InputError, match="long_documents: expected"):
        getattr(nano, method)(*arguments, long_documents="chunks")
    assert runs == []


def test_a_window_that_is_no_number_is_an_error_of_its_document(broken: Path) -> None:
    with Reranker.load(broken) as reranker:
        documents = ["Python", OTHER * 4 + BROKEN, OTHER * 4]
        assert np.isfinite(reranker.score(QUERY, documents)).all()  # it is behind the cut
        with pytest.raises(NonFiniteScore) as caught:
            reranker.rank(QUERY, [*documents, documents[1]], long_documents="windows")
        assert caught.value.indices == (1, 3)
        assert str(caught.value) == "2 of 4 scores are NaN or infinite, at 1, 3"


def test_pytorch_rescues_a_document_with_its_windows(tiny: Tiny, broken: Path) -> None:
    documents = ["Python", OTHER * 4 + BROKEN, OTHER * 4]
    with Reranker.load(broken, fallback="torch") as reranker, Reranker.load(tiny.bundle("bert", "fp32")) as sound:
        with pytest.warns(RaskrankWarning, match="1 of 3 logits were not finite"):
            found = reranker.assess([(QUERY, document) for document in documents], long_documents=FEW)
        expected = sound.assess([(QUERY, document) for document in documents], long_documents=FEW)
        assert reranker.info().rescued_pairs == 1
    assert [hit.span for hit in found] == [hit.span for hit in expected]
    assert [hit.score for hit in found] == pytest.approx([hit.score for hit in expected], abs=1e-4)


@given(lengths=st.lists(st.integers(0, 20_000), max_size=300), most=st.integers(1, 600))
def test_a_chunk_has_a_bounded_number_of_windows(lengths: list[int], most: int) -> None:
    pairs, request = [("q", "x" * length) for length in lengths], scoring.Request(windows=Windows(max_windows=most))
    chunks = list(scoring._chunks(pairs, request, 512))
    assert [pair for chunk in chunks for pair in chunk] == pairs
    for chunk in chunks:
        windows = sum(min(most, 1 + len(document) // 512) for _, document in chunk)
        assert windows <= scoring.CHUNK_PAIRS or len(chunk) == 1


# Thresholds, ties and equal pairs, with windows or without.


@settings(CASES)
@given(
    threshold=st.sampled_from([-1, 0, 0.0, 0.5, 1, 2.0]) | st.floats(0, 1) | st.integers(0, 11),
    top_k=st.none() | st.integers(1, 12),
    raw=st.booleans(),
    how=st.sampled_from(["truncate", FEW]),
)
def test_a_threshold_leaves_out_what_scores_less(
    nano: Reranker, threshold: Any, top_k: int | None, raw: bool, how: Any
) -> None:
    documents = [*SHORT, *LONG, SHORT[2]]
    everything = nano.rank(QUERY, documents, raw_scores=raw, long_documents=how)
    if type(threshold) is int and threshold > 1:
        threshold = everything[threshold - 1].score  # exactly that of a hit, which is kept
    expected = [hit for hit in everything if hit.score >= threshold][:top_k]
    assert nano.rank(QUERY, documents, top_k, raw_scores=raw, score_threshold=threshold, long_documents=how) == expected


def test_a_threshold_may_be_any_number_but_nan(nano: Reranker, runs: list[tuple[int, ...]]) -> None:
    for bad, got in (
        (float("nan"), "NaN"),
        ("0.5", "str"),
        (True, "bool"),
        ([0.5], "list"),
        (np.array([0.5]), "ndarray"),
        (10**400, "int"),
    ):
        with pytest.raises(InputError, match=f"^score_threshold: expected a number, got {got}$"):
            nano.rank(QUERY, SHORT, score_threshold=bad)  # type: ignore[arg-type]
    assert runs == []
    whole = nano.rank(QUERY, SHORT)
    assert nano.rank(QUERY, SHORT, score_threshold=float("-inf")) == whole
    assert nano.rank(QUERY, SHORT, score_threshold=float("inf")) == []
    least: Any = np.float32(whole[1].score)
    assert nano.rank(QUERY, SHORT, score_threshold=least) == whole[:2]
    assert nano.rank(QUERY, [], score_threshold=0.5) == []


def test_equal_pairs_are_scored_once_and_counted_each(nano: Reranker, runs: list[tuple[int, ...]]) -> None:
    documents = [f"Dokument {number % 40}" for number in range(2 * scoring.CHUNK_PAIRS)]
    done: list[int] = []
    with nano.progress(done.append):
        ranking = nano.rank("nummer", documents)
    assert sum(rows for rows, _ in runs) == 40
    assert sum(done) == len(documents)
    assert ranking.tokens == sum(rows * length for rows, length in runs)
    runs.clear()
    few = nano.score("nummer", documents[:40])
    assert nano.score("nummer", documents).tobytes() == np.tile(few, len(documents) // 40 + 1)[: len(documents)].tobytes()
    assert [hit.index for hit in ranking] == sorted(range(len(documents)), key=lambda index: (-few[index % 40], index))
    # The same document for another query is another pair.
    runs.clear()
    nano.score_pairs([("a", "Bil"), ("b", "Bil"), ("a", "Bil"), ("Bil", "a"), ["a", "Bil"]])  # type: ignore[list-item]
    assert sum(rows for rows, _ in runs) == 3


def test_equal_pairs_far_apart_are_scored_once(
    nano: Reranker, runs: list[tuple[int, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scoring, "CHUNK_PAIRS", 8)
    documents = [f"Dokument {number}" for number in range(50)]
    nano.score("nummer", [*documents, *documents[::-1], *documents])
    assert sum(rows for rows, _ in runs) == 50


def test_a_broken_pair_is_named_wherever_it_stands(broken: Path) -> None:
    with Reranker.load(broken) as reranker, pytest.raises(NonFiniteScore) as caught:
        reranker.score(QUERY, ["Python", BROKEN, "Python", "SQL", BROKEN])
    assert caught.value.indices == (1, 4)


def test_a_hit_of_windows_is_made_of_plain_values(nano: Reranker) -> None:
    (hit,) = nano.rank(QUERY, [LONG[0]], long_documents="windows")
    assert type(hit) is Ranked
    assert [type(value) for value in hit] == [int, float, bool, tuple]
    assert hit.span is not None
    assert [type(value) for value in hit.span] == [int, int]
