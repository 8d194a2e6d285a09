"""The measurements behind choices in the engine and the exporter: docs/performance.md is made from what this prints.

    python benchmarks/choices.py [--model minilm]

1. One pair: one core, or the run spread over all cores. Same bits?
2. int8 for any CPU, and for CPUs that add in 32 bits: error on the trained nano model.
3. Matrix products of this machine in fp32 and int8: what limits.py takes the peaks from.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from limits import SHAPES, matrix_rate
from models import HELP, bundle, checkpoint
from raskrank import Reranker, cpu
from raskrank.bundle import open_bundle
from raskrank.onnx_backend import OnnxBackend
from raskrank_export import Thresholds, export

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


def compare_runs(model: str) -> None:
    opened = open_bundle(bundle(model, "int8"))
    manifest, cores = opened.manifest, cpu.usable_cpus()
    backend = OnnxBackend(
        opened.graph, opened.folder, manifest.inputs, concurrency=cores, hidden_size=manifest.hidden_size, groups=False
    )
    print(f"{model} int8, one pair, median ms\n")
    print(f"{'tokens':>8}{'one core':>12}{f'{cores} cores':>12}{'same bits':>12}{'tokens * hidden_size ** 2':>28}")
    for length in LENGTHS:
        ids = np.random.default_rng(length).integers(10, manifest.vocab_size, (1, length))
        types = np.zeros_like(ids)
        backend.logits(ids, types, spread=True)  # from the second on it is spread
        same = backend.logits(ids, types).tobytes() == backend.logits(ids, types, spread=True).tobytes()
        one, spread = interleaved(
            [
                lambda ids=ids, types=types: backend.logits(ids, types),  # type: ignore[misc]
                lambda ids=ids, types=types: backend.logits(ids, types, spread=True),  # type: ignore[misc]
            ],
            rounds=max(15, 2000 // length),
        )
        work = length * manifest.hidden_size**2
        print(f"{length:8}{one:12.2f}{spread:12.2f}{'yes' if same else 'NO':>12}{work:28,}")


def compare_peaks() -> None:
    print("\nmatrix products through onnxruntime, billions of operations a second\n")
    print(f"{'shape':>20}{'fp32, 1 thread':>18}{'all cores':>12}{'int8, 1 thread':>18}{'all cores':>12}")
    for shape in SHAPES:
        rates = [
            matrix_rate(*shape, int8=int8, threads=threads) for int8 in (False, True) for threads in (1, cpu.usable_cpus())
        ]
        print(f"{'x'.join(map(str, shape)):>20}{rates[0]:18.0f}{rates[1]:12.0f}{rates[2]:18.0f}{rates[3]:12.0f}")


def compare_targets() -> None:
    loose = Thresholds(min_tau=-1, min_top1=0, max_drift=1, max_mean_drift=1)
    sets = cpu.instruction_sets()
    print("\nnano, int8 for each kind of CPU that this one is, against PyTorch on the exporter's samples\n")
    print(f"{'target':>10}{'tau':>10}{'top-1':>10}{'max drift':>12}{'mean drift':>12}{'max logit':>12}{'mean logit':>12}")
    for target in (target for target in cpu.TARGETS if cpu.suits(target, sets)):
        with tempfile.TemporaryDirectory() as folder:
            parity = export(str(checkpoint("nano")), Path(folder) / "bundle", target=target, thresholds=loose).parity
        print(
            f"{target:>10}{parity.tau:10.4f}{parity.top1:10.4f}{parity.max_drift:12.4f}{parity.mean_drift:12.4f}"
            f"{parity.max_logit_difference:12.3f}{parity.mean_logit_difference:12.3f}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="minilm", help=HELP)
    arguments = parser.parse_args()
    print(f"{cpu.model_name()}, {cpu.usable_cpus()} cores, {', '.join(cpu.instruction_sets())}")
    print(f"{Reranker.load().info().versions}\n")
    for model in (arguments.model, "nano"):
        compare_runs(model)
        print()
    compare_targets()
    compare_peaks()


if __name__ == "__main__":
    main()
