"""What the config.json of JinaBERT may say beside the numbers, as jina-reranker-v1 has it."""

from collections.abc import Mapping
from pathlib import Path

from raskrank.checkpoint.suggestion import unsupported
from raskrank.quoting import quoted


def arguments(path: Path, written: Mapping[str, object], numbers: Mapping[str, int]) -> dict[str, object]:  # noqa: ARG001
    """Nothing more. Raises CheckpointError for other forms; `layouts` has told those of attention and feed-forward part."""
    if (value := written.get("hidden_act", "gelu")) != "gelu":
        raise unsupported(f"{path}: hidden_act {quoted(value)} is not supported, only 'gelu'.")
    return {}
