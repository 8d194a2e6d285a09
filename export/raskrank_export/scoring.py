"""Logits as the engine will give them, of any backend and of a graph that is no bundle yet."""

from collections.abc import Sequence
from pathlib import Path

from raskrank import cpu
from raskrank.backend import Backend, Float32Array
from raskrank.encoding import EncodedPair
from raskrank.manifest import MODEL
from raskrank.onnx_backend import OnnxBackend
from raskrank.running import Workers, run_pairs
from raskrank_export.progress import Progress


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
    """The graph in `folder`, or another one on the weights that lie there. No run is spread over cores: hidden_size is 0."""
    graph = (folder / MODEL).read_bytes() if graph is None else graph
    return OnnxBackend(graph, folder, inputs, concurrency=concurrency, hidden_size=0, groups=groups)


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
