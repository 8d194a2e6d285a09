"""Where the time of one run in our own kernels goes: by stage, beside the machine's limit, and by instruction set.

    python -m benchmarks.studies.stages [--model minilm] [--tokens 128] [--pairs 1]

One thread. Times are those of the fastest tenth of the runs, as the peaks are: the machine is shared. Peaks are onnxruntime's
products on this CPU, whatever instruction set the kernels are told to use.
"""

import argparse
from functools import partial

import numpy as np

from benchmarks.harness import limits
from benchmarks.harness.limits import Dimensions, measure_peaks
from benchmarks.harness.models import HELP, bundle, checkpoint
from benchmarks.harness.results import undisturbed
from raskrank import cpu, kernels
from raskrank.bundle import open_bundle
from raskrank.kernels import STAGES, Kernels
from raskrank.measure.timing import interleaved
from raskrank.weights import weight_tensors

ROUNDS = 300
SECONDS = 5.0  # for as many of them as fit, of each instruction set
PRODUCTS = ("qkv", "output", "up", "down")


def load(model: str) -> dict[str, Kernels]:
    """The int8 bundle in every instruction set of this CPU, best first."""
    opened = open_bundle(bundle(model, "int8"))
    manifest, tensors = opened.manifest, weight_tensors(opened.graph, opened.folder, opened.weights)
    if manifest.encoder is None or not kernels.engines():
        raise SystemExit(f"the kernels cannot run {model} here: {kernels.unavailable() or 'it is no encoder that they know'}")
    arguments = manifest.encoder, manifest.hidden_size, manifest.vocab_size, tensors
    return {engine: Kernels(*arguments, engine=engine) for engine in kernels.engines()}


def measure(loaded: dict[str, Kernels], pairs: int, tokens: int) -> dict[str, tuple[float, dict[str, float]]]:
    """By instruction set: milliseconds of an undisturbed run, and of each stage of it. They take turns."""
    ids = np.random.default_rng(tokens).integers(1000, 4000, (pairs, tokens))
    ticks = {engine: np.zeros(len(STAGES), np.uint64) for engine in loaded}
    runs = {engine: partial(found.logits, ids, np.zeros_like(ids), 1, ticks[engine]) for engine, found in loaded.items()}
    timings = interleaved(runs, rounds=ROUNDS, budget_s=SECONDS * len(runs))
    result = {}
    for engine, timing in timings.items():
        run, shares = 1e3 * undisturbed(timing.seconds), ticks[engine] / ticks[engine].sum()
        result[engine] = run, {name: float(share) * run for name, share in zip(STAGES, shares, strict=True)}
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="minilm", help=HELP)
    parser.add_argument("--pairs", type=int, default=1)
    parser.add_argument("--tokens", type=int, default=128)
    arguments = parser.parse_args()
    model, pairs, tokens = arguments.model, arguments.pairs, arguments.tokens
    found = measure(load(model), pairs, tokens)
    peaks, dimensions = measure_peaks(1), Dimensions.read(checkpoint(model))
    products = pairs * limits.product_operations(dimensions, tokens) / peaks.int8 / 1e6
    attention = pairs * limits.attention_operations(dimensions, tokens) / peaks.fp32 / 1e6
    limit = products + attention
    print(f"{model}, {pairs} x {tokens} tokens, one thread; {cpu.model_name()}, {', '.join(cpu.instruction_sets())}")
    print(f"peaks: int8 {peaks.int8:.0f}, fp32 {peaks.fp32:.0f} billion operations a second\n")
    print(f"{'ms':<12}{'limit':>9}", *(f"{engine:>16}" for engine in found))
    for name in STAGES:
        bound = f"{attention:9.2f}" if name == "attention" else " " * 9
        print(f"{name:<12}{bound}", *(f"{stages[name]:9.2f}{stages[name] / run:7.0%}" for run, stages in found.values()))
    spent = [sum(stages[name] for name in PRODUCTS) for _, stages in found.values()]
    print(f"{'products':<12}{products:9.2f}", *(f"{ms:9.2f}{products / ms:7.0%}" for ms in spent), "of the limit")
    print(f"{'a run':<12}{limit:9.2f}", *(f"{run:9.2f}{limit / run:7.0%}" for run, _ in found.values()), "of the limit")


if __name__ == "__main__":
    main()
