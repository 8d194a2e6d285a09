"""optimum's exporter, for transformers 4."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def trace(model: "PreTrainedModel", folder: Path, opset: int) -> Path:
    """Write the graph of `model` into `folder`. Returns its file."""
    from optimum.exporters.onnx import onnx_export_from_model

    # Where optimum looks for a tokenizer to copy: not in the checkpoint, whose tokenizer is read already, nor on the hub.
    model.config._name_or_path = str(folder)
    onnx_export_from_model(model, folder, opset=opset, task="text-classification", do_validation=False, no_post_process=True)
    return folder / "model.onnx"
