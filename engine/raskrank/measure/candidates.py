"""What models rank for each query: its relevant passages, and the ones that a search by words (BM25) finds best."""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from raskrank.extras import need
from raskrank.measure.data import Data, Query


@dataclass(frozen=True, kw_only=True)
class Task:
    """A query, and the documents to rank for it."""

    query: str
    documents: tuple[str, ...]
    grades: tuple[int, ...]  # of each document; 0 where it is not known to be relevant
    language: str | None


def make_tasks(data: Data, *, queries: int, candidates: int) -> list[Task]:
    """At most `queries` tasks of at most `candidates` documents, the same on every machine.

    A task has the relevant passages of its query, those of the best grades if there is no room for all. What room is left
    goes to the query's negatives or, if the data has none, to the passages with the best BM25 score, ties in the order of
    the file. No text is there twice.

    Digests of ids decide which queries are chosen, and in which order documents are given to the models, so that no place
    is favored. Asking for more queries keeps those of before. Raises MissingExtra if bm25s is needed and not installed.
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
    """BM25 over all passages, by their words of two letters or more in lower case. Stop words count, too."""

    def __init__(self, passages: Mapping[str, str]) -> None:
        need("a search by BM25", "compare", "bm25s")
        import bm25s

        self._bm25s, self._names = bm25s, list(passages)
        self._index = bm25s.BM25(backend="numpy")
        words = [found or [""] for found in self._words(list(passages.values()))]  # bm25s takes no text without words
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
