"""What each query has to rank: its relevant passages, and those that a search by words finds most like an answer."""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from raskrank.compare.data import Data, Query
from raskrank.extras import need


@dataclass(frozen=True, kw_only=True)
class Task:
    """A query with n documents to rank, each with its grade: 0 for what is not known to be relevant."""

    query: str
    documents: tuple[str, ...]
    grades: tuple[int, ...]
    language: str | None


def make_tasks(data: Data, *, queries: int, candidates: int) -> list[Task]:
    """At most `queries` tasks of at most `candidates` documents, the same on every machine.

    Relevant passages come first, best grade first, and what room they leave is filled with the query's negatives or, without
    those, by falling BM25 score (ties in the order of the file). Passages whose text is there already are left out. Which
    queries, and in what order a query's documents stand, is decided by digests of their ids, which favours none. A smaller
    number of queries is a part of a larger one. Raises MissingExtra without the package bm25s, where it is needed.
    """
    chosen = {query.id for query in sorted(data.queries, key=lambda query: _digest(query.id))[:queries]}
    kept = [query for query in data.queries if query.id in chosen]
    search = _Search(data.passages) if any(query.negatives is None for query in kept) else None
    return [_task(data, query, search, candidates) for query in kept]


def _task(data: Data, query: Query, search: "_Search | None", candidates: int) -> Task:
    relevant = sorted(query.grades, key=lambda name: -query.grades[name])
    others = search.best(query.text) if search and query.negatives is None else query.negatives or ()
    names: dict[str, str] = {}  # by text
    for name in (*relevant, *others):
        if len(names) == candidates:
            break
        names.setdefault(data.passages[name], name)
    ordered = sorted(names.values(), key=lambda name: _digest(query.id, name))
    return Task(
        query=query.text,
        documents=tuple(data.passages[name] for name in ordered),
        grades=tuple(query.grades.get(name, 0) for name in ordered),
        language=query.language,
    )


class _Search:
    """BM25 over all passages, by lower-cased words of two letters or more; no list of stop words, whatever the language."""

    def __init__(self, passages: Mapping[str, str]) -> None:
        need("a search by BM25", "compare", "bm25s")
        import bm25s

        self._bm25s, self._names = bm25s, list(passages)
        self._index = bm25s.BM25(backend="numpy")
        words = [found or [""] for found in self._words(list(passages.values()))]  # it takes no text without words
        self._index.index(words, create_empty_token=False, show_progress=False)

    def best(self, query: str) -> Iterator[str]:
        """The ids of all passages, best first."""
        (words,) = self._words([query])
        scores = self._index.get_scores_from_ids(self._index.get_tokens_ids(words))
        return (self._names[index] for index in np.argsort(-scores, kind="stable").tolist())

    def _words(self, texts: list[str]) -> list[list[str]]:
        words: list[list[str]] = self._bm25s.tokenize(texts, stopwords=[], return_ids=False, show_progress=False)
        return words


def _digest(*names: str) -> bytes:
    return hashlib.sha256("\0".join(names).encode()).digest()
