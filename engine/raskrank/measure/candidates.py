"""What models rank for each query: its relevant passages, and the ones that a search by words (BM25) finds best."""

import hashlib
from dataclasses import dataclass

from raskrank.measure.bm25 import Search
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
    search = Search(data.passages) if any(query.negatives is None for query in kept) else None
    return [_task(data, query, search, candidates) for query in kept]


def _task(data: Data, query: Query, search: Search | None, candidates: int) -> Task:
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


def _digest(*names: str) -> bytes:
    return hashlib.sha256("\0".join(names).encode()).digest()
