"""What is changed in a PyTorch model before it is traced: the same numbers, by operators that give them on every machine."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor


def prepare(model: Any) -> None:
    """Change `model`, one of transformers', which is of no use for anything but tracing then."""
    if model.config.model_type == "mpnet":
        _look_up_buckets(model.mpnet.encoder, model.config.max_position_embeddings)


def _look_up_buckets(encoder: Any, positions: int) -> None:
    """MPNet finds a distance's bucket by a logarithm, whose last bit decides at 16, 32 and 64: let PyTorch fill a table."""
    import torch

    compute = encoder.relative_position_bucket

    def bucket(relative_position: "Tensor", num_buckets: int) -> "Tensor":
        table: Tensor = compute(torch.arange(1 - positions, positions), num_buckets=num_buckets)
        return table[relative_position + (positions - 1)]

    encoder.relative_position_bucket = bucket
