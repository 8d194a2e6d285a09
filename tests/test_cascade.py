"""A small model prunes for a strong one: what is in the answer, in which order, and what a deadline leaves of it."""

import asyncio
import math
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from backends import BOTH, note_runs
from callers import DOCUMENTS, QUERY
from conftest import Tiny
from raskrank import Cascade, ClosedError, InputError, Ranking, Reranker
from raskrank.backend import Float32Array, Int64Array
from raskrank.process.until import Until

pytestmark = BOTH
FOREVER = 1e6


@pytest.fixture(scope="module")
def strong(tiny: Tiny, bundle_backend: object) -> Iterator[Reranker]:
    with Reranker.load(tiny.bundle("bert", "int8"), threads=1) as reranker:
        yield reranker


@pytest.fixture(scope="module")
def small(bundle_backend: object) -> Iterator[Reranker]:
    with Reranker.load(threads=1) as reranker:
        yield reranker


def by_hand(small: Reranker, strong: Reranker, keep: int, **options: Any) -> list[tuple[int, float]]:
    """What a user would write without Cascade."""
    kept = [hit.index for hit in small.rank(QUERY, DOCUMENTS, keep)]
    hits = strong.rank(QUERY, [DOCUMENTS[index] for index in kept], **options)
    return [(kept[hit.index], hit.score) for hit in hits]


def pairs(ranking: Ranking) -> list[tuple[int, float]]:
    return [(hit.index, hit.score) for hit in ranking]


# What is in the answer


@pytest.mark.parametrize("options", [{}, {"raw_scores": True}, {"top_k": 2}, {"score_threshold": 0.5}], ids=str)
@pytest.mark.parametrize("keep", [1, 5])
def test_it_is_what_one_would_do_by_hand(small: Reranker, strong: Reranker, keep: int, options: dict[str, Any]) -> None:
    cascade = Cascade([small, strong], keep=[keep])
    expected = by_hand(small, strong, keep, **options)
    found = cascade.rank(QUERY, DOCUMENTS, **options)
    assert pairs(found) == expected
    assert isinstance(found, Ranking)
    assert not found.partial
    assert pairs(asyncio.run(cascade.arank(QUERY, DOCUMENTS, **options))) == expected


def test_one_that_would_pass_on_all_is_passed_over(small: Reranker, strong: Reranker) -> None:
    for keep in (len(DOCUMENTS), 1000):
        found = Cascade([small, strong], keep=[keep]).rank(QUERY, DOCUMENTS)
        assert found == strong.rank(QUERY, DOCUMENTS)
        assert found.tokens == strong.rank(QUERY, DOCUMENTS).tokens


def test_one_alone_and_three_in_a_row(small: Reranker, strong: Reranker) -> None:
    assert Cascade([strong], keep=[]).rank(QUERY, DOCUMENTS) == strong.rank(QUERY, DOCUMENTS)
    found = Cascade([small, strong, small], keep=[10, 4]).rank(QUERY, DOCUMENTS)
    middle = [index for index, _ in by_hand(small, strong, 10)][:4]
    assert sorted(hit.index for hit in found) == sorted(middle)
    scores = small.score(QUERY, [DOCUMENTS[hit.index] for hit in found])
    assert [hit.score for hit in found] == scores.tolist()


def test_equal_logits_stay_in_the_order_of_the_one_before(small: Reranker, strong: Reranker) -> None:
    """Documents that the strong model cannot tell apart: their first 64 tokens are the same, which is all that it reads."""
    long = "en by ved sjøen " * 60
    documents = ["kort", *(f"{long} {ending}" for ending in ("Python", "Sykepleier", "by"))]
    found = Cascade([small, strong], keep=[3]).rank(QUERY, documents)
    logits = {hit.index: hit.score for hit in found}
    before = [hit.index for hit in small.rank(QUERY, documents, 3)]
    assert len({logits[index] for index in before}) < 3
    assert [hit.index for hit in found] == sorted(before, key=lambda index: (-logits[index], before.index(index)))


