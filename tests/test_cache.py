"""The score cache: the same bits, what it counts and takes, who goes first, and whom it never mixes up."""

import pickle
import random
import threading
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backends import BOTH
from builders import ENGLISH, NORWEGIAN, SENTENCES
from callers import BAD_COUNTS
from conftest import BROKEN, Tiny
from raskrank import InputError, NonFiniteScore, RaskrankWarning, Reranker, Windows
from raskrank.cache import ENTRY_BYTES, ScoreCache
from raskrank.options import BackendName
from raskrank.scored import Scored

pytestmark = BOTH

QUERY = "Hvem kan lære bort Python?"
LONG = " ".join(SENTENCES * 3)
PLENTY = 1000 * ENTRY_BYTES


@pytest.fixture
def cached(bundle_backend: BackendName | None) -> Iterator[Reranker]:
    with Reranker.load(threads=2, cache_bytes=PLENTY) as reranker:
        yield reranker


def counts(reranker: Reranker) -> tuple[int | None, int | None, int | None]:
    info = reranker.info()
    return info.cache_hits, info.cache_misses, info.cache_used_bytes


# In a Reranker.


def test_what_was_scored_before_is_not_run_again_and_has_the_same_bits(
    cached: Reranker, nano: Reranker, runs: list[tuple[int, ...]]
) -> None:
    documents = [*NORWEGIAN, LONG, ""]
    for how in ("truncate", "windows", Windows(max_windows=2)):
        expected = nano.rank(QUERY, documents, long_documents=how)
        first = cached.rank(QUERY, documents, long_documents=how)
        runs.clear()
        again = cached.rank(QUERY, documents, long_documents=how)
        assert runs == []
        assert again == first == expected
        assert first.tokens == expected.tokens
        assert again.tokens == 0
        # An answer of the cache is the logit, whatever is made of it.
        logits = cached.score(QUERY, documents[::-1], raw_scores=True, long_documents=how)
        assert runs == []
        assert logits.tobytes() == nano.score(QUERY, documents[::-1], raw_scores=True, long_documents=how).tobytes()


def test_hits_misses_and_bytes_are_counted(cached: Reranker) -> None:
    assert counts(cached) == (0, 0, 0)
    assert cached.info().cache_bytes == PLENTY
    cached.score(QUERY, ["a", "b", "a"])  # equal pairs are one
    assert counts(cached) == (0, 2, 2 * ENTRY_BYTES)
    cached.score(QUERY, ["b", "c"])
    assert counts(cached) == (1, 3, 3 * ENTRY_BYTES)
    cached.score("another", ["b"])
    cached.score_pairs([("b", QUERY), (QUERY, "b")])
    assert counts(cached) == (2, 5, 5 * ENTRY_BYTES)
    cached.score(QUERY, [])
    assert counts(cached) == (2, 5, 5 * ENTRY_BYTES)
    assert "cache hits" in str(cached.info())


def test_windows_of_other_numbers_are_other_scores(cached: Reranker, nano: Reranker) -> None:
    for how in ("truncate", "windows", Windows(max_windows=2), Windows(overlap=3), Windows(max_windows=2, overlap=3)):
        for _ in range(2):
            assert cached.rank(QUERY, [LONG], long_documents=how) == nano.rank(QUERY, [LONG], long_documents=how)
    assert counts(cached) == (5, 5, 5 * ENTRY_BYTES)
    assert cached.rank(QUERY, [LONG], long_documents=Windows()) == nano.rank(QUERY, [LONG], long_documents="windows")
    assert counts(cached)[0] == 6


def test_progress_counts_what_the_cache_knows(cached: Reranker) -> None:
    cached.score(QUERY, NORWEGIAN[:5])
    done: list[int] = []
    with cached.progress(done.append):
        cached.score(QUERY, [*NORWEGIAN[:8], *NORWEGIAN[:2]])
        assert sum(done) == 10
        cached.score(QUERY, NORWEGIAN[:8])
    assert sum(done) == 18


def test_without_one_nothing_is_kept(nano: Reranker, runs: list[tuple[int, ...]]) -> None:
    nano.score(QUERY, ["a"])
    nano.score(QUERY, ["a"])
    assert len(runs) == 2
    info = nano.info()
    assert (info.cache_bytes, info.cache_used_bytes, info.cache_hits, info.cache_misses) == (None,) * 4
    assert "cache" not in str(info)


def test_one_that_is_too_small_for_anything_changes_nothing(nano: Reranker) -> None:
    with Reranker.load(cache_bytes=ENTRY_BYTES - 1) as reranker:
        for _ in range(2):
            assert reranker.rank(QUERY, NORWEGIAN) == nano.rank(QUERY, NORWEGIAN)
        assert counts(reranker) == (0, 2 * len(NORWEGIAN), 0)


@pytest.mark.parametrize(("bad", "got"), BAD_COUNTS)
def test_a_bad_size_is_refused(bad: Any, got: str) -> None:
    if got == "got 0":
        return
    with pytest.raises(InputError, match=f"^cache_bytes: expected an int of at least 0, {got}$"):
        Reranker.load(cache_bytes=bad)


