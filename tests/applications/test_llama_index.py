"""The node postprocessor for LlamaIndex: alone, in a query engine, with its events, stored and loaded again."""

import asyncio
import json
import pickle
from collections.abc import Iterator
from typing import Any

import pytest
from llama_index.core import PromptTemplate, get_response_synthesizer
from llama_index.core.callbacks import CallbackManager, CBEventType, EventPayload, LlamaDebugHandler
from llama_index.core.instrumentation import get_dispatcher
from llama_index.core.instrumentation.event_handlers import BaseEventHandler
from llama_index.core.instrumentation.events import BaseEvent
from llama_index.core.instrumentation.events.rerank import ReRankEndEvent, ReRankStartEvent
from llama_index.core.llms import MockLLM
from llama_index.core.query_engine import RetrieverQueryEngine
from llama_index.core.retrievers import BaseRetriever
from llama_index.core.schema import MetadataMode, NodeWithScore, QueryBundle, TextNode

from applications.loops import ticks
from applications.texts import BEST, LONG, QUERY, TEXTS
from raskrank import Cascade, InputError, Ranking, Reranker, Windows
from raskrank.integrations.llama_index import RaskrankRerank


@pytest.fixture(scope="module")
def reranker() -> Iterator[Reranker]:
    with Reranker.load(threads=2) as loaded:
        yield loaded


@pytest.fixture
def nodes() -> list[NodeWithScore]:
    return [NodeWithScore(node=TextNode(text=text, id_=f"n{place}"), score=0.1 * place) for place, text in enumerate(TEXTS)]


def ids(found: list[NodeWithScore]) -> list[str]:
    return [node.node_id for node in found]


class Noting(BaseEventHandler):
    """Keeps the events of a dispatcher."""

    events: list[BaseEvent] = []  # noqa: RUF012  pydantic copies it

    @classmethod
    def class_name(cls) -> str:
        return "Noting"

    def handle(self, event: BaseEvent, **kwargs: Any) -> None:
        self.events.append(event)


@pytest.fixture
def events() -> Iterator[list[BaseEvent]]:
    handler, dispatcher = Noting(), get_dispatcher()
    dispatcher.add_event_handler(handler)
    yield handler.events
    dispatcher.event_handlers.remove(handler)


def test_it_returns_the_best_with_their_scores(reranker: Reranker, nodes: list[NodeWithScore]) -> None:
    found = RaskrankRerank(bundle=reranker, top_n=3).postprocess_nodes(nodes, query_str=QUERY)
    expected = reranker.rank(QUERY, TEXTS, 3)
    assert [(node.node_id, node.score) for node in found] == [(f"n{hit.index}", hit.score) for hit in expected]
    assert ids(found) == [f"n{place}" for place in BEST[:3]]
    assert len(RaskrankRerank(bundle=reranker).postprocess_nodes(nodes, query_str=QUERY)) == 2
    assert RaskrankRerank(bundle=reranker).postprocess_nodes([], query_str=QUERY) == []


@pytest.mark.parametrize("keep", [True, False])
@pytest.mark.parametrize("windows", ["truncate", "windows"])
def test_the_nodes_given_stay_as_they_are(reranker: Reranker, nodes: list[NodeWithScore], keep: bool, windows: Any) -> None:
    before = [node.model_copy(deep=True) for node in nodes]
    rerank = RaskrankRerank(bundle=reranker, top_n=4, keep_retrieval_score=keep, long_documents=windows)
    found = rerank.postprocess_nodes(nodes, query_str=QUERY)
    assert nodes == before
    assert not {id(node) for node in found} & {id(node) for node in nodes}


class Shifted(Reranker):
    """Scores less that of the third best document, so that its own is 0.0 and others lie on both sides of it."""

    def rank(self, *args: Any, **kwargs: Any) -> Ranking:
        hits = super().rank(*args, **kwargs)
        return Ranking([hit._replace(score=hit.score - hits[2].score) for hit in hits])


