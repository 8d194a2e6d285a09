"""The adapters for LangChain: alone, in a retriever, stored and loaded again."""

import asyncio
import json
import pickle
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from langchain_classic.retrievers import ContextualCompressionRetriever
from langchain_classic.retrievers.document_compressors import CrossEncoderReranker, DocumentCompressorPipeline
from langchain_core.callbacks import AsyncCallbackManagerForRetrieverRun, BaseCallbackHandler, CallbackManagerForRetrieverRun
from langchain_core.cross_encoders import BaseCrossEncoder
from langchain_core.documents import BaseDocumentCompressor, Document
from langchain_core.retrievers import BaseRetriever
from pydantic import ValidationError

from applications.loops import ticks
from applications.texts import BEST, LONG, QUERY, TEXTS
from raskrank import Cascade, InputError, Reranker, Windows
from raskrank.integrations.langchain import RaskrankCrossEncoder, RaskrankRerank


class Tagged(Document):
    """A user's own kind of document."""

    tag: str = ""


class Fixed(BaseRetriever):
    """A retriever that always finds the same."""

    documents: list[Document]

    def _get_relevant_documents(self, query: str, *, run_manager: CallbackManagerForRetrieverRun) -> list[Document]:
        return self.documents

    async def _aget_relevant_documents(self, query: str, *, run_manager: AsyncCallbackManagerForRetrieverRun) -> list[Document]:
        return self.documents


@pytest.fixture(scope="module")
def reranker() -> Iterator[Reranker]:
    with Reranker.load(threads=2) as loaded:
        yield loaded


@pytest.fixture
def documents() -> list[Document]:
    return [Document(page_content=text, id=f"d{place}", metadata={"place": place}) for place, text in enumerate(TEXTS)]


def places(found: Sequence[Document]) -> list[int]:
    return [document.metadata["place"] for document in found]


def test_it_returns_the_best_with_their_scores(reranker: Reranker, documents: list[Document]) -> None:
    found = RaskrankRerank(bundle=reranker, top_n=3).compress_documents(documents, QUERY)
    expected = reranker.rank(QUERY, TEXTS, 3)
    assert places(found) == [hit.index for hit in expected] == BEST[:3]
    assert [document.metadata["relevance_score"] for document in found] == [hit.score for hit in expected]
    assert [document.id for document in found] == [f"d{place}" for place in BEST[:3]]
    assert {type(document.metadata["relevance_score"]) for document in found} == {float}


def test_the_documents_given_stay_as_they_are(reranker: Reranker, documents: list[Document]) -> None:
    before = [document.model_copy(deep=True) for document in documents]
    found = RaskrankRerank(bundle=reranker).compress_documents(documents, QUERY)
    found[0].metadata["new"] = True
    assert documents == before


def test_what_a_document_was_it_stays(reranker: Reranker) -> None:
    document = Tagged(page_content="text", tag="mine", metadata={"relevance_score": 7, "source": {"page": 1}})
    (found,) = RaskrankRerank(bundle=reranker).compress_documents([document], QUERY)
    assert isinstance(found, Tagged)
    assert (found.tag, found.id, found.metadata["source"]) == ("mine", None, {"page": 1})
    assert found.metadata["relevance_score"] == reranker.rank(QUERY, ["text"])[0].score


def test_top_n_and_score_threshold(reranker: Reranker, documents: list[Document]) -> None:
    scores = [hit.score for hit in reranker.rank(QUERY, TEXTS)]
    assert places(RaskrankRerank(bundle=reranker).compress_documents(documents, QUERY)) == BEST[:3]
    assert places(RaskrankRerank(bundle=reranker, top_n=None).compress_documents(documents, QUERY)) == BEST
    several = RaskrankRerank(bundle=reranker, top_n=None, score_threshold=scores[2])
    assert places(several.compress_documents(documents, QUERY)) == BEST[:3]  # as good as the threshold is good enough
    assert RaskrankRerank(bundle=reranker, score_threshold=1.1).compress_documents(documents, QUERY) == []
    assert RaskrankRerank(bundle=reranker).compress_documents([], QUERY) == []


@pytest.mark.parametrize(
    "arguments", [{"top_n": 0}, {"top_n": -1}, {"top_k": 3}, {"long_documents": "cut"}, {"bundle": 3}], ids=str
)
def test_wrong_arguments_are_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=next(iter(arguments))):
        RaskrankRerank(**arguments)


def test_a_bundle_that_is_not_there_fails_at_once() -> None:
    with pytest.raises(Exception, match="no bundle at nowhere"):
        RaskrankRerank(bundle="nowhere")


def test_without_blocking_it_gives_the_same(reranker: Reranker, documents: list[Document]) -> None:
    compressor = RaskrankRerank(bundle=reranker)
    assert asyncio.run(compressor.acompress_documents(documents, QUERY)) == compressor.compress_documents(documents, QUERY)


def test_the_loop_goes_on_while_it_ranks(reranker: Reranker, monkeypatch: pytest.MonkeyPatch) -> None:
    many = [Document(page_content=f"{number} {LONG}") for number in range(80)]
    assert ticks(RaskrankRerank(bundle=reranker).acompress_documents(many, QUERY), monkeypatch) > 3