def test_a_pickled_reranker_starts_with_an_empty_one(cached: Reranker) -> None:
    scores = cached.score(QUERY, NORWEGIAN)
    with pickle.loads(pickle.dumps(cached)) as again:
        assert again.info().cache_bytes == PLENTY
        assert counts(again) == (0, 0, 0)
        assert again.score(QUERY, NORWEGIAN).tobytes() == scores.tobytes()


def test_what_is_no_number_or_pytorchs_is_not_kept(broken: Path) -> None:
    with Reranker.load(broken, cache_bytes=PLENTY) as reranker:
        for _ in range(2):
            with pytest.raises(NonFiniteScore):
                reranker.score(QUERY, ["Python", BROKEN])
        assert counts(reranker) == (1, 3, ENTRY_BYTES)
    with Reranker.load(broken, fallback="torch", cache_bytes=PLENTY) as reranker:
        with pytest.warns(RaskrankWarning):
            reranker.score(QUERY, ["Python", BROKEN])
        reranker.score(QUERY, ["Python", BROKEN])
        assert reranker.info().rescued_pairs == 2
        assert counts(reranker) == (1, 3, ENTRY_BYTES)


def test_verify_measures_the_model_and_not_the_cache(tiny: Tiny, runs: list[tuple[int, ...]]) -> None:
    pairs = [(QUERY, "Python"), (QUERY, "En utvikler i Oslo"), ("by ved sjøen", "Oslo"), ("by ved sjøen", "en båt")]
    with Reranker.load(tiny.bundle("bert", "int8"), cache_bytes=PLENTY) as reranker:
        reranker.score_pairs(pairs)
        runs.clear()
        reranker.verify(pairs)
        assert sum(rows for rows, _ in runs) == len(pairs)
        assert counts(reranker) == (0, len(pairs), len(pairs) * ENTRY_BYTES)


def test_many_threads_share_one(nano: Reranker) -> None:
    expected = {document: float(score) for document, score in zip(SENTENCES, nano.score(QUERY, SENTENCES), strict=True)}
    wrong: list[str] = []
    with Reranker.load(threads=2, cache_bytes=20 * ENTRY_BYTES) as reranker:  # too few: entries come and go

        def work(seed: int) -> None:
            source = random.Random(seed)
            for _ in range(30):
                documents = source.sample(SENTENCES, 15)
                scores = reranker.score(QUERY, documents).tolist()
                wrong.extend(document for document, score in zip(documents, scores, strict=True) if score != expected[document])

        threads = [threading.Thread(target=work, args=(seed,)) for seed in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        hits, misses, size = counts(reranker)
    assert wrong == []
    assert (hits or 0) + (misses or 0) == 6 * 30 * 15
    assert hits
    assert size == 20 * ENTRY_BYTES


# By itself.


def scored(number: int) -> Scored:
    return Scored(float(number), number % 2 == 0, None if number % 3 else (number, number + 7))


@settings(database=None)
@given(most=st.integers(0, 6), steps=st.lists(st.tuples(st.booleans(), st.integers(0, 9)), max_size=60))
def test_the_least_recently_used_makes_room(most: int, steps: list[tuple[bool, int]]) -> None:
    cache, model = ScoreCache(most * ENTRY_BYTES, "model"), list[int]()  # model: the least recently used first
    keys = cache.keys([("q", str(number)) for number in range(10)], "")
    hits = misses = 0
    for keep, number in steps:
        if keep:
            cache.keep(keys[number], scored(number))
        else:
            assert cache.find([keys[number]]) == [scored(number) if number in model else None]
            hits, misses = hits + (number in model), misses + (number not in model)
        if keep or number in model:
            model = [*(other for other in model if other != number), number][-most:] if most else []
        assert cache.counts() == (hits, misses, len(model) * ENTRY_BYTES)


def test_a_key_depends_on_everything_that_changes_a_score_and_on_nothing_else() -> None:
    pairs = [("a", "b"), ("b", "a"), ("ab", ""), ("", "ab"), ("", ""), ("a", "bc"), ("ab", "c"), ("å", "b"), ("a\u030a", "b")]
    caches = [ScoreCache(PLENTY, identity) for identity in ("model", "other", "model native")]
    keys = [key for cache in caches for settings in ("", "Windows(1)", "None") for key in cache.keys(pairs, settings)]
    assert len(set(keys)) == len(keys) == len(pairs) * 9
    again = ScoreCache(5, "model").keys(pairs[::-1], "")
    assert again == caches[0].keys(pairs, "")[::-1]
    assert {len(key) for key in keys} == {32}


def test_a_full_one_takes_what_it_counts_and_no_more() -> None:
    count = 20_000
    tracemalloc.start()
    try:
        cache = ScoreCache(count * ENTRY_BYTES, "model")
        before = tracemalloc.get_traced_memory()[0]
        for number in range(2 * count):
            (key,) = cache.keys([(ENGLISH[0], f"{NORWEGIAN[0]} {number}")], "")
            cache.keep(key, Scored(number + 0.5, number % 2 == 0, (number + 1000, number + 2000)))
        taken = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert cache.counts().size == count * ENTRY_BYTES
    assert 0.6 * count * ENTRY_BYTES < taken <= count * ENTRY_BYTES