def test_a_score_of_0_stands_where_it_belongs(nodes: list[NodeWithScore]) -> None:
    with Shifted.load(threads=2) as shifted:
        found = RaskrankRerank(bundle=shifted, top_n=4).postprocess_nodes(nodes, query_str=QUERY)
    scores = [node.score or 0 for node in found]
    assert ids(found) == ["n1", "n3", "n0", "n2"]
    assert scores[0] == scores[1] > 0 == scores[2] > scores[3]


def test_what_is_read_is_the_text_for_embeddings(reranker: Reranker) -> None:
    node = TextNode(text="kort", metadata={"title": TEXTS[1], "secret": "x"}, excluded_embed_metadata_keys=["secret"])
    (found,) = RaskrankRerank(bundle=reranker).postprocess_nodes([NodeWithScore(node=node)], query_str=QUERY)
    read = node.get_content(MetadataMode.EMBED)
    assert TEXTS[1] in read
    assert "secret" not in read
    assert found.score == reranker.rank(QUERY, [read])[0].score


def test_nodes_with_one_id_stay_several(reranker: Reranker) -> None:
    nodes = [NodeWithScore(node=TextNode(text=text, id_="same")) for text in TEXTS]
    found = RaskrankRerank(bundle=reranker, top_n=4).postprocess_nodes(nodes, query_str=QUERY)
    assert [node.text for node in found] == [TEXTS[place] for place in BEST]


def test_score_threshold(reranker: Reranker, nodes: list[NodeWithScore]) -> None:
    third = reranker.rank(QUERY, TEXTS)[2].score
    found = RaskrankRerank(bundle=reranker, top_n=4, score_threshold=third).postprocess_nodes(nodes, query_str=QUERY)
    assert ids(found) == ["n1", "n3", "n0"]


def test_the_retrieval_score_is_kept_out_of_prompts(reranker: Reranker, nodes: list[NodeWithScore]) -> None:
    found = RaskrankRerank(bundle=reranker, keep_retrieval_score=True).postprocess_nodes(nodes, query_str=QUERY)
    assert [node.metadata["retrieval_score"] for node in found] == [0.1, 0.1 * 3]
    for mode in (MetadataMode.EMBED, MetadataMode.LLM):
        assert found[0].node.get_content(mode) == TEXTS[1]
    again = RaskrankRerank(bundle=reranker).postprocess_nodes(found, query_str=QUERY)
    assert [node.score for node in again] == [node.score for node in found]


@pytest.mark.parametrize("text", [LONG, f"  {LONG}\n"])
@pytest.mark.parametrize("metadata", [{}, {"title": "En lang overskrift om vær og vind " * 3}])
def test_windows_say_where_in_the_text_the_best_part_stands(reranker: Reranker, text: str, metadata: dict[str, str]) -> None:
    node = NodeWithScore(node=TextNode(text=text, metadata=metadata))
    (found,) = RaskrankRerank(bundle=reranker, long_documents="windows").postprocess_nodes([node], query_str=QUERY)
    start, end = found.metadata["relevance_span"]
    assert TEXTS[1] in found.text[start:end]
    assert end - start < len(text) / 2
    assert "relevance_span" not in found.node.get_content(MetadataMode.LLM)


def test_a_query_is_needed(reranker: Reranker, nodes: list[NodeWithScore]) -> None:
    with pytest.raises(InputError, match=r"^query_bundle: "):
        RaskrankRerank(bundle=reranker).postprocess_nodes(nodes)
    with pytest.raises(ValueError, match=r"both"):
        RaskrankRerank(bundle=reranker).postprocess_nodes(nodes, QueryBundle(QUERY), QUERY)


@pytest.mark.parametrize("arguments", [{"top_n": 0}, {"top_k": 3}, {"long_documents": "cut"}, {"bundle": 3}], ids=str)
def test_wrong_arguments_are_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(arguments))):
        RaskrankRerank(**arguments)


def test_without_blocking_it_gives_the_same(reranker: Reranker, nodes: list[NodeWithScore]) -> None:
    rerank = RaskrankRerank(bundle=reranker, top_n=4)
    assert asyncio.run(rerank.apostprocess_nodes(nodes, query_str=QUERY)) == rerank.postprocess_nodes(nodes, query_str=QUERY)


