"""What a DeBERTa-v2's config.json may say beside the numbers.

Attention adds to the score of two tokens what each says of their distance. Distances share one embedding, whose rows are
buckets, finer near than far. Supported is the form of every DeBERTa-v3: no position is added to the input, distances go through
the query's and the key's own projections, and there is no convolution.
"""

from collections.abc import Mapping
from pathlib import Path

from raskrank.checkpoint.suggestion import unsupported
from raskrank.errors import CheckpointError
from raskrank.quoting import quoted

DEFAULTS: Mapping[str, int] = {
    "vocab_size": 128100,
    "hidden_size": 1536,
    "num_hidden_layers": 24,
    "num_attention_heads": 24,
    "intermediate_size": 6144,
}
ACTIVATION = "gelu"  # of the layers and of the pooler
_SUPPORTED: Mapping[str, object] = {
    "relative_attention": True,
    "position_biased_input": False,
    "share_att_key": True,
    "norm_rel_ebd": "layer_norm",
}
_ABSENT = ("type_vocab_size", "conv_kernel_size")  # 0 where they are there
_PARTS = {"c2p", "p2c"}  # content to position, and position to content


def arguments(path: Path, written: Mapping[str, object], numbers: Mapping[str, int]) -> dict[str, object]:
    """Of transformers' DebertaV2Config. Raises CheckpointError for a form that is not supported."""
    hidden = numbers["hidden_size"]
    expected = {
        **_SUPPORTED,
        **{key: 0 for key in _ABSENT if key in written},
        **{key: hidden for key in ("embedding_size", "pooler_hidden_size") if key in written},
        **({"attention_head_size": hidden // numbers["num_attention_heads"]} if "attention_head_size" in written else {}),
        **{key: ACTIVATION for key in ("hidden_act", "pooler_hidden_act") if key in written},
    }
    for key, value in expected.items():
        if written.get(key) != value:
            raise unsupported(f"{path}: {key} {quoted(written.get(key))} is not supported, only {value!r}.")
    farthest, buckets = _farthest(path, written, numbers["max_position_embeddings"]), numbers["position_buckets"]
    if not 2 <= buckets < 2 * (farthest - 1):
        raise unsupported(
            f"{path}: position_buckets must be at least 2 and leave distances up to {quoted(farthest)} to share some, got "
            f"{quoted(buckets)}."
        )
    return {
        **_SUPPORTED,
        "type_vocab_size": 0,
        "pooler_hidden_act": ACTIVATION,
        "pos_att_type": _parts(path, written),
        "max_relative_positions": farthest,
    }


def _parts(path: Path, written: Mapping[str, object]) -> list[str]:
    value = written.get("pos_att_type")
    names = value.split("|") if isinstance(value, str) else value if isinstance(value, list) else []
    parts = [str(name).strip().lower() for name in names]
    if set(parts) != _PARTS:
        raise unsupported(f"{path}: pos_att_type {quoted(value)} is not supported, only 'c2p' and 'p2c' together.")
    return parts


def _farthest(path: Path, written: Mapping[str, object], positions: int) -> int:
    """The distance from which on all fall into the last bucket; below 1 it is the number of positions."""
    value = written.get("max_relative_positions", -1)
    if not isinstance(value, int) or isinstance(value, bool):
        raise CheckpointError(f"{path}: max_relative_positions must be an integer, got {quoted(value)}.")
    return value if value >= 1 else positions
