"""What /info says: TEI's fields, which clients read, and what Raskrank adds."""

from raskrank.info import Info
from raskrank.server.options import ServerOptions
from raskrank.settings import HUB_ID

BATCH_TOKENS = 2**31 - 1  # calls are cut into runs by the engine; no bound of TEI's kind exists


def information(info: Info, options: ServerOptions) -> dict[str, object]:
    """An object for JSON. It has no path of this machine, and nothing of a key."""
    return {
        "model_id": info.source if info.source and HUB_ID.fullmatch(info.source) else info.name,  # a path is nobody's business
        "model_sha": info.revision,
        "model_dtype": info.precision,
        "model_type": {"reranker": {"id2label": {"0": "LABEL_0"}, "label2id": {"LABEL_0": 0}}},
        "max_concurrent_requests": options.max_requests,
        "max_input_length": info.max_length,
        "max_batch_tokens": BATCH_TOKENS,
        "max_batch_requests": None,
        "max_client_batch_size": options.max_documents,
        "auto_truncate": True,
        "tokenization_workers": info.threads,
        "version": info.versions["raskrank"],
        "sha": None,
        "docker_label": None,
        "raskrank": {
            "model": info.name,
            "backend": info.backend,
            "kernels": info.kernels,
            "manifest_sha256": info.manifest_sha256,
            "license": info.license,
            "languages": info.languages,
            "precision": info.precision,
            "activation": info.activation,
            "threads": info.threads,
            "max_body_bytes": options.max_body,
            "max_text_chars": options.max_text_chars,
            "deadline": options.deadline,
        },
    }
