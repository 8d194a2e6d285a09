"""`raskrank serve` as a process on loopback: every path, every limit, and how it ends."""

import json
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import uvicorn  # noqa: F401  needs the extra server

from callers import SECRET
from raskrank import Reranker
from raskrank.server.serve import listen
from serving import BEST, DEADLINE, DOCUMENTS, QUERY, Answer, Server, serving

PATHS = ("/rerank", "/v1/rerank", "/v2/rerank", "/infinity/rerank")
BODY = {"query": QUERY, "documents": DOCUMENTS}
TEI = {"query": QUERY, "texts": DOCUMENTS}
COUNT = 400
# Takes nano a second or more: for what happens in the meantime.
LONG = {"query": QUERY, "documents": [f"{number} {'Om båter og hav og vind. ' * 120}" for number in range(COUNT)]}


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serving() as running:
        yield running


def eventually(holds: Callable[[], bool]) -> None:
    """Fails unless it holds within the deadline of the tests here."""
    end = time.monotonic() + DEADLINE
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.mark.parametrize("path", PATHS)
def test_each_path_answers_in_the_form_of_the_body(server: Server, path: str) -> None:
    scores = Reranker.load().score(QUERY, DOCUMENTS).tolist()
    order = sorted(range(len(scores)), key=lambda index: -scores[index])
    results = server.post(path, BODY).json["results"]
    assert [(result["index"], result["relevance_score"]) for result in results] == [(index, scores[index]) for index in order]
    assert server.post(path, TEI).json == [{"index": index, "score": scores[index]} for index in order]
    data = server.post(path, {**BODY, "top_k": 1}).json["data"]
    assert [(result["index"], result["relevance_score"]) for result in data] == [(BEST, scores[BEST])]


def test_raw_scores_and_windows_are_the_librarys(server: Server) -> None:
    documents = [*DOCUMENTS, LONG["documents"][0] + " Python. " + LONG["documents"][1]]
    body = {"query": QUERY, "documents": documents, "raw_scores": True, "long_documents": "windows"}
    hits = Reranker.load().rank(QUERY, documents, raw_scores=True, long_documents="windows")
    answer = server.post("/rerank", body).json
    assert [(row["index"], row["relevance_score"], row["truncated"], tuple(row["span"])) for row in answer["results"]] == hits
    assert answer["usage"]["total_tokens"] == hits.tokens


def test_the_headers_say_what_a_request_took(server: Server) -> None:
    headers = server.post("/rerank", TEI).headers
    assert headers["x-compute-type"] == "cpu"
    assert int(headers["x-compute-characters"]) == len(QUERY) * len(DOCUMENTS) + sum(map(len, DOCUMENTS))
    assert int(headers["x-compute-tokens"]) == Reranker.load().rank(QUERY, DOCUMENTS).tokens
    total, parts = int(headers["x-total-time"]), ("x-tokenization-time", "x-queue-time", "x-inference-time")
    assert sum(int(headers[name]) for name in parts) <= total + len(parts)


def test_a_text_that_would_be_cut_is_an_error_where_truncate_is_false(server: Server) -> None:
    texts = [DOCUMENTS[0], LONG["documents"][0]]
    assert server.post("/rerank", {"query": QUERY, "texts": texts}).status == 200
    assert server.post("/rerank", {"query": QUERY, "texts": texts[:1], "truncate": False}).status == 200
    refused = server.post("/rerank", {"query": QUERY, "texts": texts, "truncate": False})
    assert refused.status == 422
    assert refused.json["error_type"] == "Validation"
    assert "texts[1]" in refused.json["error"]
    warnings = server.post("/rerank", {"query": QUERY, "documents": texts}).json["meta"]["warnings"]
    assert warnings == ["1 of these documents, with the query, were not read to their ends"]


def test_info_has_what_teis_clients_read(server: Server) -> None:
    info = server.ask("GET", "/info").json
    assert (info["model_id"], info["max_client_batch_size"], info["max_input_length"]) == ("nano", 1000, 512)
    assert info["model_type"] == {"reranker": {"id2label": {"0": "LABEL_0"}, "label2id": {"LABEL_0": 0}}}
    assert str(Path(__file__).parents[2]) not in json.dumps(info)


def test_health_and_readiness(server: Server) -> None:
    assert server.ask("GET", "/health").json == {"status": "alive"}
    assert server.ask("GET", "/ready").json == {"status": "ready", "model": "nano"}


