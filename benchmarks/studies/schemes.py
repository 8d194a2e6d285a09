"""Schemes of int8 side by side: time of a run, what equal lengths gain by sharing one, and the error on the trained nano model.

    python -m benchmarks.studies.schemes [--model minilm|bge|nano|FOLDER]

One thread; every round runs each scheme once. A run of several pairs under "tensor" is timed for comparison only: there a
neighbour changes a score, so the engine never makes one.
"""

import argparse
import statistics
import time
from collections.abc import Mapping
from typing import get_args

import numpy as np

from benchmarks.harness.models import HELP, bundle
from raskrank import Reranker, cpu
from raskrank.bundle import open_bundle
from raskrank.network import Network
from raskrank.onnx_backend import OnnxBackend
from raskrank.planning import GROUP_TOKENS
from raskrank_export.quantization import ActivationScheme

SHAPES = ((1, 16), (16, 16), (1, 32), (8, 32), (1, 128), (2, 128), (1, 256), (1, 400))  # pairs, tokens
GROUPED = (16, 32, 64, 128)  # tokens
BUDGETS = (1, 64, 128, 256, 512)  # tokens of a run
SECONDS = 1.5  # for each scheme and shape, at least ROUNDS rounds
ROUNDS = 7


def backend(model: str, scheme: ActivationScheme | None) -> OnnxBackend:
    """scheme: None for fp32."""
    folder = bundle(model, "fp32") if scheme is None else bundle(model, "int8", scheme)
    return OnnxBackend(Network.of(open_bundle(folder)), 1)


def milliseconds(backends: Mapping[str, OnnxBackend], pairs: int, tokens: int) -> dict[str, float]:
    """Median of a run, by name; they take turns."""
    ids = np.random.default_rng(tokens).integers(1000, 4000, (pairs, tokens))
    types, seconds = np.zeros_like(ids), {name: list[float]() for name in backends}
    start, rounds = time.perf_counter(), 0
    while rounds <= ROUNDS or time.perf_counter() - start < SECONDS * len(backends):
        for name, candidate in backends.items():
            begin = time.perf_counter()
            candidate.logits(ids, types)
            seconds[name].append(time.perf_counter() - begin)
        rounds += 1
    return {name: 1e3 * statistics.median(times[1:]) for name, times in seconds.items()}


def compare_times(backends: Mapping[str, OnnxBackend]) -> None:
    print("median ms of a run, one thread\n")
    print(f"{'pairs x tokens':>16}", *(f"{name:>10}" for name in backends))
    for pairs, tokens in SHAPES:
        found = milliseconds(backends, pairs, tokens)
        print(f"{f'{pairs} x {tokens}':>16}", *(f"{found[name]:10.2f}" for name in backends), flush=True)


def compare_groups(backends: Mapping[str, OnnxBackend]) -> None:
    print(f"\nhow many times as fast as one run each, by tokens of a run (the engine's budget is {GROUP_TOKENS})\n")
    print(f"{'tokens of a pair':>16}{'':>10}", *(f"{budget:>8}" for budget in BUDGETS[1:]))
    for tokens in GROUPED:
        alone = milliseconds(backends, 1, tokens)
        sizes = {budget: budget // tokens for budget in BUDGETS if budget // tokens > 1}
        grouped = {budget: milliseconds(backends, size, tokens) for budget, size in sizes.items()}
        for name in backends:
            cells = [
                f"{alone[name] * sizes[budget] / grouped[budget][name]:8.2f}" if budget in sizes else f"{'':8}"
                for budget in BUDGETS[1:]
            ]
            print(f"{tokens:16}{name:>10}", *cells, flush=True)


def compare_errors() -> None:
    print("\nnano against PyTorch, on the exporter's samples\n")
    print(f"{'':>10}{'tau':>10}{'top-1':>10}{'max drift':>12}{'mean drift':>12}{'max logit':>12}{'mean logit':>12}")
    for name in get_args(ActivationScheme):
        parity = open_bundle(bundle("nano", "int8", name)).manifest.parity["int8"]
        print(
            f"{name:>10}{parity['tau']:10.4f}{parity['top1']:10.4f}{parity['max_drift']:12.4f}{parity['mean_drift']:12.4f}"
            f"{parity['max_logit_difference']:12.3f}{parity['mean_logit_difference']:12.3f}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="minilm", help=HELP)
    model = parser.parse_args().model
    versions = Reranker.load(backend="onnx").info().versions
    print(f"{model}; {cpu.model_name()}, {', '.join(cpu.instruction_sets())}; {versions}\n")
    backends = {"fp32": backend(model, None)} | {name: backend(model, name) for name in get_args(ActivationScheme)}
    compare_times(backends)
    compare_groups({name: candidate for name, candidate in backends.items() if name not in ("tensor", "group")})
    compare_errors()


if __name__ == "__main__":
    main()
