"""Exports of tiny models, and what was told of them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from conftest import LOOSE, Tiny
from raskrank import kernels
from raskrank_export import ExportReport, export, tracing

KERNELS = [] if kernels.unavailable() else ["score with our kernels int8"]
STEPS = [
    "read checkpoint",
    "score with PyTorch",
    "export to ONNX",
    "score with ONNX fp32",
    "score with PyTorch fp64",
    "quantize to int8",
    "score with ONNX int8",
    *KERNELS,
    "write bundle",
]
INT8_STEPS = {"quantize to int8", "score with ONNX int8", *KERNELS}


def passes(layers: int) -> dict[str, int]:
    """What a report says of a graph that every pass matches. PyTorch's own exporter traces without a mask."""
    masks = layers if tracing.route() == "optimum" else 0
    return {"drop_mask": masks, "hoist_first_token": 1, "merge_projections": layers}


class Recorder:
    """A Progress that remembers, and may do something when a step starts or advances."""

    def __init__(self, at: str = "", then: Callable[[], None] | None = None, *, advance: bool = False) -> None:
        self.at, self.then, self.on_advance = at, then, advance
        self.steps: list[tuple[str, int | None]] = []
        self.units: dict[str, int] = {}
        self.finished: list[float] = []

    def start(self, step: str, total: int | None) -> None:
        self.steps.append((step, total))
        self.units[step] = 0
        if self.then is not None and step == self.at and not self.on_advance:
            self.then()

    def advance(self, units: int) -> None:
        step = self.steps[-1][0]
        self.units[step] += units
        if self.then is not None and step == self.at and self.on_advance:
            self.then()

    def finish(self, seconds: float) -> None:
        self.finished.append(seconds)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def loose_export(tiny: Tiny, target: Path, **options: Any) -> ExportReport:
    settings = {"samples": tiny.samples, "thresholds": LOOSE, **options}
    return export(str(settings.pop("checkpoint", tiny.checkpoint("bert"))), target, **settings)