def test_the_loop_goes_on_while_it_ranks(reranker: Reranker, monkeypatch: pytest.MonkeyPatch) -> None:
    many = [NodeWithScore(node=TextNode(text=f"{number} {LONG}")) for number in range(80)]
    assert ticks(RaskrankRerank(bundle=reranker).apostprocess_nodes(many, query_str=QUERY), monkeypatch) > 3


@pytest.mark.parametrize("asynchronous", [True, False])
def test_its_events(reranker: Reranker, nodes: list[NodeWithScore], events: list[BaseEvent], asynchronous: bool) -> None:
    handler = LlamaDebugHandler(print_trace_on_end=False)
    rerank = RaskrankRerank(bundle=reranker, callback_manager=CallbackManager([handler]))
    if asynchronous:
        found = asyncio.run(rerank.apostprocess_nodes(nodes, query_str=QUERY))
    else:
        found = rerank.postprocess_nodes(nodes, query_str=QUERY)
    start, end = (event for event in events if isinstance(event, ReRankStartEvent | ReRankEndEvent))
    assert isinstance(start, ReRankStartEvent)
    assert isinstance(start.query, QueryBundle)
    assert (start.query.query_str, start.top_n, start.model_name, ids(start.nodes)) == (QUERY, 2, "nano", ids(nodes))
    assert isinstance(end, ReRankEndEvent)
    assert end.nodes == found
    ((begun, ended),) = handler.get_event_pairs(CBEventType.RERANKING)
    assert begun.payload == {
        EventPayload.NODES: nodes,
        EventPayload.MODEL_NAME: "nano",
        EventPayload.QUERY_STR: QUERY,
        EventPayload.TOP_K: 2,
    }
    assert ended.payload == {EventPayload.NODES: found}


class Fixed(BaseRetriever):
    """A retriever that always finds the same."""

    def __init__(self, nodes: list[NodeWithScore]) -> None:
        self.nodes = nodes
        super().__init__()

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        return self.nodes


def test_a_query_engine_reranks_with_it(reranker: Reranker, nodes: list[NodeWithScore]) -> None:
    synthesizer = get_response_synthesizer(llm=MockLLM(), text_qa_template=PromptTemplate("{context_str} {query_str}"))
    engine = RetrieverQueryEngine(Fixed(nodes), synthesizer, node_postprocessors=[RaskrankRerank(bundle=reranker)])
    assert ids(engine.query(QUERY).source_nodes) == ids(asyncio.run(engine.aquery(QUERY)).source_nodes) == ["n1", "n3"]


@pytest.mark.parametrize("windows", ["truncate", Windows(max_windows=3)], ids=str)
def test_stored_as_json_it_makes_the_same_again(reranker: Reranker, windows: Any) -> None:
    made = RaskrankRerank(top_n=3, score_threshold=0.1, keep_retrieval_score=True, long_documents=windows)
    again = RaskrankRerank.from_json(made.to_json())
    assert again.model_dump() == made.model_dump()
    assert made.to_dict()["class_name"] == "RaskrankRerank"
    folder = reranker.info().bundle
    with Reranker.load(folder) as named:
        assert json.loads(RaskrankRerank(bundle=named).to_json())["bundle"] == folder


def test_it_pickles(reranker: Reranker, nodes: list[NodeWithScore]) -> None:
    rerank = pickle.loads(pickle.dumps(RaskrankRerank(bundle=reranker, top_n=3)))
    assert ids(rerank.postprocess_nodes(nodes, query_str=QUERY)) == ["n1", "n3", "n0"]


def test_a_cascade_ranks(reranker: Reranker, nodes: list[NodeWithScore], events: list[BaseEvent]) -> None:
    rerank = RaskrankRerank(bundle=Cascade([reranker, reranker], keep=[3]), top_n=4)
    assert ids(rerank.postprocess_nodes(nodes, query_str=QUERY)) == ["n1", "n3", "n0"]
    assert [event.model_name for event in events if isinstance(event, ReRankStartEvent)] == ["nano, nano"]