def test_the_metrics_count(server: Server) -> None:
    names = (
        "raskrank_documents_total",
        "raskrank_tokens_total",
        "raskrank_truncated_texts_total",
        "raskrank_score_seconds_count",
    )
    before = [server.counted(name) for name in names]
    outcomes = [server.outcome("ok"), server.outcome("invalid")]
    answer = server.post("/rerank", {"query": QUERY, "documents": [*DOCUMENTS, LONG["documents"][0]], "top_n": 1}).json
    server.post("/rerank", {})
    added = [server.counted(name) - count for name, count in zip(names, before, strict=True)]
    assert added == [4, answer["usage"]["total_tokens"], 1, 1]
    assert [server.outcome("ok") - outcomes[0], server.outcome("invalid") - outcomes[1]] == [1, 1]
    assert server.counted("raskrank_queue_tokens") == 0


def test_what_is_no_json_is_400(server: Server) -> None:
    large = b'{"query": "' + b"a" * 200_000
    bodies = [
        b"",
        b"{",
        b'{"query": NaN}',
        b"\xff\xfe",
        b"[" * 100_000,
        b"[" * 300_000,
        b'{"query": ' + b"9" * 5000 + b"}",
        large,
    ]
    for body in bodies:
        answer = server.post("/v1/rerank", body)
        assert answer.status == 400, body[:20]
        assert answer.json["error"]["type"] == "invalid_request_error"
    assert server.post("/rerank", b"{").json["error_type"] == "Validation"


def test_a_body_of_too_many_values_is_refused(server: Server) -> None:
    for start, piece, end in ((b"[", b"[],", b"0]"), (b"{", b'"a":0,', b'"b":0}'), (b"[", b"0,", b"0]")):
        assert server.post("/rerank", start + piece * 1_000_000 + end).status == 400


def test_a_large_body_is_read_as_a_small_one_is(server: Server) -> None:
    fields = {"nested": {"a": [1, 2.5, None, True, {"b": "\ud83c\udf89"}]}, "long": "x" * 300_000}
    documents = [{"text": text, "metadata": fields} for text in DOCUMENTS]
    answer = server.post("/rerank", {"query": QUERY, "documents": documents, "return_documents": True}).json
    assert answer["results"] == server.post("/rerank", {**BODY, "return_documents": True}).json["results"]


def test_lone_surrogates_are_refused_by_place(server: Server) -> None:
    answer = server.post("/rerank", b'{"query": "a", "texts": ["b", "\\ud800"]}')
    assert answer.status == 422
    assert "document 1: not valid Unicode" in answer.json["error"]


def test_other_methods_and_paths_are_refused(server: Server) -> None:
    refused = server.ask("GET", "/rerank")
    assert (refused.status, refused.headers["allow"]) == (405, "POST")
    assert server.ask("POST", "/embed", {}).status == 404


def test_a_partial_answer_is_said(server: Server) -> None:
    body = {**LONG, "deadline": 0.4}
    answer = server.post("/rerank", body)
    assert answer.headers["x-partial"] == "true"
    scored = [result["index"] for result in answer.json["results"]]
    assert answer.json["partial"]
    assert answer.json["unscored"] == sorted(answer.json["unscored"])
    assert sorted(scored + answer.json["unscored"]) == list(range(COUNT))
    assert 0 < len(scored) < COUNT
    tei = server.post("/rerank", {"query": QUERY, "texts": LONG["documents"], "deadline": 0.4})
    assert tei.headers["x-partial"] == "true"
    assert 0 < len(tei.json) < COUNT


def test_an_answer_that_would_hold_no_score_is_504(server: Server) -> None:
    before = server.outcome("late")
    assert server.post("/rerank", {**LONG, "deadline": 1e-9}).status == 504
    assert server.post("/rerank", LONG, prefer="wait=0").status == 504
    assert server.outcome("late") == before + 2


