"""The graph of a model as others export it: its own attention, its mask, and not a step of ours."""

from importlib.metadata import version
from pathlib import Path
from typing import Any

from raskrank.checkpoint import Checkpoint
from raskrank.extras import EXPORT, exporter
from raskrank.reimplemented import ARCHITECTURES

EXAMPLE = 2, 8  # (B, L) of the example inputs, each of which stands for any


def route(checkpoint: Checkpoint) -> str:
    """The exporter that is used here: "optimum" or "torch.onnx", which takes what is no class of transformers."""
    classes = checkpoint.architecture not in ARCHITECTURES and checkpoint.head is None
    return "optimum" if classes and exporter() == EXPORT else "torch.onnx"


def trace(model: Any, checkpoint: Checkpoint, folder: Path, opset: int) -> tuple[Path, str]:
    """Write the graph of `model` into `folder`. Returns its file, and who made it of what, as a noun with its version.

    Its inputs are input_ids, attention_mask and, where the model has several, token_type_ids; its output is logits.
    """
    if route(checkpoint) == "optimum":
        from raskrank_export.tracing import optimum

        return optimum.trace(model, folder, opset), f"optimum-onnx {version('optimum-onnx')}"
    return _trace_with_torch(model, checkpoint, folder, opset), f"torch.onnx {version('torch')}{_of_what(checkpoint)}"


def _of_what(checkpoint: Checkpoint) -> str:
    if checkpoint.architecture in ARCHITECTURES:
        return f" of our own model in PyTorch, since transformers has no {checkpoint.architecture}"
    return "" if checkpoint.head is None else " of transformers' encoder with the head that its modules describe"


def _trace_with_torch(model: Any, checkpoint: Checkpoint, folder: Path, opset: int) -> Path:
    import torch

    dynamo = exporter() != EXPORT  # through torch.export, which needs onnxscript; else through TorchScript, as optimum does
    names = ["input_ids", "attention_mask", *(["token_type_ids"] if checkpoint.type_vocab_size > 1 else [])]
    sizes = {0: "batch_size", 1: "sequence_length"}
    folder.mkdir(exist_ok=True)
    file = folder / "model.onnx"
    torch.onnx.export(
        model,
        (),
        str(file),
        # A tensor for each: one for all would be one input.
        kwargs={name: torch.ones(EXAMPLE, dtype=torch.int64) for name in names},
        input_names=names,
        output_names=["logits"],
        opset_version=opset,
        dynamo=dynamo,
        verbose=False,
        dynamic_shapes=dict.fromkeys(names, dict.fromkeys(sizes, torch.export.Dim.DYNAMIC)) if dynamo else None,
        dynamic_axes=None if dynamo else dict.fromkeys(names, sizes),
    )
    return file
