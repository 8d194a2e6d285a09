"""The measurements behind choices in the engine and the exporter: docs/performance.md is made from what this prints.

    python benchmarks/choices.py [--model minilm]

1. One pair: one core, or the run spread over all cores. Same bits?
2. onnxruntime's SkipLayerNormFusion on and off.
3. 7-bit and 8-bit weights: error on the trained nano model, on this CPU.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from models import MODELS, bundle, checkpoint
from raskrank import Reranker, cpu, onnx_backend
from raskrank.bundle import open_bundle
from raskrank.onnx_backend import OnnxBackend
from raskrank_export import Thresholds, export, quantize

LENGTHS = (8, 16, 32, 64, 128, 256, 512)


def interleaved(functions: list[Callable[[], object]], rounds: int) -> list[float]:
    """Median milliseconds of each function, called in turn."""
    times: list[list[float]] = [[] for _ in functions]
    for number in range(rounds + 2):
        for row, function in zip(times, functions, strict=True):
            start = time.perf_counter()
            function()
            if number > 1:
                row.append(time.perf_counter() - start)
    return [statistics.median(row) * 1e3 for row in times]


def backend(model: str, *, disabled: list[str]) -> OnnxBackend:
    opened = open_bundle(bundle(model, "int8"))
    original, onnx_backend.DISABLED_OPTIMIZERS = onnx_backend.DISABLED_OPTIMIZERS, disabled
    try:
        manifest = opened.manifest
        return OnnxBackend(
            opened.graph, opened.folder, manifest.inputs, concurrency=cpu.usable_cpus(), hidden_size=manifest.hidden_size
        )
    finally:
        onnx_backend.DISABLED_OPTIMIZERS = original


def compare_runs(model: str) -> None:
    apart = backend(model, disabled=onnx_backend.DISABLED_OPTIMIZERS)
    fused = backend(model, disabled=[])
    vocabulary = open_bundle(bundle(model, "int8")).manifest.vocab_size
    print(f"{model} int8, one pair, median ms\n")
    print(f"{'tokens':>8}{'one core':>12}{'spread':>12}{'same bits':>12}{'one core, SkipLayerNormFusion':>32}")
    for length in LENGTHS:
        ids = np.random.default_rng(length).integers(10, vocabulary, (1, length))
        types = np.zeros_like(ids)
        same = apart.logits(ids, types).tobytes() == apart.logits(ids, types, spread=True).tobytes()
        one, spread, skip = interleaved(
            [
                lambda ids=ids, types=types: apart.logits(ids, types),  # type: ignore[misc]
                lambda ids=ids, types=types: apart.logits(ids, types, spread=True),  # type: ignore[misc]
                lambda ids=ids, types=types: fused.logits(ids, types),  # type: ignore[misc]
            ],
            rounds=max(15, 2000 // length),
        )
        print(f"{length:8}{one:12.2f}{spread:12.2f}{'yes' if same else 'NO':>12}{skip:32.2f}")


def compare_weight_bits() -> None:
    loose = Thresholds(min_tau=-1, min_top1=0, max_drift=1, max_mean_drift=1)
    print("\nnano, weights of the products, against PyTorch on the exporter's samples\n")
    print(f"{'bits':>8}{'tau':>10}{'top-1':>10}{'max drift':>12}{'mean drift':>12}{'max logit':>12}{'mean logit':>12}")
    original = quantize.WEIGHT_MAX
    for bits, limit in ((7, 64), (8, 127)):
        quantize.WEIGHT_MAX = limit
        with tempfile.TemporaryDirectory() as folder:
            parity = export(str(checkpoint("nano")), Path(folder) / "bundle", thresholds=loose).parity
        print(
            f"{bits:8}{parity.tau:10.4f}{parity.top1:10.4f}{parity.max_drift:12.4f}{parity.mean_drift:12.4f}"
            f"{parity.max_logit_difference:12.3f}{parity.mean_logit_difference:12.3f}"
        )
    quantize.WEIGHT_MAX = original


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="minilm", help=f"one of {', '.join(MODELS)}, or a checkpoint folder")
    arguments = parser.parse_args()
    print(f"{cpu.model_name()}, {cpu.usable_cpus()} cores, {', '.join(cpu.instruction_sets())}")
    print(f"{Reranker.load().info().versions}\n")
    for model in (arguments.model, "nano"):
        compare_runs(model)
        print()
    compare_weight_bits()


if __name__ == "__main__":
    main()