def test_a_client_that_leaves_stops_costing(server: Server) -> None:
    before = server.outcome("disconnected"), server.counted("raskrank_tokens_total")
    data = json.dumps(LONG).encode()
    with socket.create_connection(server.address) as connection:
        connection.sendall(b"POST /rerank HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % len(data) + data)
        eventually(lambda: server.counted("raskrank_queue_tokens") > 0)
    eventually(lambda: server.counted("raskrank_queue_tokens") == 0)
    assert (server.outcome("disconnected"), server.counted("raskrank_tokens_total")) == (before[0] + 1, before[1])
    with socket.create_connection(server.address) as connection:  # in the middle of its body
        connection.sendall(b"POST /rerank HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\n{")
    eventually(lambda: server.outcome("disconnected") == before[0] + 2)


def test_other_requests_are_answered_beside_a_long_one(server: Server) -> None:
    with ThreadPoolExecutor(1) as pool:
        long = pool.submit(server.post, "/rerank", LONG)
        eventually(lambda: server.counted("raskrank_queue_tokens") > 0)
        for _ in range(5):
            assert server.post("/rerank", BODY).status == 200
        assert not long.done()
        assert long.result().status == 200


def limits(*arguments: str) -> Callable[..., Any]:
    return pytest.mark.parametrize("limited", [arguments], indirect=True, ids=[" ".join(arguments)])


@pytest.fixture
def limited(request: pytest.FixtureRequest) -> Iterator[Server]:
    with serving(*request.param) as running:
        yield running


@limits("--max-body", "2000", "--max-documents", "3", "--max-text-chars", "100")
def test_limits(limited: Server) -> None:
    for size in (2001, 20_000, 200_000):
        large = limited.post("/v1/rerank", b"[" + b" " * (size - 2) + b"]")
        assert (large.status, large.json["error"]["code"]) == (413, 413)
    assert limited.post("/rerank", b" " * 1998 + b"[]").status == 422  # no object
    assert limited.post("/rerank", {"query": "a", "texts": ["b"] * 4}).json == {
        "error": "texts: batch size 4 > maximum allowed batch size 3",
        "error_type": "Validation",
    }
    assert limited.post("/rerank", {"query": "a" * 101, "texts": ["b"]}).status == 422
    assert limited.post("/rerank", {"query": "a", "texts": ["b" * 101]}).status == 422
    assert limited.post("/rerank", {"query": "a" * 100, "texts": ["b" * 100] * 3}).status == 200
    assert limited.outcome("too_large") == 3


@limits("--max-requests", "1")
def test_what_is_too_much_is_429_with_the_time_to_wait(limited: Server) -> None:
    with ThreadPoolExecutor(1) as pool:
        long = pool.submit(limited.post, "/rerank", LONG)
        eventually(lambda: limited.counted("raskrank_queue_requests") == 1)
        refused = [limited.post("/rerank", TEI), limited.post("/v2/rerank", BODY)]
        assert long.result().status == 200
    assert [answer.status for answer in refused] == [429, 429]
    assert all(int(answer.headers["retry-after"]) >= 1 for answer in refused)
    assert (refused[0].json["error_type"], refused[1].json["error"]["type"]) == ("Overloaded", "rate_limit_error")
    assert limited.outcome("overloaded") == 2
    assert limited.post("/rerank", TEI).status == 200


def test_keys(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text("hemmelig-1\nhemmelig-2\n")
    with serving("--api-key-file", str(file)) as server:
        for path in ("/health", "/ready", "/metrics", "/docs", "/openapi.json", "/"):
            assert server.ask("GET", path).status == 200
        assert server.ask("GET", "/info").status == 401
        assert server.ask("GET", "/info", headers={"Authorization": "Bearer hemmelig-1"}).status == 200
        for key in ("", "Bearer feil", "hemmelig"):
            refused = server.post("/v1/rerank", BODY, authorization=key)
            assert (refused.status, refused.headers["www-authenticate"]) == (401, "Bearer")
        for key in ("Bearer hemmelig-2", "hemmelig-1"):
            assert server.post("/rerank", BODY, authorization=key).status == 200
        assert b'id="key"' in server.ask("GET", "/").body
        assert server.ask("GET", "/openapi.json").json["components"]["securitySchemes"]


def test_sigterm_ends_what_is_in_flight_and_refuses_what_is_new() -> None:
    with serving() as server, ThreadPoolExecutor(1) as pool:
        long = pool.submit(server.post, "/rerank", LONG)
        eventually(lambda: server.counted("raskrank_queue_requests") == 1)
        server.process.send_signal(signal.SIGTERM)
        eventually(lambda: _refuses(server))
        assert not long.done()
        assert (long.result().status, len(long.result().json["results"])) == (200, COUNT)
        assert server.process.wait(DEADLINE) == 0


def test_a_key_is_ignored_where_none_is_asked_for(server: Server) -> None:
    for value in ("", "Bearer any", "any"):  # Dify sends the first where its user has given none
        assert server.post("/rerank", BODY, authorization=value).status == 200


def _refuses(server: Server) -> bool:
    try:
        server.post("/rerank", BODY)
    except OSError:
        return True
    return False


def test_sigterm_waits_no_longer_than_it_is_told() -> None:
    with serving("--grace", "1", ends=False) as server:
        body = {**LONG, "long_documents": "windows"}
        with ThreadPoolExecutor(1) as pool:
            long = pool.submit(_outcome, lambda: server.post("/rerank", body))
            eventually(lambda: server.counted("raskrank_queue_requests") == 1)
            server.process.send_signal(signal.SIGTERM)
            assert server.process.wait(DEADLINE) == 0
            assert long.result() != 200


@pytest.mark.parametrize(("host", "said"), [("0.0.0.0", True), ("127.0.0.1", False), ("localhost", False)])
def test_an_address_that_others_reach_without_a_key_is_said(host: str, said: bool) -> None:
    with serving("--host", host, ends=False) as server:
        server.process.send_signal(signal.SIGTERM)
        errors = server.process.communicate(timeout=DEADLINE)[1]
        assert ("whoever reaches 0.0.0.0 may use it" in errors) is said


def test_it_listens_on_ipv6_too() -> None:
    try:
        with socket.socket(socket.AF_INET6) as tried:
            tried.bind(("::1", 0))
    except OSError:
        pytest.skip("needs IPv6")
    with serving("--host", "::1") as server:
        assert server.url.startswith("http://[::1]:")
        assert server.post("/rerank", TEI).status == 200


def test_an_interrupt_ends_it_as_it_ends_every_command() -> None:
    with serving(ends=False) as server:
        server.process.send_signal(signal.SIGINT)
        assert server.process.communicate(timeout=DEADLINE)[1] == "raskrank: interrupted\n"
        assert server.process.returncode == 130


def _outcome(ask: Callable[[], Answer]) -> int | None:
    try:
        return ask().status
    except OSError:
        return None


def test_no_text_of_a_request_is_in_an_answer_to_others_or_in_what_the_process_says() -> None:
    with serving(ends=False) as server:
        for body in ({"query": SECRET, "documents": [[SECRET]]}, {"query": SECRET, "texts": [SECRET], "truncate": SECRET}):
            assert SECRET.encode() not in server.post("/rerank", body).body
        server.post(f"/rerank?{'a' * 9}HEMMELIG", {"query": SECRET, "documents": [SECRET]})
        server.post("/rerank", SECRET.encode())
        assert SECRET.encode() not in server.ask("GET", "/metrics").body
        server.process.send_signal(signal.SIGTERM)
        output, errors = server.process.communicate(timeout=DEADLINE)
        assert (output, errors) == ("", "")


def test_answers_do_not_wait_for_an_acknowledgement() -> None:
    # Without TCP_NODELAY each answer on a connection that is kept took 40 ms more.
    with listen("127.0.0.1", 0) as listening:
        assert listening.proto == socket.IPPROTO_TCP


def test_many_at_once_get_their_own_answers(server: Server) -> None:
    queries = [f"{word} {number}" for number in range(8) for word in ("Python", "sykepleier", "slange")]
    reranker = Reranker.load()
    expected = {query: reranker.score(query, DOCUMENTS).tolist() for query in queries}
    failures: list[str] = []

    def check(query: str) -> None:
        for _ in range(5):
            rows = server.post("/rerank", {"query": query, "texts": DOCUMENTS}).json
            if {row["index"]: row["score"] for row in rows} != dict(enumerate(expected[query])):
                failures.append(query)

    threads = [threading.Thread(target=check, args=[query]) for query in queries]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--port", "65536"], "--port"),
        (["--host", "192.0.2.1"], "cannot listen"),
        (["--bundle", "./no/such/bundle"], "no/such/bundle"),
        (["--api-key-file", "/no/such/file"], "/no/such/file"),
    ],
)
def test_wrong_use_is_said_in_a_line(arguments: list[str], message: str) -> None:
    with pytest.raises(AssertionError) as caught, serving(*arguments):
        pass
    assert message in str(caught.value)
    assert str(caught.value).count("\n") == 1
