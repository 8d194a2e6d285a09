"""Raskrank in Haystack: a ranker for pipelines.

    from raskrank.integrations.haystack import RaskrankRanker

    pipeline.add_component("ranker", RaskrankRanker(top_k=5))

Needs haystack-ai alone.
"""

from raskrank.extras import need

need("raskrank.integrations.haystack", "haystack", "haystack")

import asyncio
from collections.abc import Iterable
from dataclasses import asdict, replace
from math import inf
from typing import Any, Self

import numpy as np
from haystack import Document, component, default_from_dict, default_to_dict

from raskrank import Ranked, Windows
from raskrank.activation import sigmoid
from raskrank.integrations.bundles import Bundle, Loaded, loaded, name_of
from raskrank.integrations.spans import SPAN, within
from raskrank.texts import positive
from raskrank.windows import LongDocuments


@component
class RaskrankRanker:
    """Ranks documents for a query with a cross-encoder: best first, ties in their order, with the new score.

    Documents with one id count once: the one with the highest score, or the first. Those returned are copies; those given stay
    as they are.
    """

    def __init__(
        self,
        bundle: Bundle = None,
        *,
        top_k: int = 10,
        meta_fields_to_embed: list[str] | None = None,
        embedding_separator: str = "\n",
        scale_score: bool = True,
        score_threshold: float | None = None,
        long_documents: LongDocuments = "truncate",
    ) -> None:
        """Note what to load; `warm_up`, or the first run, loads it.

        bundle: a bundle's name or folder, as `Reranker.load` takes it, or a Reranker or Cascade. Default: the embedded model.
        top_k: how many documents to return, at least 1.
        meta_fields_to_embed: fields of a document's meta that are read in front of its content. Default: none.
        embedding_separator: stands between them.
        scale_score: score by the sigmoid of the logit, in [0, 1]; False: by the logit itself.
        score_threshold: leave out documents with a lower score. Default: none.
        long_documents: as for `Reranker.rank`. With windows, meta also has "relevance_span": the characters (start, end) of the
            content that the score is of.

        Raises InputError, a ValueError, for a top_k below 1.
        """
        self.bundle, self.top_k = bundle, positive(top_k, "top_k")
        self.meta_fields_to_embed, self.embedding_separator = list(meta_fields_to_embed or ()), embedding_separator
        self.scale_score, self.score_threshold, self.long_documents = scale_score, score_threshold, long_documents
        self._ranker: Loaded | None = None

    @component.output_types(documents=list[Document])
    def run(
        self,
        *,
        query: str,
        documents: list[Document],
        top_k: int | None = None,
        scale_score: bool | None = None,
        score_threshold: float | None = None,
    ) -> dict[str, list[Document]]:
        """{"documents": the best documents for the query, best first}; none of none.

        top_k, scale_score, score_threshold: instead of those of this ranker. Default: those.

        Raises InputError, a ValueError, for a top_k below 1, and as `Reranker.rank` does.
        """
        count, unique = self._count(top_k), _unique(documents)
        texts = [self._text(document) for document in unique]
        hits = self._loaded().rank(query, texts, raw_scores=True, long_documents=self.long_documents) if texts else []
        return {"documents": self._scored(unique, texts, hits, scale_score, score_threshold)[:count]}

    @component.output_types(documents=list[Document])
    async def run_async(
        self,
        *,
        query: str,
        documents: list[Document],
        top_k: int | None = None,
        scale_score: bool | None = None,
        score_threshold: float | None = None,
    ) -> dict[str, list[Document]]:
        """As `run`. The event loop goes on; who cancels stops the scoring."""
        count, unique = self._count(top_k), _unique(documents)
        texts = [self._text(document) for document in unique]
        hits: list[Ranked] = []
        if texts:
            await self.warm_up_async()
            hits = await self._loaded().arank(query, texts, raw_scores=True, long_documents=self.long_documents)
        return {"documents": self._scored(unique, texts, hits, scale_score, score_threshold)[:count]}

    def warm_up(self) -> None:
        """Load the bundle, unless it is loaded. Raises as `Reranker.load` does."""
        self._loaded()

    async def warm_up_async(self) -> None:
        """As `warm_up`. The event loop goes on."""
        if self._ranker is None:
            await asyncio.to_thread(self.warm_up)

    def close(self) -> None:
        """Free what `warm_up` loaded; a later run loads it again. What was loaded when it was passed in stays open."""
        if self._ranker is not None and self._ranker is not self.bundle:
            self._ranker.close()
        self._ranker = None

    async def close_async(self) -> None:
        """As `close`. The event loop goes on while calls in other threads end."""
        await asyncio.to_thread(self.close)

    def to_dict(self) -> dict[str, Any]:
        """Plain values that `from_dict` makes the same ranker of. Raises InputError for a bundle that no name leads to."""
        windows = self.long_documents
        stored: dict[str, Any] = default_to_dict(
            self,
            bundle=name_of(self.bundle),
            top_k=self.top_k,
            meta_fields_to_embed=self.meta_fields_to_embed,
            embedding_separator=self.embedding_separator,
            scale_score=self.scale_score,
            score_threshold=self.score_threshold,
            long_documents=asdict(windows) if isinstance(windows, Windows) else windows,
        )
        return stored

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Self:
        """The ranker that `to_dict` gave the values of."""
        parameters = dict(data["init_parameters"])
        if isinstance(windows := parameters.get("long_documents"), dict):
            parameters["long_documents"] = Windows(**windows)
        made: Self = default_from_dict(cls, {**data, "init_parameters": parameters})
        return made

    def _loaded(self) -> Loaded:
        if self._ranker is None:
            self._ranker = loaded(self.bundle)
        return self._ranker

    def _count(self, top_k: int | None) -> int:
        return self.top_k if top_k is None else positive(top_k, "top_k")

    def _text(self, document: Document) -> str:
        fields = [document.meta.get(key) for key in self.meta_fields_to_embed]
        shown = [str(value) for value in fields if value is not None]
        return self.embedding_separator.join([*shown, document.content or ""])

    def _scored(
        self, documents: list[Document], texts: list[str], hits: list[Ranked], scale: bool | None, threshold: float | None
    ) -> list[Document]:
        """Copies with the new scores, in the order of the hits, which have logits."""
        scores = np.array([hit.score for hit in hits], np.float32)
        if self.scale_score if scale is None else scale:
            scores = sigmoid(scores)
        least = self.score_threshold if threshold is None else threshold
        results = []
        for hit, score in zip(hits, scores.tolist(), strict=True):
            if least is None or score >= least:
                document = documents[hit.index]
                meta = {**document.meta, **_span(document, texts[hit.index], hit)}
                results.append(replace(document, score=score, meta=meta))
        return results


def _unique(documents: Iterable[Document]) -> list[Document]:
    """One document for each id, in the order of the ids' first ones."""
    best: dict[str, Document] = {}
    for document in documents:
        other = best.get(document.id)
        if other is None or _score(document) > _score(other):
            best[document.id] = document
    return list(best.values())


def _score(document: Document) -> float:
    return -inf if document.score is None else float(document.score)


def _span(document: Document, text: str, hit: Ranked) -> dict[str, tuple[int, int]]:
    """What meta gets with windows: the span in the content, which stands at the end of the text that was read."""
    length = len(document.content or "")
    return {} if hit.span is None else {SPAN: within(hit.span, len(text) - length, length)}
