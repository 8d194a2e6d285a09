"""What a ModernBERT's config.json says, as transformers 4 and 5 spell it, and what its tensors are called."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from raskrank.checkpoint.files import require_integer
from raskrank.checkpoint.suggestion import unsupported
from raskrank.errors import CheckpointError
from raskrank.quoting import quoted

MODEL_TYPE = "modernbert"
CLASSIFIER, ENCODER = "ModernBertForSequenceClassification", "ModernBertModel"
PARTS = ("model.", "head.", "classifier.")  # what the names of the classifier's tensors start with
# Those that a graph can spell, by transformers' names.
ACTIVATIONS = frozenset({
    "gelu", "gelu_python", "gelu_accurate", "gelu_fast", "gelu_new", "gelu_pytorch_tanh", "quick_gelu", "relu", "sigmoid",
    "silu", "swish", "tanh",
})  # fmt: skip
_FULL, _SLIDING = "full_attention", "sliding_attention"  # transformers 5's names for global and local
_THETAS = {_FULL: ("global_rope_theta", 160_000.0), _SLIDING: ("local_rope_theta", 10_000.0)}


DEFAULTS: Mapping[str, int] = {
    "vocab_size": 50368,
    "num_hidden_layers": 22,
    "intermediate_size": 1152,
    "max_position_embeddings": 8192,
    "pad_token_id": 50283,
}


def arguments(path: Path, written: Mapping[str, object], numbers: Mapping[str, int]) -> dict[str, object]:
    """Further ones of transformers' ModernBertConfig. path: of config.json, `written`. Raises CheckpointError."""
    flags = {key: written.get(key, False) for key in ("attention_bias", "mlp_bias", "norm_bias", "classifier_bias")}
    for key, value in flags.items():
        if not isinstance(value, bool):
            raise CheckpointError(f"{path}: {key} must be true or false, got {quoted(value)}.")
    activations = {key: written.get(key, "gelu") for key in ("hidden_activation", "classifier_activation")}
    for key, value in activations.items():
        if not isinstance(value, str) or value not in ACTIVATIONS:
            raise unsupported(
                f"{path}: {key} {quoted(value)} is not supported. Supported are {', '.join(sorted(ACTIVATIONS))}."
            )
    pooling = written.get("classifier_pooling", "cls")
    if pooling not in ("cls", "mean"):
        raise unsupported(f"{path}: classifier_pooling must be 'cls' or 'mean', got {quoted(pooling)}.")
    for key in ("rope_scaling", "is_causal", "causal_mask"):
        if written.get(key):
            raise unsupported(f"{path}: {key} is set, which is not supported.")
    return {
        **flags,
        **activations,
        **_thetas(path, written),
        "classifier_pooling": pooling,
        "global_attn_every_n_layers": _every(path, written, numbers["num_hidden_layers"]),
    }


def _every(path: Path, written: Mapping[str, object], layers: int) -> int:
    """Which layers see all tokens: each whose number is a multiple of this."""
    listed = written.get("layer_types")
    if listed is None:
        return require_integer(path, written, "global_attn_every_n_layers", default=3, least=1)
    if isinstance(listed, list) and len(listed) == layers:
        second = next((index for index in range(1, layers) if listed[index] == _FULL), layers)
        if listed == [_SLIDING if index % second else _FULL for index in range(layers)]:
            return second
    raise unsupported(
        f"{path}: layer_types must name {layers} layers, {_FULL!r} for the first and every so many after it, and "
        f"{_SLIDING!r} for those between."
    )


def _thetas(path: Path, written: Mapping[str, object]) -> dict[str, float]:
    """The base of the positions in global and in local layers; transformers 5 has them in rope_parameters."""
    found, nested = dict[str, float](), written.get("rope_parameters")
    if nested is not None and not isinstance(nested, dict):
        raise CheckpointError(f"{path}: rope_parameters must be an object, got {quoted(nested)}.")
    for kind, (name, default) in _THETAS.items():
        value = written.get(name, default)
        if value is None and kind == _SLIDING:
            value = found[_THETAS[_FULL][0]]
        if nested is not None:
            parameters = nested.get(kind)
            if (
                not isinstance(parameters, dict)
                or parameters.get("rope_type", "default") != "default"
                or "rope_theta" not in parameters
            ):
                raise unsupported(f"{path}: rope_parameters must have {kind!r} with a rope_theta, of rope_type 'default'.")
            value = parameters["rope_theta"]
        if not isinstance(value, float | int) or isinstance(value, bool) or not value > 1:
            raise CheckpointError(f"{path}: {name} must be a number above 1, got {quoted(value)}.")
        found[name] = float(value)
    return found


def classifier_tensors(config: Mapping[str, Any]) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Name and shape of each tensor of ModernBertForSequenceClassification, the head first."""
    hidden = config["hidden_size"]
    yield from _linear("classifier", config["num_labels"], hidden, bias=True)
    yield from _linear("head.dense", hidden, hidden, bias=config["classifier_bias"])
    yield from _norm("head.norm", config)
    yield from encoder_tensors(config, "model.")


def encoder_tensors(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, tuple[int, ...]]]:
    """The same of ModernBertModel. prefix: of the names."""
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    yield f"{prefix}embeddings.tok_embeddings.weight", (config["vocab_size"], hidden)
    yield from _norm(f"{prefix}embeddings.norm", config)
    for index in range(config["num_hidden_layers"]):
        layer = f"{prefix}layers.{index}"
        if index > 0:  # the embeddings are normalized already
            yield from _norm(f"{layer}.attn_norm", config)
        yield from _linear(f"{layer}.attn.Wqkv", 3 * hidden, hidden, bias=config["attention_bias"])
        yield from _linear(f"{layer}.attn.Wo", hidden, hidden, bias=config["attention_bias"])
        yield from _norm(f"{layer}.mlp_norm", config)
        yield from _linear(f"{layer}.mlp.Wi", 2 * inner, hidden, bias=config["mlp_bias"])
        yield from _linear(f"{layer}.mlp.Wo", hidden, inner, bias=config["mlp_bias"])
    yield from _norm(f"{prefix}final_norm", config)


def _linear(name: str, rows: int, columns: int, *, bias: bool) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield f"{name}.weight", (rows, columns)
    if bias:
        yield f"{name}.bias", (rows,)


def _norm(name: str, config: Mapping[str, Any]) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield f"{name}.weight", (config["hidden_size"],)
    if config["norm_bias"]:
        yield f"{name}.bias", (config["hidden_size"],)
