"""What the config.json of mGTE's encoder ("new") may say beside the numbers, as gte-multilingual-reranker-base has it."""

from collections.abc import Mapping
from pathlib import Path

from raskrank.checkpoint.suggestion import unsupported
from raskrank.errors import CheckpointError
from raskrank.quoting import quoted

DEFAULTS: Mapping[str, int] = {"vocab_size": 30528, "max_position_embeddings": 2048, "type_vocab_size": 1}
# Each with what its absence means. What is not here changes memory or time, and no score.
_ONLY: Mapping[str, object] = {
    "hidden_act": "gelu",
    "layer_norm_type": "layer_norm",
    "pack_qkv": True,
    "logn_attention_scale": False,
    "logn_attention_clip1": False,
}
_STRETCHED = {"type", "factor"}


def arguments(path: Path, written: Mapping[str, object], numbers: Mapping[str, int]) -> dict[str, object]:  # noqa: ARG001
    """rope_theta and rope_factor, the latter 1 where positions are not stretched. Raises CheckpointError for other forms."""
    for key, value in _ONLY.items():
        if written.get(key, value) != value:
            raise unsupported(f"{path}: {key} {quoted(written[key])} is not supported, only {value!r}.")
    return {"rope_theta": _above(path, "rope_theta", written.get("rope_theta"), 1), "rope_factor": _factor(path, written)}


def _factor(path: Path, written: Mapping[str, object]) -> float:
    scaling = written.get("rope_scaling")
    if scaling is None:
        return 1.0
    if not isinstance(scaling, dict) or scaling.keys() != _STRETCHED or scaling["type"] != "ntk":
        raise unsupported(
            f"{path}: rope_scaling {quoted(scaling)} is not supported, only null or an object with type 'ntk' and a factor."
        )
    return _above(path, "the factor of rope_scaling", scaling["factor"], 1)


def _above(path: Path, name: str, value: object, least: float) -> float:
    if not isinstance(value, float | int) or isinstance(value, bool) or not least <= value < float("inf"):
        raise CheckpointError(f"{path}: {name} must be a number of at least {least:g}, got {quoted(value)}.")
    return float(value)