def test_windows_say_where_the_best_part_stands(reranker: Reranker) -> None:
    documents = [Document(page_content=LONG), Document(page_content="kort")]
    plain = RaskrankRerank(bundle=reranker).compress_documents(documents, QUERY)
    assert not any("relevance_span" in document.metadata for document in plain)
    best, other = RaskrankRerank(bundle=reranker, long_documents="windows").compress_documents(documents, QUERY)
    start, end = best.metadata["relevance_span"]
    assert TEXTS[1] in best.page_content[start:end]
    assert end - start < len(LONG) / 2
    assert other.metadata["relevance_span"] == (0, 4)


def test_a_retriever_compresses_with_it(reranker: Reranker, documents: list[Document]) -> None:
    retriever = ContextualCompressionRetriever(
        base_compressor=RaskrankRerank(bundle=reranker, top_n=2), base_retriever=Fixed(documents=documents)
    )
    assert places(retriever.invoke(QUERY)) == places(asyncio.run(retriever.ainvoke(QUERY))) == BEST[:2]
    piped = DocumentCompressorPipeline(transformers=[RaskrankRerank(bundle=reranker, top_n=2)])
    assert places(piped.compress_documents(documents, QUERY)) == BEST[:2]


def test_callbacks_of_the_retriever_see_the_ranked_documents(reranker: Reranker, documents: list[Document]) -> None:
    class Noting(BaseCallbackHandler):
        def __init__(self) -> None:
            self.ended: list[list[int]] = []

        def on_retriever_end(self, documents: Sequence[Document], **kwargs: Any) -> None:
            self.ended.append(places(documents))

    handler = Noting()
    compressor = RaskrankRerank(bundle=reranker, top_n=2)
    retriever = ContextualCompressionRetriever(base_compressor=compressor, base_retriever=Fixed(documents=documents))
    retriever.invoke(QUERY, {"callbacks": [handler]})
    assert handler.ended == [[0, 1, 2, 3], BEST[:2]]
    assert places(compressor.compress_documents(documents, QUERY, callbacks=[handler])) == BEST[:2]


def test_the_cross_encoder_works_in_langchains_reranker(reranker: Reranker, documents: list[Document]) -> None:
    model = RaskrankCrossEncoder(bundle=reranker)
    assert isinstance(model, BaseCrossEncoder)
    scores = model.score([(QUERY, text) for text in TEXTS])
    assert scores == reranker.score(QUERY, TEXTS).tolist()
    assert {type(score) for score in scores} == {float}
    assert model.score([]) == []
    assert places(CrossEncoderReranker(model=model, top_n=3).compress_documents(documents, QUERY)) == BEST[:3]
    assert RaskrankCrossEncoder(bundle=reranker, long_documents="windows").score([(QUERY, LONG)]) > model.score([(QUERY, LONG)])


@pytest.mark.parametrize("kind", [RaskrankRerank, RaskrankCrossEncoder])
@pytest.mark.parametrize("windows", ["truncate", "windows", Windows(max_windows=3)], ids=str)
def test_stored_as_json_it_makes_the_same_again(kind: Any, windows: Any) -> None:
    made = kind(long_documents=windows)
    stored = json.loads(made.model_dump_json())
    assert stored == json.loads(json.dumps(made.model_dump(mode="json")))
    again = kind.model_validate(stored)
    assert (again.long_documents, again.bundle) == (windows, None)
    assert kind.model_json_schema()["properties"].keys() == stored.keys()


def test_a_reranker_is_stored_as_the_name_of_its_bundle(tmp_path: Any, reranker: Reranker, documents: list[Document]) -> None:
    folder = reranker.info().bundle
    with Reranker.load(folder) as named:
        stored = RaskrankRerank(bundle=named, top_n=2).model_dump()
        assert stored == {"bundle": folder, "top_n": 2, "score_threshold": None, "long_documents": "truncate"}
    assert places(RaskrankRerank(**stored).compress_documents(documents, QUERY)) == BEST[:2]
    assert RaskrankRerank(bundle=reranker).model_dump()["bundle"] is None  # the embedded model, wherever it is installed


def test_it_is_copied_and_pickled(reranker: Reranker, documents: list[Document]) -> None:
    compressor = RaskrankRerank(bundle=reranker, top_n=2)
    for copy in (compressor.model_copy(), compressor.model_copy(update={"top_n": 1}), pickle.loads(pickle.dumps(compressor))):
        assert isinstance(copy, BaseDocumentCompressor)
        assert places(copy.compress_documents(documents, QUERY)) == BEST[: copy.top_n]


def test_errors_are_raskranks_own_and_hold_no_text(reranker: Reranker) -> None:
    with pytest.raises(InputError, match=r"^document 0: not valid Unicode") as caught:
        RaskrankRerank(bundle=reranker).compress_documents([Document(page_content="secret \ud800")], QUERY)
    assert "secret" not in str(caught.value)


def test_a_cascade_ranks_and_has_no_scores_of_pairs(reranker: Reranker, documents: list[Document]) -> None:
    cascade = Cascade([reranker, reranker], keep=[3])
    compressor = RaskrankRerank(bundle=cascade, top_n=None)
    assert places(compressor.compress_documents(documents, QUERY)) == BEST[:3]
    assert places(asyncio.run(compressor.acompress_documents(documents, QUERY))) == BEST[:3]
    with pytest.raises(Exception, match=r"bundle: a Cascade cannot be stored"):  # pydantic's, around ours
        compressor.model_dump()
    with pytest.raises(ValueError, match=r"bundle: a Cascade ranks documents"):
        RaskrankCrossEncoder(bundle=cascade)
