"""What fp32 itself rounds in a checkpoint's logits: PyTorch in fp32 against the same weights in float64."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from raskrank.backend import Float32Array
from raskrank.checkpoint import Checkpoint
from raskrank.encoding import EncodedPair
from raskrank.gate import MIN_ROUNDING
from raskrank.torch_backend import TorchBackend
from raskrank_export.padded import padded_logits
from raskrank_export.progress import Progress

if TYPE_CHECKING:
    from torch.nn import Module

PAIRS = 16  # each takes several times as long as in fp32
# Of a run, pairs times squared tokens: 8 pairs of 512 tokens. Their attention in float64 is 0.3 GB in a model of 16 heads.
MAX_ATTENTION = 8 * 512**2


def rounding_pairs(encoded: Sequence[EncodedPair], differences: Float32Array) -> list[int]:
    """The pairs to measure on, at most PAIRS: half spread over all lengths, half where ONNX differs most from PyTorch.

    differences: float32 (n), of their logits. Attention with outliers makes a few pairs round a hundred times worse than the
    others, in PyTorch as in ONNX; a wrong graph makes nothing round worse, so that it gains nothing by the choice.
    """
    by_length = sorted(range(len(encoded)), key=lambda index: len(encoded[index].input_ids))
    steps = min(PAIRS // 2, len(by_length))
    spread = [by_length[step * (len(by_length) - 1) // max(steps - 1, 1)] for step in range(steps)]
    return list(dict.fromkeys([*spread, *np.argsort(-differences)[: PAIRS // 2].tolist()]))


def fp32_rounding(checkpoint: Checkpoint, encoded: Sequence[EncodedPair], logits: Float32Array, progress: Progress) -> float:
    """The largest difference of PyTorch's fp32 logits, float32 (n), from those in float64."""
    backend, exact = TorchBackend(checkpoint, attention="eager"), np.zeros(len(encoded))
    try:
        with _in_float64(backend.model):
            for run in _runs([len(pair.input_ids) for pair in encoded]):
                exact[run] = padded_logits(backend.model, checkpoint, [encoded[index] for index in run])
                progress.advance(len(run))
    finally:
        backend.close()
    return max(MIN_ROUNDING, float(np.abs(logits - exact).max(initial=0)))


def _runs(lengths: Sequence[int]) -> list[list[int]]:
    """Pairs by length, as many a run as fit: a large model's weights take longer to convert than a pair takes to score."""
    runs: list[list[int]] = []
    for index in sorted(range(len(lengths)), key=lengths.__getitem__):
        if not runs or (len(runs[-1]) + 1) * lengths[index] ** 2 > MAX_ATTENTION:
            runs.append([])
        runs[-1].append(index)
    return runs


@contextmanager
def _in_float64(model: "Module") -> Iterator[None]:
    """Let the model compute in float64, its weights one layer at a time: all of them at once would be twice the model.

    An embedding's rows are converted as they are looked up; every other layer's weights while it runs.
    """
    from torch import is_floating_point
    from torch.nn import Embedding

    kept: dict[Any, Any] = {}

    def widen(layer: "Module", inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        for weight in layer.parameters(recurse=False):
            kept[weight], weight.data = weight.data, weight.data.double()
        # DeBERTa normalizes an embedding's weights themselves, which no lookup has converted.
        return tuple(value.double() if is_floating_point(value) else value for value in inputs)

    def narrow(layer: "Module", _: object, output: Any) -> None:  # noqa: ARG001
        for weight in layer.parameters(recurse=False):
            weight.data = kept.pop(weight)

    hooks = []
    for layer in model.modules():
        if isinstance(layer, Embedding):
            hooks.append(layer.register_forward_hook(lambda _, __, output: output.double()))
        elif next(layer.parameters(recurse=False), None) is not None:
            hooks += [layer.register_forward_pre_hook(widen), layer.register_forward_hook(narrow)]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
