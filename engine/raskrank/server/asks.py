"""What a request's body asks for, in any of the dialects, which the body itself tells apart."""

import math
import re
from dataclasses import dataclass
from enum import Enum

from raskrank.errors import InputError
from raskrank.server import fields
from raskrank.server.fields import Body, kind
from raskrank.server.options import ServerOptions
from raskrank.server.problems import Problem, wrong
from raskrank.windows import LongDocuments, Windows


class Dialect(Enum):
    """Whose shape a request and its answer have."""

    TEXTS = "text-embeddings-inference: texts, and an array of index and score"
    RESULTS = "Cohere, Jina, vLLM: documents, and an object with results"
    INFINITY = "infinity: the same, but that each result has its document as a string, or null; its path alone tells"
    DATA = "Voyage: documents and top_k, and an object with data"


@dataclass(frozen=True, kw_only=True)
class Ask:
    """A checked request.

    top: how many to return; None for all. return_texts: repeat each document in the answer. truncate: whether texts may be cut
    to what the model reads; if not, one that would be is an error. deadline: seconds from the request's arrival.
    """

    dialect: Dialect
    query: str
    documents: list[str]
    top: int | None = None
    raw_scores: bool = False
    return_texts: bool = False
    truncate: bool = True
    long_documents: LongDocuments = "truncate"
    score_threshold: float | None = None
    deadline: float | None = None


def dialect_of(body: object, path: str) -> Dialect:
    """Whose a body is, as far as one can tell: an error too is answered in that dialect."""
    results = Dialect.INFINITY if path.endswith("/infinity/rerank") else Dialect.RESULTS
    if isinstance(body, dict):
        if "texts" in body:
            return Dialect.TEXTS
        if "documents" in body:
            voyage = ("top_k" in body or "truncation" in body) and "top_n" not in body
            return Dialect.DATA if voyage else results
    return results if re.search(r"/(v\d|infinity)/rerank$", path) else Dialect.TEXTS


def read_ask(body: object, dialect: Dialect, prefer: str, options: ServerOptions) -> Ask:
    """The request in a parsed body. prefer: the header Prefer, whose wait is a deadline. Raises Problem."""
    if not isinstance(body, dict):
        raise Problem(422, f"the body: expected a JSON object, got {kind(body)}")
    if "texts" in body and "documents" in body:
        raise Problem(422, "texts and documents: give one of them", param="texts")
    texts = dialect is Dialect.TEXTS
    name = "texts" if texts else "documents"
    query = fields.text(body, "query", options.max_text_chars)
    given = fields.items(body, name, options.max_documents)
    rank_fields = [] if texts else _rank_fields(body)
    documents = [_document(item, f"{name}[{index}]", rank_fields, options) for index, item in enumerate(given)]
    tops = [fields.count(body, key) for key in (("top_n",) if texts else ("top_n", "top_k"))]
    cuts = [fields.flag(body, key, default=True) for key in (("truncate",) if texts else ("truncate", "truncation"))]
    _only_right(body, "truncation_direction" if texts else "truncation_side")
    return Ask(
        dialect=dialect,
        query=query,
        documents=documents,
        top=next(filter(None, tops), None),  # 0 is vLLM's way to say all
        raw_scores=fields.flag(body, "raw_scores", default=not (texts or fields.flag(body, "use_activation", default=True))),
        return_texts=fields.flag(body, "return_text" if texts else "return_documents", default=False),
        truncate=all(cuts),
        long_documents=_long_documents(body),
        score_threshold=_threshold(body),
        deadline=_deadline(body, prefer, options),
    )


def _document(item: object, place: str, rank_fields: list[str], options: ServerOptions) -> str:
    """A string, or an object with one: Cohere's field text, or the fields that rank_fields names, in that order."""
    if isinstance(item, str):
        return fields.as_text(item, place, options.max_text_chars)
    if not isinstance(item, dict):
        raise wrong(place, f"expected a string or an object with text, got {kind(item)}")
    named = [value for name in rank_fields if isinstance(value := item.get(name), str)]
    if named:
        return fields.as_text("\n".join(named), place, options.max_text_chars)
    return fields.as_text(item.get("text"), f"{place}.text", options.max_text_chars)


def _rank_fields(body: Body) -> list[str]:
    value = body.get("rank_fields")
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        raise wrong("rank_fields", "expected an array of strings")
    return value


def _only_right(body: Body, name: str) -> None:
    """Texts are cut at their end. Whoever needs the other is told, and not served something else."""
    value = body.get(name)
    if value is not None and not (isinstance(value, str) and value.lower() == "right"):
        raise wrong(name, 'expected "Right": texts are cut at their end')


def _long_documents(body: Body) -> LongDocuments:
    value = body.get("long_documents")
    match value:
        case None | "truncate":
            return "truncate"
        case "windows":
            return "windows"
        case dict():
            sizes = {name: fields.count(value, name) for name in ("max_windows", "overlap")}
            try:
                return Windows(**{name: size for name, size in sizes.items() if size is not None})
            except InputError as error:
                raise wrong("long_documents", str(error)) from None
    raise wrong(
        "long_documents", f'expected "truncate", "windows" or an object with max_windows and overlap, got {kind(value)}'
    )


def _threshold(body: Body) -> float | None:
    threshold = fields.number(body, "score_threshold")
    if threshold is not None and not math.isfinite(threshold):
        raise wrong("score_threshold", "expected a finite number")
    return threshold


def _deadline(body: Body, prefer: str, options: ServerOptions) -> float | None:
    """The shortest of what the server, the body and `Prefer: wait=SECONDS` (RFC 7240) say."""
    asked = fields.number(body, "deadline")
    if asked is not None and not 0 < asked < math.inf:
        raise wrong("deadline", "expected seconds above 0")
    wait = re.search(r"(?:^|[,;])\s*wait\s*=\s*\"?(\d{1,9})", prefer, re.IGNORECASE)
    found = [options.deadline, asked, float(wait[1]) if wait else None]
    return min((seconds for seconds in found if seconds is not None), default=None)
