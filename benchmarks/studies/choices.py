"""The measurements behind choices in the engine and the exporter: docs/notebook.md is made from what this prints.

    python -m benchmarks.studies.choices [--model minilm]

1. One pair: one core, or the run spread over all cores, with threads that sleep or spin between runs. Same bits?
2. int8 of scheme "row" for any CPU, and for CPUs that add in 32 bits: error on the trained nano model.
3. Matrix products of this machine in fp32 and int8: what benchmarks/harness/limits.py takes the peaks from.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.harness.limits import SHAPES, matrix_rate
from benchmarks.harness.models import HELP, LOOSE, bundle, checkpoint
from raskrank import Reranker, cpu
from raskrank.backend import INPUT_IDS
from raskrank.bundle import open_bundle
from raskrank.network import Network
from raskrank.onnx_backend import OnnxBackend, make_session, session_options
from raskrank_export import export

LENGTHS = (16, 32, 64, 128, 256, 512)
PAUSE = 0.02  # seconds: longer than threads spin


def compare_runs(model: str) -> None:
    opened = open_bundle(bundle(model, "int8"))
    manifest, cores = opened.manifest, cpu.usable_cpus()
    backend = OnnxBackend(Network.of(opened), cores)
    options = session_options(opened.folder, threads=cores)
    options.add_session_config_entry("session.intra_op.allow_spinning", "1")
    spinning = make_session(opened.graph, options)
    print(f"{model} int8, one pair, median ms, {1e3 * PAUSE:.0f} ms between runs\n")
    headers = f"{'one core':>12}{f'{cores} cores':>12}{'spinning':>12}{'same bits':>12}"
    print(f"{'tokens':>8}{headers}{'tokens * hidden_size ** 2':>28}")
    for length in LENGTHS:
        ids = np.random.default_rng(length).integers(10, manifest.vocab_size, (1, length))
        types = np.zeros_like(ids)
        feeds = {name: ids if name == INPUT_IDS else types for name in manifest.inputs}
        backend.logits(ids, types, threads=cores)  # from the second on it is spread
        same = backend.logits(ids, types).tobytes() == backend.logits(ids, types, threads=cores).tobytes()
        runs = [partial(backend.logits, ids, types), partial(backend.logits, ids, types, threads=cores)]
        times = paused([*runs, partial(spinning.run, None, feeds)], rounds=max(15, 2000 // length))
        cells = "".join(f"{milliseconds:12.2f}" for milliseconds in times)
        print(f"{length:8}{cells}{'yes' if same else 'NO':>12}{length * manifest.hidden_size**2:28,}", flush=True)


def paused(functions: list[Callable[[], object]], rounds: int) -> list[float]:
    """Median milliseconds of each function; they take turns, with a pause before each, as between requests."""
    seconds: list[list[float]] = [[] for _ in functions]
    for number in range(rounds + 2):
        for row, function in zip(seconds, functions, strict=True):
            time.sleep(PAUSE)
            start = time.perf_counter()
            function()
            if number > 1:
                row.append(time.perf_counter() - start)
    return [1e3 * statistics.median(row) for row in seconds]


def compare_peaks() -> None:
    print("\nmatrix products through onnxruntime, billions of operations a second\n")
    print(f"{'shape':>20}{'fp32, 1 thread':>18}{'all cores':>12}{'int8, 1 thread':>18}{'all cores':>12}")
    for shape in SHAPES:
        rates = [
            matrix_rate(*shape, int8=int8, threads=threads) for int8 in (False, True) for threads in (1, cpu.usable_cpus())
        ]
        print(f"{'x'.join(map(str, shape)):>20}{rates[0]:18.0f}{rates[1]:12.0f}{rates[2]:18.0f}{rates[3]:12.0f}")


def compare_targets() -> None:
    sets = cpu.instruction_sets()
    print("\nnano, int8 in rows for each kind of CPU that this one is, against PyTorch on the exporter's samples\n")
    print(f"{'target':>10}{'tau':>10}{'top-1':>10}{'max drift':>12}{'mean drift':>12}{'max logit':>12}{'mean logit':>12}")
    for target in (target for target in cpu.TARGETS if cpu.suits(target, sets)):
        with tempfile.TemporaryDirectory() as folder:
            made = export(str(checkpoint("nano")), Path(folder) / "bundle", target=target, scheme="row", thresholds=LOOSE)
        parity = made.parity
        print(
            f"{target:>10}{parity.tau:10.4f}{parity.top1:10.4f}{parity.max_drift:12.4f}{parity.mean_drift:12.4f}"
            f"{parity.max_logit_difference:12.3f}{parity.mean_logit_difference:12.3f}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="minilm", help=HELP)
    arguments = parser.parse_args()
    print(f"{cpu.model_name()}, {cpu.usable_cpus()} cores, {', '.join(cpu.instruction_sets())}")
    print(f"{Reranker.load(backend='onnx').info().versions}\n")
    for model in (arguments.model, "nano"):
        compare_runs(model)
        print()
    compare_targets()
    compare_peaks()


if __name__ == "__main__":
    main()
