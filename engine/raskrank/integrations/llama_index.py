"""Raskrank in LlamaIndex: a node postprocessor that reranks.

    from raskrank.integrations.llama_index import RaskrankRerank

    index.as_query_reranker(similarity_top_k=50, node_postprocessors=[RaskrankRerank(top_n=5)])

Needs llama-index-core alone.
"""

from raskrank.extras import need

need("raskrank.integrations.llama_index", "llama-index", "llama_index")

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from llama_index.core.bridge.pydantic import ConfigDict, Field, PrivateAttr, field_serializer
from llama_index.core.callbacks import CBEventType, EventPayload
from llama_index.core.instrumentation import get_dispatcher
from llama_index.core.instrumentation.events.rerank import ReRankEndEvent, ReRankStartEvent
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.schema import MetadataMode, NodeWithScore, QueryBundle

from raskrank import Cascade, InputError, Ranked, Reranker
from raskrank.integrations.bundles import Loaded, loaded, name_of, title
from raskrank.integrations.spans import SPAN, within
from raskrank.windows import LongDocuments

RETRIEVAL_SCORE = "retrieval_score"  # what LlamaIndex's rerankers call it

dispatcher = get_dispatcher(__name__)


class RaskrankRerank(BaseNodePostprocessor):
    """The best nodes for a query, best first, ties in their order, with the score of the cross-encoder.

    bundle: a bundle's name or folder, as `Reranker.load` takes it, or a Reranker or Cascade. Default: the embedded model.
    top_n: how many nodes to return, at least 1. Default: 2, as LlamaIndex's own have it.
    score_threshold: leave out nodes with a lower score. Default: none.
    keep_retrieval_score: keep the score that a node came with as "retrieval_score" in its metadata. Default: no.
    long_documents: as for `Reranker.rank`. With windows, metadata also has "relevance_span": the characters (start, end) of
        the node's own text that the score is of.

    What is read of a node is its text with the metadata meant for embeddings (MetadataMode.EMBED). What is given stays as it
    is: a result holds the same node, or a copy with additions to its metadata, which are kept out of embeddings and prompts.
    """

    model_config = ConfigDict(extra="forbid", arbitrary_types_allowed=True)

    bundle: str | Path | Reranker | Cascade | None = Field(
        default=None, description="A bundle's name or folder, as Reranker.load takes it. Default: the embedded model."
    )
    top_n: int = Field(default=2, ge=1, description="How many nodes to return.")
    score_threshold: float | None = Field(default=None, description="Leave out nodes with a lower score.")
    keep_retrieval_score: bool = Field(default=False, description="Keep the score a node came with in its metadata.")
    long_documents: LongDocuments = Field(
        default="truncate", description="What to do with a node that is too long for the model, as for Reranker.rank."
    )
    _ranker: Loaded = PrivateAttr()
    _name: str = PrivateAttr()

    def model_post_init(self, context: Any, /) -> None:
        """Load the bundle. Raises as `Reranker.load` does."""
        super().model_post_init(context)
        self._ranker = loaded(self.bundle)
        self._name = title(self._ranker)

    @field_serializer("bundle")
    def _named(self, bundle: Any) -> str | None:
        return name_of(bundle)

    @classmethod
    def class_name(cls) -> str:
        """The name that a stored postprocessor has."""
        return "RaskrankRerank"

    def _postprocess_nodes(self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None) -> list[NodeWithScore]:
        with self._told(nodes, query_bundle) as (query, results):
            results += self._scored(nodes, self._ranker.rank(query, _texts(nodes), **self._options()))
        return results

    async def _apostprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        with self._told(nodes, query_bundle) as (query, results):
            results += self._scored(nodes, await self._ranker.arank(query, _texts(nodes), **self._options()))
        return results

    def _options(self) -> dict[str, Any]:
        return {"top_k": self.top_n, "score_threshold": self.score_threshold, "long_documents": self.long_documents}

    @contextmanager
    def _told(self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None) -> Iterator[tuple[str, list[NodeWithScore]]]:
        """The query, and the list for the results. LlamaIndex hears of the beginning, and of what stands there at the end."""
        if query_bundle is None:
            raise InputError("query_bundle: a reranker needs the query; pass query_bundle or query_str")
        query, results = query_bundle.query_str, list[NodeWithScore]()
        dispatcher.event(ReRankStartEvent(query=query_bundle, nodes=nodes, top_n=self.top_n, model_name=self._name))
        payload: dict[str, Any] = {
            EventPayload.NODES: nodes,
            EventPayload.MODEL_NAME: self._name,
            EventPayload.QUERY_STR: query,
            EventPayload.TOP_K: self.top_n,
        }
        with self.callback_manager.event(CBEventType.RERANKING, payload=payload) as event:
            yield query, results
            event.on_end(payload={EventPayload.NODES: results})
        dispatcher.event(ReRankEndEvent(nodes=results))

    def _scored(self, nodes: list[NodeWithScore], hits: list[Ranked]) -> list[NodeWithScore]:
        return [self._with_score(nodes[hit.index], hit) for hit in hits]

    def _with_score(self, found: NodeWithScore, hit: Ranked) -> NodeWithScore:
        node, added = found.node, dict[str, Any]()
        if self.keep_retrieval_score:
            added[RETRIEVAL_SCORE] = found.score
        if hit.span is not None and (span := _in_own_text(found, hit.span)) is not None:
            added[SPAN] = span
        if added:
            node = node.model_copy(
                update={
                    "metadata": {**node.metadata, **added},
                    "excluded_embed_metadata_keys": [*node.excluded_embed_metadata_keys, *added],
                    "excluded_llm_metadata_keys": [*node.excluded_llm_metadata_keys, *added],
                }
            )
        copy: NodeWithScore = found.model_copy(update={"node": node, "score": hit.score})
        return copy


def _texts(nodes: list[NodeWithScore]) -> list[str]:
    return [found.node.get_content(metadata_mode=MetadataMode.EMBED) for found in nodes]


def _in_own_text(found: NodeWithScore, span: tuple[int, int]) -> tuple[int, int] | None:
    """A span of what was read, in the node's text without metadata; None where that is not a part of it."""
    own = found.node.get_content(metadata_mode=MetadataMode.NONE)
    read = found.node.get_content(metadata_mode=MetadataMode.EMBED)  # which is stripped
    if (place := read.rfind(own.strip())) < 0:
        return None
    return within(span, place - (len(own) - len(own.lstrip())), len(own))
