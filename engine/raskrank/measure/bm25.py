"""Search by words: where candidates come from, and what a reranker has to be better than."""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from raskrank.extras import need
from raskrank.measure.contender import Contender, Ranking


class Search:
    """BM25 over all passages, by their words of two letters or more in lower case. Stop words count, too."""

    def __init__(self, passages: Mapping[str, str]) -> None:
        """passages: texts by id. Raises MissingExtra where bm25s is not installed."""
        need("a search by BM25", "compare", "bm25s")
        import bm25s

        self._bm25s = bm25s
        self.names, self.places = list(passages), {text: place for place, text in enumerate(passages.values())}
        self._index = bm25s.BM25(backend="numpy")
        words = [found or [""] for found in self._words(list(passages.values()))]  # bm25s takes no text without words
        self._index.index(words, create_empty_token=False, show_progress=False)

    def scores(self, query: str) -> npt.NDArray[np.float32]:
        """float32 (n): of all passages, in order; 0 without a word of the query, else above."""
        (words,) = self._words([query])
        found: npt.NDArray[np.float32] = self._index.get_scores_from_ids(self._index.get_tokens_ids(words))
        return found

    def best(self, query: str) -> list[str]:
        """The ids of all passages, best first, ties in the order of the passages."""
        return [self.names[place] for place in np.argsort(-self.scores(query), kind="stable").tolist()]

    def _words(self, texts: list[str]) -> list[list[str]]:
        words: list[list[str]] = self._bm25s.tokenize(texts, stopwords=[], return_ids=False, show_progress=False)
        return words


class Bm25:
    """The candidates in the order of a search over all passages."""

    name, backend, runs = "BM25", "bm25", "bm25s"
    origin = "all passages"
    reference: Contender | None = None
    license: str | None = None
    parameters = 0
    disk_bytes: int | None = None

    def __init__(self, passages: Mapping[str, str]) -> None:
        self._search = Search(passages)

    def rank(self, query: str, documents: Sequence[str]) -> Ranking:
        scores, places = self._search.scores(query), [self._search.places[document] for document in documents]
        return Ranking(tuple(np.argsort(-scores[places], kind="stable").tolist()), 0)

    def run(self, query: str, documents: Sequence[str]) -> None:
        self.rank(query, documents)

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Words between spaces."""
        return [len(text.split()) for text in texts]

    def close(self) -> None:
        """There is nothing to free."""
