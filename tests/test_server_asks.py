"""What a request's body asks for, in each dialect; what it is answered and refused with. Needs no server."""

import json
import math
from typing import Any

import pytest

from callers import SECRET
from raskrank import Windows
from raskrank.ranking import Ranked, Ranking
from raskrank.server import replies
from raskrank.server.asks import Ask, Dialect, dialect_of, read_ask
from raskrank.server.options import ServerOptions
from raskrank.server.problems import Problem

OPTIONS = ServerOptions(max_documents=4, max_text_chars=50)
BODY = {"query": "Hvem?", "documents": ["en", "to"]}
TEI = {"query": "Hvem?", "texts": ["en", "to"]}


def asked(body: object, *, path: str = "/rerank", prefer: str = "", options: ServerOptions = OPTIONS) -> Ask:
    return read_ask(body, dialect_of(body, path), prefer, options)


def refused(body: object, **more: Any) -> Problem:
    with pytest.raises(Problem) as caught:
        asked(body, **more)
    return caught.value


@pytest.mark.parametrize(
    ("body", "path", "expected"),
    [
        (TEI, "/rerank", Dialect.TEXTS),
        (TEI, "/v1/rerank", Dialect.TEXTS),
        (BODY, "/rerank", Dialect.RESULTS),
        (BODY, "/v2/rerank", Dialect.RESULTS),
        (BODY, "/infinity/rerank", Dialect.INFINITY),
        (TEI, "/infinity/rerank", Dialect.TEXTS),
        (None, "/infinity/rerank", Dialect.INFINITY),
        ({**BODY, "top_k": 1}, "/v1/rerank", Dialect.DATA),
        ({**BODY, "truncation": True}, "/v1/rerank", Dialect.DATA),
        ({**BODY, "truncation": True, "top_n": 3}, "/v1/rerank", Dialect.RESULTS),
        (None, "/rerank", Dialect.TEXTS),
        (None, "/v1/rerank", Dialect.RESULTS),
        ([], "/v2/rerank", Dialect.RESULTS),
    ],
)
def test_the_body_says_whose_it_is_and_else_the_path(body: object, path: str, expected: Dialect) -> None:
    assert dialect_of(body, path) is expected


def test_what_is_not_said_has_the_dialects_defaults() -> None:
    assert asked(BODY) == Ask(dialect=Dialect.RESULTS, query="Hvem?", documents=["en", "to"])
    assert asked(TEI) == Ask(dialect=Dialect.TEXTS, query="Hvem?", documents=["en", "to"])


def test_null_is_absent() -> None:
    names = (
        "model",
        "top_n",
        "return_documents",
        "raw_scores",
        "use_activation",
        "truncate",
        "rank_fields",
        "long_documents",
        "score_threshold",
        "deadline",
        "truncation_side",
        "max_tokens_per_doc",
        "max_chunks_per_doc",
    )
    assert asked({**BODY, **dict.fromkeys(names)}) == asked(BODY)
    assert asked({**TEI, "truncation_direction": None, "return_text": None, "truncate": None}) == asked(TEI)


def test_unknown_fields_are_ignored() -> None:
    assert asked({**BODY, "return_len": "true", "priority": 3, "relevant_spans": {"mode": "enabled"}}) == asked(BODY)


@pytest.mark.parametrize(("value", "expected"), [(True, True), ("true", True), ("False", False), ("TRUE", True), (None, False)])
def test_booleans_may_be_strings(value: object, expected: bool) -> None:
    assert asked({**BODY, "return_documents": value}).return_texts is expected
    assert asked({**TEI, "return_text": value}).return_texts is expected
    assert asked({**BODY, "raw_scores": value}).raw_scores is expected


def test_vllm_says_raw_scores_the_other_way_round() -> None:
    assert asked({**BODY, "use_activation": False}).raw_scores
    assert not asked({**BODY, "use_activation": True}).raw_scores


@pytest.mark.parametrize(("top", "expected"), [(1, 1), (2.0, 2), (0, None), (None, None), (10**30, 10**30)])
def test_top(top: object, expected: int | None) -> None:
    assert asked({**BODY, "top_n": top}).top == expected
    assert asked({**BODY, "top_k": top}).top == expected


