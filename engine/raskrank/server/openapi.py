"""The description of the server's interface, OpenAPI 3.1."""

from collections.abc import Mapping, Sequence

import raskrank
from raskrank.server import schemas
from raskrank.server.options import ServerOptions
from raskrank.server.schemas import Schema

RERANK = ("/rerank", "/v1/rerank", "/v2/rerank", "/infinity/rerank")
QUERY = "Hvem kan Python?"
TEXTS = ["Sykepleier i turnus", "Utvikler med erfaring i Python"]
EXAMPLES: Mapping[str, object] = {
    "documents": {"query": QUERY, "documents": TEXTS, "top_n": 1},
    "texts": {"query": QUERY, "texts": TEXTS},
}
ERRORS = {
    400: "The body is no JSON, or its array is empty.",
    401: "The key in the header Authorization is not valid.",
    408: "The body did not arrive in time.",
    413: "The body is too large.",
    422: "A field cannot be used, or a limit was passed; the message names it.",
    424: "The model could not be run (requests with texts).",
    429: "Too much work is waiting. Retry-After says when there is room.",
    500: "The model could not be run.",
    503: "The model is being loaded, or the server shuts down.",
    504: "No document could be scored before the deadline.",
}


def document(options: ServerOptions, *, keys: bool) -> dict[str, object]:
    """An object for JSON. keys: whether requests have to show one."""
    paths: dict[str, object] = {path: {"post": _rerank(path, keys=keys)} for path in RERANK}
    components: dict[str, object] = {"schemas": {**schemas.requests(options), **schemas.answers()}}
    if keys:
        components["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Raskrank",
            "version": raskrank.__version__,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
            "description": "Ranks documents for a query with a cross-encoder. One endpoint, under four paths, takes the "
            "bodies of text-embeddings-inference, Cohere, Jina, vLLM, infinity and Voyage; the body says which it is, and the "
            "path that infinity's clients read documents as strings. Fields that are not named here are ignored.",
        },
        "servers": [{"url": "./"}],
        "paths": {**paths, **_others(keys=keys)},
        "components": components,
    }


def _rerank(path: str, *, keys: bool) -> dict[str, object]:
    words = path.strip("/").replace("/", " ")
    prefer = {
        "name": "Prefer",
        "in": "header",
        "schema": {"type": "string"},
        "description": "RFC 7240: wait=SECONDS is a deadline, as the field of that name.",
    }
    bodies = schemas.either(_ref("TextsRequest"), _ref("DocumentsRequest"))
    answers = schemas.either(_ref("Ranks"), _ref("Results"), _ref("Data"))
    errors = schemas.either(_ref("TextsError"), _ref("DocumentsError"))
    return {
        "operationId": words.title().replace(" ", ""),
        "summary": "Rank documents for a query, best first",
        "parameters": [prefer],
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {
                    "schema": bodies,
                    "examples": {name: {"value": value} for name, value in EXAMPLES.items()},
                }
            },
        },
        "responses": {
            "200": _response("The ranking, in the form that the body's dialect has.", answers),
            **{str(status): _response(text, errors) for status, text in ERRORS.items() if keys or status != 401},
        },
        **_security(keys),
    }


def _others(*, keys: bool) -> dict[str, object]:
    status = schemas.record({"status": schemas.TEXT})
    busy = {"503": _response(ERRORS[503], _ref("TextsError"))}
    locked = {"401": _response(ERRORS[401], _ref("TextsError"))} if keys else {}
    info = schemas.record(dict.fromkeys(("model_id", "version"), schemas.TEXT), {"raskrank": {"type": "object"}})
    return {
        "/info": {
            "get": {
                "operationId": "Info",
                "summary": "What is served, and within which limits",
                "responses": {"200": _response("As TEI says it, and more.", info), **busy, **locked},
                **_security(keys),
            }
        },
        "/health": _get("Health", "Whether the process lives", {"200": _response("It lives.", status)}),
        "/ready": _get("Ready", "Whether the model is loaded and warm", {"200": _response("It is.", status), **busy}),
        "/metrics": _get(
            "Metrics",
            "Counters for Prometheus",
            {"200": _plain("The counters.", ("text/plain", "application/openmetrics-text"))},
        ),
        "/docs": _get("Docs", "This description, as a page", {"200": _plain("The page.", ("text/html",))}),
        "/openapi.json": _get("Description", "This description", {"200": _response("OpenAPI 3.1.", {"type": "object"})}),
        "/": _get("Page", "A page to try it on", {"200": _plain("The page.", ("text/html",))}),
    }


def _get(name: str, summary: str, responses: Mapping[str, object]) -> dict[str, object]:
    return {"get": {"operationId": name, "summary": summary, "responses": responses}}


def _response(description: str, schema: Schema) -> dict[str, object]:
    return {"description": description, "content": {"application/json": {"schema": schema}}}


def _plain(description: str, types: Sequence[str]) -> dict[str, object]:
    return {"description": description, "content": {media_type: {"schema": schemas.TEXT} for media_type in types}}


def _ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


def _security(keys: bool) -> dict[str, object]:
    return {"security": [{"key": []}]} if keys else {}
