"""What each dialect answers: rankings and errors."""

import json
import math
import time
import uuid
from collections.abc import Iterable, Mapping

from raskrank.ranking import Ranked, Ranking
from raskrank.server.asks import Ask, Dialect
from raskrank.server.problems import Problem

# TEI's names of errors, but for "Validation" of other requests. Its clients look at the status, people at the name.
TEI_TYPES = {424: "Backend", 429: "Overloaded", 500: "Backend", 503: "Unhealthy", 504: "Backend"}
# OpenAI's names, which vLLM and infinity use.
TYPES = {401: "authentication_error", 429: "rate_limit_error"}


def ranking(ask: Ask, hits: Ranking, model: str) -> object:
    """The answer's body, as an object for JSON. Documents that no deadline left time for are in no result."""
    kept = _kept(ask, hits)
    match ask.dialect:
        case Dialect.TEXTS:
            return [_rank(ask, hit) for hit in kept]
        case Dialect.DATA:
            data = [_result(ask, hit) for hit in kept]
            return {"object": "list", "data": data, "model": model, "usage": {"total_tokens": hits.tokens}, **_partial(hits)}
    return {
        "object": "rerank",
        "id": str(uuid.uuid4()),
        "created": int(time.time()),
        "model": model,
        "results": [_result(ask, hit) for hit in kept],
        "usage": {"prompt_tokens": hits.tokens, "total_tokens": hits.tokens},
        "meta": {
            "api_version": {"version": "2"},
            "billed_units": {"search_units": 1},
            "tokens": {"input_tokens": hits.tokens, "output_tokens": 0},
            "warnings": _warnings(hits),
        },
        **_partial(hits),
    }


def error(problem: Problem, dialect: Dialect) -> dict[str, object]:
    """The body of an error: TEI's for its requests, else one in which readers of Cohere's and of OpenAI's find theirs."""
    if dialect is Dialect.TEXTS:
        empty = problem.status == 400 and problem.param  # else it is no JSON
        return {"error": problem.message, "error_type": "Empty" if empty else TEI_TYPES.get(problem.status, "Validation")}
    fault = "invalid_request_error" if problem.status < 500 else "internal_server_error"
    inner = {
        "message": problem.message,
        "type": TYPES.get(problem.status, fault),
        "param": problem.param,
        "code": problem.status,
    }
    return {"message": problem.message, "error": inner}


def timing_headers(ask: Ask, hits: Ranking, *, total: float) -> dict[str, str]:
    """TEI's headers, for every dialect; total: seconds from the request's arrival. Times are in milliseconds."""
    engine = hits.tokenize_seconds + hits.score_seconds
    characters = len(ask.query) * len(ask.documents) + sum(map(len, ask.documents))
    headers = {
        "x-compute-type": "cpu",
        "x-compute-time": _milliseconds(total),
        "x-compute-characters": str(characters),
        "x-compute-tokens": str(hits.tokens),
        "x-total-time": _milliseconds(total),
        "x-tokenization-time": _milliseconds(hits.tokenize_seconds),
        "x-queue-time": _milliseconds(max(0.0, total - engine)),
        "x-inference-time": _milliseconds(hits.score_seconds),
    }
    return {**headers, "x-partial": "true"} if hits.partial else headers


def encoded(value: object) -> bytes:
    """JSON, of any size in pieces of one result each, so that other threads get their turn."""
    if not isinstance(value, dict):
        return b"[%s]" % b",".join(map(_json, value)) if isinstance(value, list) else _json(value)
    return b"{%s}" % b",".join(_members(value))


def _members(value: Mapping[str, object]) -> Iterable[bytes]:
    for name, member in value.items():
        yield b"%s:%s" % (_json(name), encoded(member) if isinstance(member, list) else _json(member))


def _json(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()


def _milliseconds(seconds: float) -> str:
    return str(round(seconds * 1000))


def _kept(ask: Ask, hits: Ranking) -> list[Ranked]:
    """The results, best first. Threshold and top are applied here, so that what has no score is known too."""
    scored = [hit for hit in hits if not math.isnan(hit.score)]
    least = -math.inf if ask.score_threshold is None else ask.score_threshold
    return [hit for hit in scored if hit.score >= least][: ask.top]


def _rank(ask: Ask, hit: Ranked) -> dict[str, object]:
    row: dict[str, object] = {"index": hit.index, "score": hit.score}
    return {**row, "text": ask.documents[hit.index]} if ask.return_texts else row


def _result(ask: Ask, hit: Ranked) -> dict[str, object]:
    row: dict[str, object] = {"index": hit.index, "relevance_score": hit.score, "truncated": hit.truncated}
    if hit.span is not None:
        row["span"] = list(hit.span)
    text = ask.documents[hit.index] if ask.return_texts else None
    if text is not None or ask.dialect is Dialect.INFINITY:
        row["document"] = {"text": text} if ask.dialect is Dialect.RESULTS else text
    return row


def _partial(hits: Ranking) -> dict[str, object]:
    """Says which documents have no score, in the caller's order; empty for an answer that is whole."""
    return {"partial": True, "unscored": [hit.index for hit in hits if math.isnan(hit.score)]} if hits.partial else {}


def _warnings(hits: Ranking) -> list[str]:
    cut = sum(hit.truncated for hit in hits)
    return [f"{cut} of these documents, with the query, were not read to their ends"] if cut else []
