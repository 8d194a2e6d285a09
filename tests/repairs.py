"""What tests of the repair ladder change and judge."""

from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from builders import tiny_checkpoint
from raskrank.gate import Thresholds

# 64 channels average out less of the rounding than the 384 to 1,024 of real models: the defaults ask more of tau and top-1.
SMALL = Thresholds(min_tau=0.9, min_top1=0.8)


def changed(folder: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> Path:
    """A checkpoint of 64 channels and two layers with its weights changed."""
    tiny_checkpoint(folder, "xlm-roberta", hidden=64, intermediate=128)
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder
