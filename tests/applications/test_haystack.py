"""The ranker for Haystack: alone, in a pipeline, stored as YAML and loaded again."""

import asyncio
from collections.abc import Iterator
from copy import deepcopy
from typing import Any

import pytest
from haystack import Document, Pipeline, component
from haystack.core.errors import DeserializationError

from applications.loops import ticks
from applications.texts import BEST, LONG, QUERY, TEXTS
from raskrank import Cascade, ClosedError, InputError, Reranker, Windows
from raskrank.activation import sigmoid
from raskrank.integrations.haystack import RaskrankRanker


@pytest.fixture(scope="module")
def reranker() -> Iterator[Reranker]:
    with Reranker.load(threads=2) as loaded:
        yield loaded


@pytest.fixture
def documents() -> list[Document]:
    return [Document(id=f"d{place}", content=text, meta={"place": place}) for place, text in enumerate(TEXTS)]


def ids(result: dict[str, list[Document]]) -> list[str]:
    return [document.id for document in result["documents"]]


def test_it_returns_the_best_with_their_scores(reranker: Reranker, documents: list[Document]) -> None:
    found = RaskrankRanker(reranker, top_k=3).run(query=QUERY, documents=documents)
    expected = reranker.rank(QUERY, TEXTS, 3)
    assert [(document.id, document.score) for document in found["documents"]] == [
        (f"d{hit.index}", hit.score) for hit in expected
    ]
    assert ids(found) == [f"d{place}" for place in BEST[:3]]
    assert RaskrankRanker(reranker).run(query=QUERY, documents=[]) == {"documents": []}


def test_the_documents_given_stay_as_they_are(reranker: Reranker, documents: list[Document]) -> None:
    before = deepcopy(documents)
    found = RaskrankRanker(reranker).run(query=QUERY, documents=documents)["documents"]
    found[0].meta["new"] = True
    assert documents == before
    assert not {id(document) for document in found} & {id(document) for document in documents}


def test_of_one_id_the_document_with_the_highest_score_stays(reranker: Reranker) -> None:
    documents = [
        Document(id="a", content=TEXTS[0], score=0.1),
        Document(id="b", content=TEXTS[2]),
        Document(id="a", content=TEXTS[1], score=0.7),
        Document(id="a", content=TEXTS[2], score=0.7),
        Document(id="b", content=TEXTS[1], score=-5.0),
    ]
    found = RaskrankRanker(reranker).run(query=QUERY, documents=documents)["documents"]
    assert [(document.id, document.content) for document in found] == [("a", TEXTS[1]), ("b", TEXTS[1])]


def test_scores_are_scaled_or_logits(reranker: Reranker, documents: list[Document]) -> None:
    logits = reranker.score(QUERY, TEXTS, raw_scores=True)
    for ranker, option, expected in (
        (RaskrankRanker(reranker), None, sigmoid(logits)),
        (RaskrankRanker(reranker), False, logits),
        (RaskrankRanker(reranker, scale_score=False), None, logits),
        (RaskrankRanker(reranker, scale_score=False), True, sigmoid(logits)),
    ):
        found = ranker.run(query=QUERY, documents=documents, scale_score=option)["documents"]
        assert [document.score for document in found] == [expected[place] for place in BEST]


def test_score_threshold(reranker: Reranker, documents: list[Document]) -> None:
    third = reranker.rank(QUERY, TEXTS)[2].score
    assert ids(RaskrankRanker(reranker, score_threshold=third).run(query=QUERY, documents=documents)) == ["d1", "d3", "d0"]
    ranker = RaskrankRanker(reranker, score_threshold=2.0)
    assert ids(ranker.run(query=QUERY, documents=documents)) == []
    # 0 is a threshold too: that of Haystack's own ranker once went back to the first one.
    assert len(ids(ranker.run(query=QUERY, documents=documents, score_threshold=0.0))) == 4
    least = float(reranker.score(QUERY, TEXTS, raw_scores=True)[0])
    assert ids(ranker.run(query=QUERY, documents=documents, scale_score=False, score_threshold=least)) == ["d1", "d3", "d0"]


@pytest.mark.parametrize("top_k", [0, -1, 1.5])
def test_a_top_k_below_1_is_a_value_error(reranker: Reranker, documents: list[Document], top_k: Any) -> None:
    with pytest.raises(ValueError, match=r"^top_k: "):
        RaskrankRanker(reranker, top_k=top_k)
    for given in (documents, []):
        with pytest.raises(InputError, match=r"^top_k: "):
            RaskrankRanker(reranker).run(query=QUERY, documents=given, top_k=top_k)
    assert ids(RaskrankRanker(reranker, top_k=4).run(query=QUERY, documents=documents, top_k=1)) == ["d1"]


def test_meta_is_read_in_front_of_the_content(reranker: Reranker) -> None:
    document = Document(content="kort", meta={"title": TEXTS[1], "rating": 0, "none": None})
    ranker = RaskrankRanker(reranker, meta_fields_to_embed=["title", "rating", "none", "missing"], embedding_separator=" | ")
    (found,) = ranker.run(query=QUERY, documents=[document, document])["documents"]
    assert found.score == reranker.rank(QUERY, [f"{TEXTS[1]} | 0 | kort"])[0].score
    (empty,) = RaskrankRanker(reranker).run(query=QUERY, documents=[Document(id="no content")])["documents"]
    assert empty.score == reranker.rank(QUERY, [""])[0].score


