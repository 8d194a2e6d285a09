"""PyTorch's own exporter, through torch.export, for transformers 5.

No row of ours is padded, and how transformers makes a mask of nothing changes from version to version. So the graph is traced
without one, and with attention as its definition has it, which `fuse_attention` knows: a name of our own among transformers'
attentions, for which it makes no masks.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

ATTENTION = "raskrank"
EXAMPLE = 2, 8  # (B, L) of the example inputs: torch.export takes sizes from 2 on for any


def trace(model: "PreTrainedModel", folder: Path, opset: int) -> Path:
    """Write the graph of `model` into `folder`. Returns its file."""
    import torch
    from transformers import AttentionInterface

    AttentionInterface.register(ATTENTION, _attention)
    model.config._attn_implementation = ATTENTION
    names = ["input_ids", *(["token_type_ids"] if getattr(model.config, "type_vocab_size", 0) > 1 else [])]
    sizes = dict.fromkeys(range(len(EXAMPLE)), torch.export.Dim.DYNAMIC)
    folder.mkdir(exist_ok=True)
    file = folder / "model.onnx"
    torch.onnx.export(
        model,
        (),
        str(file),
        kwargs={name: torch.zeros(EXAMPLE, dtype=torch.int64) for name in names},  # one tensor for both would be one input
        input_names=names,
        output_names=["logits"],
        dynamic_shapes=dict.fromkeys(names, sizes),
        opset_version=opset,
        dynamo=True,
        external_data=True,
        verbose=False,
    )
    return file


def _attention(
    module: Any,  # noqa: ARG001
    query: "Tensor",
    key: "Tensor",
    value: "Tensor",
    attention_mask: "Tensor | None",
    *,
    scaling: float,
    **options: object,  # noqa: ARG001
) -> "tuple[Tensor, None]":
    """softmax(scaling * query @ key^T) @ value: (B, N, L, D) -> (B, L, N, D). A mask is added to what is in the softmax."""
    scores = query @ key.transpose(2, 3) * scaling
    if attention_mask is not None:
        scores = scores + attention_mask
    return (scores.softmax(-1) @ value).transpose(1, 2).contiguous(), None