def test_documents_may_be_objects() -> None:
    assert asked({**BODY, "documents": [{"text": "en", "id": 3}, "to"]}).documents == ["en", "to"]
    fields = [{"title": "Tittel", "text": "brød"}, {"text": "uten tittel"}, {"title": 3, "text": "tall"}]
    body = {**BODY, "documents": fields, "rank_fields": ["title", "text"]}
    assert asked(body).documents == ["Tittel\nbrød", "uten tittel", "tall"]


def test_long_documents() -> None:
    assert asked({**BODY, "long_documents": "windows"}).long_documents == "windows"
    assert asked({**BODY, "long_documents": {"max_windows": 3}}).long_documents == Windows(max_windows=3)
    assert asked({**BODY, "long_documents": {"overlap": 0, "max_windows": None}}).long_documents == Windows(overlap=0)


@pytest.mark.parametrize(
    ("own", "field", "prefer", "expected"),
    [
        (None, None, "", None),
        (2.0, None, "", 2.0),
        (2.0, 0.5, "", 0.5),
        (2.0, 5, "", 2.0),
        (None, None, "respond-async, wait=3", 3.0),
        (None, 1.5, 'wait="3"', 1.5),
        (None, None, "Wait = 1", 1.0),
        (None, None, "await=1", None),
        (None, None, "wait=-1", None),
    ],
)
def test_the_shortest_deadline_counts(own: float | None, field: float | None, prefer: str, expected: float | None) -> None:
    options = ServerOptions(deadline=own)
    assert asked({**BODY, "deadline": field}, prefer=prefer, options=options).deadline == expected


@pytest.mark.parametrize(
    ("more", "param", "message"),
    [
        ({"query": None}, "query", "expected a string, got null"),
        ({"query": 5}, "query", "expected a string, got a number"),
        ({"query": "x" * 51}, "query", "51 characters, more than the 50"),
        ({"documents": "en"}, "documents", "expected an array, got a string"),
        ({"documents": ["en"] * 5}, "documents", "batch size 5 > maximum allowed batch size 4"),
        ({"documents": ["en", 3]}, "documents[1]", "expected a string or an object with text, got a number"),
        ({"documents": ["en", {"id": 3}]}, "documents[1].text", "expected a string, got null"),
        ({"documents": [{"text": "x" * 51}]}, "documents[0].text", "51 characters"),
        ({"top_n": -1}, "top_n", "expected at least 0"),
        ({"top_n": True}, "top_n", "got a boolean"),
        ({"top_n": 1.5}, "top_n", "expected a whole number"),
        ({"top_k": "3"}, "top_k", "got a string"),
        ({"return_documents": "yes"}, "return_documents", "expected true or false, got a string"),
        ({"return_documents": 1}, "return_documents", "got a number"),
        ({"rank_fields": "title"}, "rank_fields", "expected an array of strings"),
        ({"rank_fields": [3]}, "rank_fields", "expected an array of strings"),
        ({"truncation_side": "left"}, "truncation_side", "texts are cut at their end"),
        ({"long_documents": "chunk"}, "long_documents", "got a string"),
        ({"long_documents": {"max_windows": 0}}, "long_documents", "expected an int of at least 1, got 0"),
        ({"long_documents": {"overlap": "3"}}, "overlap", "expected a whole number"),
        ({"score_threshold": "0.5"}, "score_threshold", "expected a number, got a string"),
        ({"score_threshold": 10**400}, "score_threshold", "fits 64 bits"),
        ({"deadline": 0}, "deadline", "above 0"),
        ({"deadline": True}, "deadline", "got a boolean"),
    ],
)
def test_what_cannot_be_used_is_named(more: dict[str, object], param: str, message: str) -> None:
    problem = refused({**BODY, **more})
    assert (problem.status, problem.param) == (422, param)
    assert message in problem.message


@pytest.mark.parametrize("body", [[], "en", None, 3, True, {}, {"query": "a"}, {"documents": ["a"]}, {**BODY, "texts": []}])
def test_a_body_that_is_no_request_is_refused(body: object) -> None:
    assert refused(body).status == 422


@pytest.mark.parametrize("body", [{**BODY, "documents": []}, {**TEI, "texts": []}])
def test_no_document_is_an_error_of_its_own(body: object) -> None:
    problem = refused(body)
    assert problem.status == 400
    assert replies.error(problem, Dialect.TEXTS)["error_type"] == "Empty"


