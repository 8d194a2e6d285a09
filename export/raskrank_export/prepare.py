"""What is changed in a PyTorch model before it is traced: the same numbers, by operators that give them on every machine."""

from typing import TYPE_CHECKING, Any

from raskrank.checkpoint.labels import Relevant

if TYPE_CHECKING:
    from torch import Tensor


def prepare(model: Any, relevant: Relevant | None) -> None:
    """Change `model`, one of transformers', which is of no use for anything but tracing then.

    relevant: of two labels; the head gets one logit, their difference.
    """
    if relevant is not None:
        _fold_labels(model, relevant)
    if model.config.model_type == "mpnet":
        _look_up_buckets(model.mpnet.encoder, model.config.max_position_embeddings)


def _fold_labels(model: Any, relevant: Relevant) -> None:
    """The difference of two rows of the last layer is the row of their difference."""
    import torch

    head = model.classifier if isinstance(model.classifier, torch.nn.Linear) else model.classifier.out_proj
    with torch.no_grad():
        for values in (head.weight, head.bias):
            values.data = relevant.difference(values.data[None])[0]  # (2, ...) -> (1, ...)
    head.out_features = model.config.num_labels = 1


def _look_up_buckets(encoder: Any, positions: int) -> None:
    """MPNet finds a distance's bucket by a logarithm, whose last bit decides at 16, 32 and 64: let PyTorch fill a table."""
    import torch

    compute = encoder.relative_position_bucket

    def bucket(relative_position: "Tensor", num_buckets: int) -> "Tensor":
        table: Tensor = compute(torch.arange(1 - positions, positions), num_buckets=num_buckets)
        return table[relative_position + (positions - 1)]

    encoder.relative_position_bucket = bucket
