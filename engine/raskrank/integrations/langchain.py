"""Raskrank in LangChain: a document compressor that reranks, and a cross-encoder.

    from raskrank.integrations.langchain import RaskrankRerank

    ContextualCompressionRetriever(base_compressor=RaskrankRerank(top_n=5), base_retriever=retriever)

Needs langchain-core alone.
"""

from raskrank.extras import need

need("raskrank.integrations.langchain", "langchain", "langchain_core")

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from langchain_core.callbacks import Callbacks
from langchain_core.cross_encoders import BaseCrossEncoder
from langchain_core.documents import BaseDocumentCompressor, Document
from pydantic import BaseModel, ConfigDict, Field, InstanceOf, PrivateAttr, field_serializer
from pydantic.json_schema import SkipJsonSchema

from raskrank import Cascade, Ranked, Reranker
from raskrank.integrations.bundles import Loaded, loaded, name_of, reranker
from raskrank.integrations.spans import SPAN
from raskrank.windows import LongDocuments

SCORE = "relevance_score"  # what LangChain's rerankers call it


class _WithBundle(BaseModel):
    """A model by its bundle, loaded when the object is made. As JSON it is the bundle's name, which makes the same again."""

    model_config = ConfigDict(extra="forbid")

    bundle: str | Path | SkipJsonSchema[InstanceOf[Reranker] | InstanceOf[Cascade]] | None = Field(
        default=None, description="A bundle's name or folder, as Reranker.load takes it. Default: the embedded model."
    )
    long_documents: LongDocuments = Field(
        default="truncate", description="What to do with a document that is too long for the model, as for Reranker.rank."
    )

    @field_serializer("bundle")
    def _named(self, bundle: Any) -> str | None:
        return name_of(bundle)


class RaskrankRerank(_WithBundle, BaseDocumentCompressor):
    """The best documents for a query, best first, ties in their order, with "relevance_score" in their metadata.

    bundle: a bundle's name or folder, as `Reranker.load` takes it, or a Reranker or Cascade. Default: the embedded model.
    top_n: how many documents to return, at least 1; None for all. Default: 3.
    score_threshold: leave out documents with a lower score. Default: none.
    long_documents: as for `Reranker.rank`. With windows, metadata also has "relevance_span": the characters (start, end) of
        page_content that the score is of.

    The documents returned are copies with a metadata of their own; those given stay as they are. A relevance_score that was
    there gives way. Callbacks are taken and not used: LangChain has no event for a reranker.
    """

    top_n: int | None = Field(default=3, ge=1, description="How many documents to return. None for all.")
    score_threshold: float | None = Field(default=None, description="Leave out documents with a lower score.")
    _ranker: Loaded = PrivateAttr()

    def model_post_init(self, context: Any, /) -> None:
        """Load the bundle. Raises as `Reranker.load` does."""
        self._ranker = loaded(self.bundle)

    def compress_documents(
        self, documents: Sequence[Document], query: str, callbacks: Callbacks | None = None
    ) -> Sequence[Document]:
        """The best documents for `query`, best first. Raises as `Reranker.rank` does."""
        hits = self._ranker.rank(query, _texts(documents), **self._options())
        return [_scored(documents[hit.index], hit) for hit in hits]

    async def acompress_documents(
        self, documents: Sequence[Document], query: str, callbacks: Callbacks | None = None
    ) -> Sequence[Document]:
        """As `compress_documents`. The event loop goes on; who cancels stops the scoring."""
        hits = await self._ranker.arank(query, _texts(documents), **self._options())
        return [_scored(documents[hit.index], hit) for hit in hits]

    def _options(self) -> dict[str, Any]:
        return {"top_k": self.top_n, "score_threshold": self.score_threshold, "long_documents": self.long_documents}


class RaskrankCrossEncoder(_WithBundle, BaseCrossEncoder):
    """Scores of pairs, for whatever in LangChain takes a BaseCrossEncoder, such as its CrossEncoderReranker.

    bundle: a bundle's name or folder, as `Reranker.load` takes it, or a Reranker. Default: the embedded model.
    long_documents: as for `Reranker.rank`.
    """

    _reranker: Reranker = PrivateAttr()

    def model_post_init(self, context: Any, /) -> None:
        """Load the bundle. Raises InputError for a Cascade, and as `Reranker.load` does."""
        self._reranker = reranker(self.bundle)

    def score(self, text_pairs: list[tuple[str, str]]) -> list[float]:
        """The score of each (query, document) pair, in input order. Raises as `Reranker.score_pairs` does."""
        scores: list[float] = self._reranker.score_pairs(text_pairs, long_documents=self.long_documents).tolist()
        return scores


def _texts(documents: Sequence[Document]) -> list[str]:
    return [document.page_content for document in documents]


def _scored(document: Document, hit: Ranked) -> Document:
    span = {} if hit.span is None else {SPAN: hit.span}
    copy: Document = document.model_copy(update={"metadata": {**document.metadata, SCORE: hit.score, **span}})
    return copy