def test_no_message_holds_a_text() -> None:
    bodies = [
        {"query": [SECRET], "documents": ["a"]},
        {"query": SECRET * 9, "documents": ["a"]},
        {"query": "a", "documents": [[SECRET]]},
        {"query": "a", "documents": [{SECRET: 1}]},
        {"query": "a", "documents": SECRET},
        *({**BODY, name: SECRET} for name in ("top_n", "raw_scores", "long_documents", "rank_fields", "deadline")),
        {**BODY, "truncation_side": SECRET},
    ]
    for body in bodies:
        problem = refused(body)
        assert SECRET not in json.dumps(replies.error(problem, Dialect.RESULTS), ensure_ascii=False)


HITS = Ranking(
    [Ranked(1, 0.9, True, (2, 5)), Ranked(0, 0.25, False, (0, 2)), Ranked(2, math.nan, False)], partial=True, tokens=7
)


def answer(**more: Any) -> Any:
    ask = Ask(**{"dialect": Dialect.RESULTS, "query": "q", "documents": ["en", "lengre", "to"], **more})
    return json.loads(replies.encoded(replies.ranking(ask, HITS, "nano")))


def test_a_ranking_in_the_form_of_cohere_jina_vllm_and_infinity() -> None:
    body = answer(return_texts=True)
    assert body["results"] == [
        {"index": 1, "relevance_score": 0.9, "truncated": True, "span": [2, 5], "document": {"text": "lengre"}},
        {"index": 0, "relevance_score": 0.25, "truncated": False, "span": [0, 2], "document": {"text": "en"}},
    ]
    assert body["usage"] == {"prompt_tokens": 7, "total_tokens": 7}
    assert body["meta"]["warnings"] == ["1 of these documents, with the query, were not read to their ends"]
    assert (body["object"], body["model"], body["partial"], body["unscored"]) == ("rerank", "nano", True, [2])


def test_a_ranking_in_the_form_of_tei() -> None:
    assert answer(dialect=Dialect.TEXTS, top=1, return_texts=True) == [{"index": 1, "score": 0.9, "text": "lengre"}]
    assert answer(dialect=Dialect.TEXTS) == [{"index": 1, "score": 0.9}, {"index": 0, "score": 0.25}]


def test_a_ranking_in_the_form_of_voyage() -> None:
    body = answer(dialect=Dialect.DATA, top=1, return_texts=True)
    assert body["data"] == [{"index": 1, "relevance_score": 0.9, "truncated": True, "span": [2, 5], "document": "lengre"}]
    assert (body["object"], body["usage"]) == ("list", {"total_tokens": 7})


def test_a_threshold_leaves_out_what_is_below_it() -> None:
    assert [result["index"] for result in answer(score_threshold=0.25)["results"]] == [1, 0]
    assert [result["index"] for result in answer(score_threshold=0.26)["results"]] == [1]
    assert answer(score_threshold=2.0)["results"] == []


def test_a_ranking_in_the_form_of_infinity() -> None:
    body, others = answer(dialect=Dialect.INFINITY, return_texts=True), answer(return_texts=True)
    assert [row["document"] for row in body["results"]] == ["lengre", "en"]
    assert [row["document"] for row in answer(dialect=Dialect.INFINITY)["results"]] == [None, None]
    for row in (*body["results"], *others["results"]):
        del row["document"]
    assert body["results"] == others["results"]
    assert body.keys() == others.keys()


@pytest.mark.parametrize(
    ("status", "name"),
    [
        *((status, "Validation") for status in (400, 401, 408, 413, 422)),
        *((status, "Backend") for status in (424, 500, 504)),
        *((429, "Overloaded"), (503, "Unhealthy")),
    ],
)
def test_errors_have_teis_names_in_its_dialect(status: int, name: str) -> None:
    assert replies.error(Problem(status, "why"), Dialect.TEXTS) == {"error": "why", "error_type": name}


def test_errors_have_what_readers_of_other_dialects_look_for() -> None:
    body: Any = replies.error(Problem(429, "too much"), Dialect.RESULTS)
    assert (body["message"], body["error"]["message"], body["error"]["code"]) == ("too much", "too much", 429)
