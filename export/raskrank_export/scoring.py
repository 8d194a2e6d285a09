"""Logits as the engine will give them, of any backend and of a graph that is no bundle yet."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from raskrank import cpu
from raskrank.backend import Backend, Float32Array
from raskrank.encoding import EncodedPair
from raskrank.external import external_tensors
from raskrank.kernel_model import PREFIX
from raskrank.manifest import Encoder
from raskrank.native_backend import NativeBackend
from raskrank.network import Network
from raskrank.onnx_backend import OnnxBackend
from raskrank.running import Workers, run_pairs
from raskrank_export.progress import Progress

WORDS = f"{PREFIX}words/int8"  # (V, H / 64, 64)


def logits_of(backend: Backend, encoded: Sequence[EncodedPair], progress: Progress) -> Float32Array:
    """float32 (n): the logit of each pair, in order."""
    workers = Workers(backend.concurrency)
    try:
        return run_pairs(backend, workers, encoded, progress.advance)
    finally:
        workers.close()


def graph_backend(
    folder: Path, inputs: tuple[str, ...], *, concurrency: int, groups: bool, graph: bytes | None = None
) -> OnnxBackend:
    """The graph in `folder`, or another one on the weights that lie there. No run is spread over cores."""
    network = Network.read(folder, inputs, groups=groups)
    return OnnxBackend(network if graph is None else replace(network, graph=graph), concurrency)


def native_logits(
    folder: Path,
    inputs: tuple[str, ...],
    encoded: Sequence[EncodedPair],
    progress: Progress,
    encoder: Encoder,
) -> Float32Array:
    """float32 (n): the logits of the encoder in `folder` in our own kernels, which must be there."""
    network = Network.read(folder, inputs)
    vocabulary, groups, width = next(tensor.shape for tensor in external_tensors(network.graph) if tensor.name == WORDS)
    network = replace(network, hidden_size=groups * width, vocab_size=vocabulary, encoder=encoder)
    backend = NativeBackend(network, cpu.usable_cpus())
    try:
        return logits_of(backend, encoded, progress)
    finally:
        backend.close()


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
    backend = graph_backend(folder, inputs, concurrency=cpu.usable_cpus(), groups=groups, graph=graph)
    try:
        return logits_of(backend, encoded, progress)
    finally:
        backend.close()
