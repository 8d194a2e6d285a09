"""JSON Schemas of what requests and answers hold: exactly what is accepted, and what is sent."""

from raskrank.server.options import ServerOptions

Schema = dict[str, object]

INDEX: Schema = {"type": "integer", "minimum": 0, "description": "Position in the request's array, from 0."}
TOKENS: Schema = {"type": "integer", "minimum": 0, "description": "Tokens that the model read."}
TEXT: Schema = {"type": "string"}


def array(items: Schema, **more: object) -> Schema:
    return {"type": "array", "items": items, **more}


def record(required: dict[str, Schema], optional: dict[str, Schema] | None = None, **more: object) -> Schema:
    """An object; fields that it does not name may be there too."""
    return {"type": "object", "required": list(required), "properties": {**required, **(optional or {})}, **more}


def either(*schemas: Schema, **more: object) -> Schema:
    return {"anyOf": list(schemas), **more}


def switch(default: bool, description: str) -> Schema:
    """A boolean, also as a string or null."""
    names = ["true", "false", "True", "False"]
    return either({"type": ["boolean", "null"]}, {"enum": names}, default=default, description=description)


def requests(options: ServerOptions) -> dict[str, Schema]:
    """The bodies that /rerank takes, by name."""
    text: Schema = {"type": "string", "maxLength": options.max_text_chars}
    query: Schema = {**text, "description": "What the documents are ranked for."}
    document = either(text, record({"text": text}))
    several: dict[str, object] = {"minItems": 1, "maxItems": options.max_documents}
    model: Schema = {"description": "Ignored: a server has one model."}
    raw = switch(False, "Logits instead of scores after the model's activation.")
    cut = switch(True, "Whether texts may be cut to what the model reads. If not, one that would be is a 422.")
    top: Schema = {"type": ["integer", "null"], "minimum": 0, "description": "How many results; 0 or null for all."}
    right: Schema = {"enum": ["Right", "right", None], "description": "Texts are cut at their end."}
    common = {"model": model, **_ours()}
    return {
        "TextsRequest": record(
            {"query": query, "texts": array(document, **several)},
            {
                "truncate": cut,
                "truncation_direction": right,
                "raw_scores": raw,
                "return_text": switch(False, "Repeat each text in the answer."),
                "top_n": top,
                **common,
            },
            title="text-embeddings-inference",
            **{"not": {"required": ["documents"]}},
        ),
        "DocumentsRequest": record(
            {"query": query, "documents": array(document, **several)},
            {
                "top_n": top,
                "top_k": {**top, "description": "Voyage's name of top_n: the answer then has Voyage's form."},
                "return_documents": switch(False, "Repeat each document in the answer."),
                "raw_scores": raw,
                "use_activation": switch(True, "vLLM's way to say the opposite of raw_scores."),
                "truncate": cut,
                "truncation": switch(True, "Voyage's name of truncate."),
                "truncation_side": right,
                "rank_fields": {
                    "type": ["array", "null"],
                    "items": TEXT,
                    "description": "Fields of documents that are objects; their strings are joined by line breaks.",
                },
                **common,
            },
            title="Cohere, Jina, vLLM, infinity, Voyage",
            **{"not": {"required": ["texts"]}},
        ),
    }


def _ours() -> dict[str, Schema]:
    windows = record(
        {}, {"max_windows": {"type": ["integer", "null"], "minimum": 1}, "overlap": {"type": ["integer", "null"], "minimum": 0}}
    )
    return {
        "long_documents": either(
            {"enum": ["truncate", "windows", None]},
            windows,
            description="Raskrank's: read a long document in windows, and give the range of the best one as span.",
        ),
        "score_threshold": {"type": ["number", "null"], "description": "Leave out results below it."},
        "deadline": {
            "type": ["number", "null"],
            "exclusiveMinimum": 0,
            "description": "Raskrank's: seconds from the request's arrival. An answer that is late is partial, or a 504.",
        },
    }


def answers() -> dict[str, Schema]:
    """What is answered, by name."""
    score: Schema = {"type": "number"}
    result = record(
        {"index": INDEX, "relevance_score": score, "truncated": {"type": "boolean"}},
        {
            "document": either(
                record({"text": TEXT}), {"type": ["string", "null"]}, description="A string, or null, under /infinity/rerank."
            ),
            "span": array({"type": "integer", "minimum": 0}, minItems=2, maxItems=2, description="Characters [start, end)."),
        },
    )
    voyage = record(
        {"index": INDEX, "relevance_score": score, "truncated": {"type": "boolean"}},
        {"document": TEXT, "span": array({"type": "integer", "minimum": 0}, minItems=2, maxItems=2)},
    )
    partial: dict[str, Schema] = {
        "partial": {"const": True, "description": "Not every document was scored before the deadline."},
        "unscored": array(INDEX, description="The documents without a score, in the request's order."),
    }
    tokens = record({"input_tokens": TOKENS, "output_tokens": TOKENS})
    meta = record(
        {
            "api_version": record({"version": TEXT}),
            "billed_units": record({"search_units": {"type": "integer"}}),
            "tokens": tokens,
            "warnings": array(TEXT),
        }
    )
    error = record({"message": TEXT, "type": TEXT, "param": {"type": ["string", "null"]}, "code": {"type": "integer"}})
    return {
        "Ranks": array(record({"index": INDEX, "score": score}, {"text": TEXT}), description="Best first."),
        "Results": record(
            {
                "object": {"const": "rerank"},
                "id": TEXT,
                "created": {"type": "integer"},
                "model": TEXT,
                "results": array(result, description="Best first."),
                "usage": record({"prompt_tokens": TOKENS, "total_tokens": TOKENS}),
                "meta": meta,
            },
            partial,
        ),
        "Data": record(
            {
                "object": {"const": "list"},
                "data": array(voyage, description="Best first."),
                "model": TEXT,
                "usage": record({"total_tokens": TOKENS}),
            },
            partial,
        ),
        "TextsError": record({"error": TEXT, "error_type": TEXT}),
        "DocumentsError": record({"message": TEXT, "error": error}),
    }