@pytest.mark.parametrize("fields", [[], ["title"]])
def test_windows_say_where_in_the_content_the_best_part_stands(reranker: Reranker, fields: list[str]) -> None:
    document = Document(content=LONG, meta={"title": "En lang overskrift om vær og vind " * 3})
    plain = RaskrankRanker(reranker).run(query=QUERY, documents=[document])["documents"]
    assert "relevance_span" not in plain[0].meta
    ranker = RaskrankRanker(reranker, long_documents="windows", meta_fields_to_embed=fields)
    (found,) = ranker.run(query=QUERY, documents=[document])["documents"]
    start, end = found.meta["relevance_span"]
    assert TEXTS[1] in LONG[start:end]
    assert end - start < len(LONG) / 2


def test_it_loads_when_it_is_warmed_up_or_run(documents: list[Document]) -> None:
    nowhere = RaskrankRanker("nowhere")
    with pytest.raises(Exception, match=r"no bundle at nowhere"):
        nowhere.warm_up()
    ranker = RaskrankRanker()
    assert ranker._ranker is None
    ranker.warm_up()
    loaded = ranker._ranker
    ranker.warm_up()
    asyncio.run(ranker.warm_up_async())
    assert loaded is not None
    assert ranker._ranker is loaded
    ranker.close()
    with pytest.raises(ClosedError):
        loaded.rank(QUERY, TEXTS)
    assert ids(ranker.run(query=QUERY, documents=documents)) == [f"d{place}" for place in BEST]
    asyncio.run(ranker.close_async())
    assert ranker._ranker is None


def test_a_reranker_that_was_passed_in_stays_open(reranker: Reranker, documents: list[Document]) -> None:
    ranker = RaskrankRanker(reranker)
    ranker.run(query=QUERY, documents=documents)
    ranker.close()
    assert reranker.rank(QUERY, TEXTS)


def test_without_blocking_it_gives_the_same(reranker: Reranker, documents: list[Document]) -> None:
    ranker = RaskrankRanker(reranker, top_k=3)
    for options in ({}, {"top_k": 2}, {"scale_score": False}, {"score_threshold": 0.9}):
        call: dict[str, Any] = {"query": QUERY, "documents": documents, **options}
        assert asyncio.run(ranker.run_async(**call)) == ranker.run(**call)
    assert asyncio.run(ranker.run_async(query=QUERY, documents=[])) == {"documents": []}


def test_the_loop_goes_on_while_it_ranks(reranker: Reranker, monkeypatch: pytest.MonkeyPatch) -> None:
    many = [Document(content=f"{number} {LONG}") for number in range(80)]
    assert ticks(RaskrankRanker(reranker).run_async(query=QUERY, documents=many), monkeypatch) > 3


@component
class Fixed:
    """A retriever that always finds the same."""

    @component.output_types(documents=list[Document])
    def run(self, query: str) -> dict[str, list[Document]]:
        return {"documents": [Document(id=f"d{place}", content=text) for place, text in enumerate(TEXTS)]}


def pipeline(ranker: RaskrankRanker) -> Pipeline:
    made = Pipeline()
    made.add_component("retriever", Fixed())
    made.add_component("ranker", ranker)
    made.connect("retriever.documents", "ranker.documents")
    return made


def test_a_pipeline_ranks_with_it(reranker: Reranker) -> None:
    made = pipeline(RaskrankRanker(reranker, top_k=2))
    data = {"retriever": {"query": QUERY}, "ranker": {"query": QUERY}}
    assert ids(made.run(data)["ranker"]) == ids(asyncio.run(made.run_async(data))["ranker"]) == ["d1", "d3"]
    made.close()


@pytest.mark.parametrize("windows", ["windows", Windows(max_windows=3, overlap=8)], ids=str)
def test_a_pipeline_goes_through_yaml(windows: Any) -> None:
    ranker = RaskrankRanker(
        top_k=2, meta_fields_to_embed=["title"], embedding_separator=" ", scale_score=False, score_threshold=-9.5,
        long_documents=windows,
    )  # fmt: skip
    made = Pipeline()
    made.add_component("ranker", ranker)
    text = made.dumps()
    again = Pipeline.loads(text, allowed_modules=["raskrank.integrations.haystack"])
    assert again.dumps() == text
    assert again.get_component("ranker").to_dict() == ranker.to_dict()
    assert again.get_component("ranker").long_documents == windows
    result = again.run({"ranker": {"query": QUERY, "documents": [Document(id="a", content=TEXTS[1])]}})
    assert ids(result["ranker"]) == ["a"]
    again.close()
    with pytest.raises(DeserializationError, match=r"raskrank\.integrations\.haystack"):
        Pipeline.loads(text)


def test_what_is_stored(reranker: Reranker) -> None:
    stored = RaskrankRanker().to_dict()
    assert stored == {
        "type": "raskrank.integrations.haystack.RaskrankRanker",
        "init_parameters": {
            "bundle": None,
            "top_k": 10,
            "meta_fields_to_embed": [],
            "embedding_separator": "\n",
            "scale_score": True,
            "score_threshold": None,
            "long_documents": "truncate",
        },
    }
    assert RaskrankRanker.from_dict(stored).to_dict() == stored
    assert RaskrankRanker("./bge").to_dict()["init_parameters"]["bundle"] == "./bge"
    assert RaskrankRanker(reranker).to_dict() == stored  # the embedded model, wherever it is installed
    folder = reranker.info().bundle
    with Reranker.load(folder) as named:
        assert RaskrankRanker(named).to_dict()["init_parameters"]["bundle"] == folder


def test_a_cascade_ranks(reranker: Reranker, documents: list[Document]) -> None:
    ranker = RaskrankRanker(Cascade([reranker, reranker], keep=[3]))
    assert ids(ranker.run(query=QUERY, documents=documents)) == ["d1", "d3", "d0"]
    with pytest.raises(InputError, match=r"^bundle: a Cascade cannot be stored"):
        ranker.to_dict()
