"""Logits as the engine will give them, of any backend and of a graph that is no bundle yet."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from raskrank import cpu
from raskrank.backend import Backend, Float32Array
from raskrank.checkpoint import Checkpoint
from raskrank.encoding import EncodedPair
from raskrank.gate import MIN_ROUNDING
from raskrank.manifest import MODEL
from raskrank.onnx_backend import OnnxBackend
from raskrank.running import Workers, run_pairs
from raskrank.torch_backend import TorchBackend
from raskrank_export.progress import Progress

ROUNDING_PAIRS = 32  # scored in float64, which takes twice as long as fp32


def logits_of(backend: Backend, encoded: Sequence[EncodedPair], progress: Progress) -> Float32Array:
    """float32 (n): the logit of each pair, in order."""
    workers = Workers(backend.concurrency)
    try:
        return run_pairs(backend, workers, encoded, progress.advance)
    finally:
        workers.close()


def rounding_pairs(encoded: Sequence[EncodedPair], differences: Float32Array) -> list[int]:
    """The pairs on which to measure what fp32 rounds, at most ROUNDING_PAIRS: half spread over all lengths, half where the
    ONNX graph differs most from PyTorch.

    differences: float32 (n), of their logits. Attention with outliers makes a few pairs round a hundred times worse than the
    others, in PyTorch as in ONNX; a wrong graph makes nothing round worse, so that it gains nothing by the choice.
    """
    by_length = sorted(range(len(encoded)), key=lambda index: len(encoded[index].input_ids))
    steps = min(ROUNDING_PAIRS // 2, len(by_length))
    spread = [by_length[step * (len(by_length) - 1) // max(steps - 1, 1)] for step in range(steps)]
    return list(dict.fromkeys([*spread, *np.argsort(-differences)[: ROUNDING_PAIRS // 2].tolist()]))


def fp32_rounding(checkpoint: Checkpoint, encoded: Sequence[EncodedPair], logits: Float32Array, progress: Progress) -> float:
    """How far PyTorch's fp32 logits, float32 (n), are from the same model in float64: the largest difference."""
    backend, exact = TorchBackend(checkpoint), np.zeros(len(encoded))
    try:
        backend.model.double()  # in place, tensor by tensor: never twice in memory
        for index, pair in enumerate(encoded):
            exact[index] = backend.logits(pair.input_ids[None], pair.token_type_ids[None])[0]
            progress.advance(1)
    finally:
        backend.close()
    return max(MIN_ROUNDING, float(np.abs(logits - exact).max(initial=0)))


def graph_logits(
    folder: Path,
    inputs: tuple[str, ...],
    encoded: Sequence[EncodedPair],
    progress: Progress,
    *,
    groups: bool = True,
    graph: bytes | None = None,
) -> Float32Array:
    """float32 (n): the logits of the graph in `folder`, or of another one on the weights that lie there."""
    # hidden_size 0: no run is spread over cores; there are pairs enough to keep them busy.
    graph = (folder / MODEL).read_bytes() if graph is None else graph
    backend = OnnxBackend(graph, folder, inputs, concurrency=cpu.usable_cpus(), hidden_size=0, groups=groups)
    try:
        return logits_of(backend, encoded, progress)
    finally:
        backend.close()