def test_truncation_and_windows_are_those_of_the_last(small: Reranker, strong: Reranker) -> None:
    documents = [" ".join(DOCUMENTS), *DOCUMENTS[:3]]
    found = Cascade([small, strong], keep=[3]).rank("Python", documents, long_documents="windows")
    expected = {hit.index: hit for hit in strong.rank("Python", documents, long_documents="windows")}
    assert all(hit == expected[hit.index] for hit in found)
    assert {hit.span for hit in found} != {None}


def test_what_it_took_is_the_sum(small: Reranker, strong: Reranker) -> None:
    found = Cascade([small, strong], keep=[3]).rank(QUERY, DOCUMENTS)
    first = small.rank(QUERY, DOCUMENTS, 3)
    assert found.tokens == first.tokens + strong.rank(QUERY, [DOCUMENTS[hit.index] for hit in first]).tokens
    assert found.score_seconds > 0


def test_no_documents(small: Reranker, strong: Reranker) -> None:
    assert Cascade([small, strong], keep=[3]).rank(QUERY, []) == []


# A deadline


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock that only runs move on, by a millisecond for each token. Its only item is the time."""
    time = [0.0]
    monkeypatch.setattr(Until, "clock", staticmethod(lambda: time[0]))

    def run(shape: tuple[int, ...]) -> None:
        time[0] += 0.001 * math.prod(shape)

    note_runs(monkeypatch, run)
    return time


@pytest.fixture
def loaded(tiny: Tiny, now: list[float], monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Reranker, Reranker]]:
    """Of which the second takes a hundred times as long for a token."""
    with Reranker.load(threads=1) as small, Reranker.load(tiny.bundle("bert", "int8"), threads=1) as strong:
        backend = strong._loaded.backend
        real = backend.logits

        def slow(input_ids: Int64Array, *arguments: Any, **options: Any) -> Float32Array:
            now[0] += 0.099 * input_ids.size
            return real(input_ids, *arguments, **options)

        monkeypatch.setattr(backend, "logits", slow)
        small.score(QUERY, DOCUMENTS)
        strong.score(QUERY, DOCUMENTS)
        yield small, strong


def test_with_time_enough_a_deadline_changes_nothing(now: list[float], loaded: tuple[Reranker, Reranker]) -> None:
    cascade = Cascade(loaded, keep=[5])
    assert cascade.rank(QUERY, DOCUMENTS, deadline=FOREVER) == cascade.rank(QUERY, DOCUMENTS)


def test_what_the_last_one_has_not_scored_follows_in_the_order_of_the_one_before(
    now: list[float], loaded: tuple[Reranker, Reranker]
) -> None:
    small, strong = loaded
    begin = now[0]
    expected = [hit.index for hit in small.rank(QUERY, DOCUMENTS, 8)]
    first, begin = now[0] - begin, now[0]
    full = dict(pairs(strong.rank(QUERY, [DOCUMENTS[index] for index in expected])))
    deadline, begin = first + (now[0] - begin) / 2, now[0]
    found = Cascade(loaded, keep=[8]).rank(QUERY, DOCUMENTS, deadline=deadline)
    assert now[0] - begin <= deadline
    scored = [hit.index for hit in found if not math.isnan(hit.score)]
    assert found.partial
    assert 0 < len(scored) < 8
    assert sorted(scored) == sorted(expected[: len(scored)])
    assert [hit.index for hit in found[len(scored) :]] == expected[len(scored) :]
    assert all(hit.score == full[expected.index(hit.index)] for hit in found[: len(scored)])


def test_the_first_one_has_half_of_the_time_at_most(now: list[float], loaded: tuple[Reranker, Reranker]) -> None:
    documents = [f"{number} {document}" for number, document in enumerate(DOCUMENTS * 100)]
    begin = now[0]
    found = Cascade(loaded, keep=[8]).rank(QUERY, documents, deadline=60.0)
    assert now[0] - begin <= 60.0
    assert found.partial, "the first one has not scored all"
    assert len(found) == 8
    assert sum(not math.isnan(hit.score) for hit in found) >= 3, "the last one had the other half"


def test_with_no_time_the_first_of_the_caller_come_through(now: list[float], loaded: tuple[Reranker, Reranker]) -> None:
    begin = now[0]
    for found in (
        Cascade(loaded, keep=[8]).rank(QUERY, DOCUMENTS, deadline=1e-9),
        asyncio.run(Cascade(loaded, keep=[8]).arank(QUERY, DOCUMENTS, deadline=1e-9)),
    ):
        assert [hit.index for hit in found] == list(range(8))
        assert all(math.isnan(hit.score) for hit in found)
        assert found.partial
    assert now[0] == begin


# Wrong use, and its end


@pytest.mark.parametrize(
    ("models", "keep", "message"),
    [
        (lambda _: [], [], "rerankers: expected a list of at least one Reranker, got none"),
        (lambda one: one, [], "rerankers: expected a list of at least one Reranker, got Reranker"),
        (lambda _: 7, [3], "rerankers: expected a list of at least one Reranker, got int"),
        (lambda one: [one, None], [3], "rerankers[1]: expected a Reranker, got NoneType"),
        (lambda one: [one] * 2, [], "keep: expected 1 numbers, one for each Reranker but the last, got 0"),
        (lambda one: [one] * 2, [3, 2], "keep: expected 1 numbers, one for each Reranker but the last, got 2"),
        (lambda one: [one] * 2, 3, "keep: expected a list of numbers, such as [30], got int"),
        (lambda one: [one] * 2, [0], "keep[0]: expected an int of at least 1, got 0"),
        (lambda one: [one] * 2, ["3"], "keep[0]: expected an int of at least 1, got str"),
        (lambda one: [one] * 3, [3, 4], "keep[1]: expected at most 3, as many as the one before passes on"),
    ],
)
def test_wrong_models_and_numbers(small: Reranker, models: Callable[[Reranker], Any], keep: Any, message: str) -> None:
    with pytest.raises(InputError) as caught:
        Cascade(models(small), keep)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((None, DOCUMENTS), {}, "query: expected str, got NoneType"),
        ((QUERY, "tekst"), {}, "documents: expected a sequence such as a list, got str"),
        ((QUERY, [*DOCUMENTS, 7]), {}, f"document {len(DOCUMENTS)}: expected str, got int"),
        ((QUERY, DOCUMENTS, 0), {}, "top_k: expected an int of at least 1, got 0"),
        ((QUERY, DOCUMENTS), {"deadline": 0}, "deadline: expected seconds above 0, got 0"),
        ((QUERY, DOCUMENTS), {"raw_scores": 1}, "raw_scores: expected True or False, got int"),
        ((QUERY, DOCUMENTS), {"long_documents": "cut"}, "long_documents: expected 'truncate'"),
    ],
)
def test_wrong_arguments(
    small: Reranker, strong: Reranker, runs: list[Any], arguments: Any, options: dict[str, Any], message: str
) -> None:
    cascade = Cascade([small, strong], keep=[3])
    calls: list[Callable[[], object]] = [
        lambda: cascade.rank(*arguments, **options),
        lambda: asyncio.run(cascade.arank(*arguments, **options)),
    ]
    for call in calls:
        with pytest.raises(InputError) as caught:
            call()
        assert str(caught.value).startswith(message)
    assert runs == []


def test_closing_closes_those_that_it_was_given(tiny: Tiny) -> None:
    with Cascade([Reranker.load(), Reranker.load(tiny.bundle())], keep=[3]) as cascade:
        assert [info.name for info in cascade.info()] == ["nano", "checkpoint-bert"]
        assert len(cascade.rank(QUERY, DOCUMENTS)) == 3
    with pytest.raises(ClosedError, match="closed; load it again"):
        cascade.rank(QUERY, DOCUMENTS)
    cascade.close()


def test_who_drops_it_keeps_his_rerankers(small: Reranker, strong: Reranker) -> None:
    cascade = Cascade([small, strong], keep=[3])
    assert repr(cascade) == f"<Cascade of {small!r}, {strong!r}, keep=[3]>"
    del cascade
    assert len(small.rank(QUERY, DOCUMENTS)) == len(strong.rank(QUERY, DOCUMENTS)) == len(DOCUMENTS)
