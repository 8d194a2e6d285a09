"""What 4, 8 and 16 cores would give, on paper: the plan's runs with their measured times, handed out longest first.

    python -m benchmarks.studies.cores [--model minilm|bge|nano|FOLDER]

Each distinct run (pairs x tokens) of the plan is timed on one core. A simulated core takes the next run when it is free, as
the engine's threads do, and the pairs are planned in parts of as many as the engine takes at once. Left out are tokenizing,
what cores cost each other (memory bandwidth, clock), and that a long run is spread over cores that would be idle: it counts as
on one. The times for the cores of this machine are measured too, to show how far off the paper is.
"""

import argparse
import heapq
import statistics
import time
from collections.abc import Sequence

import numpy as np

from benchmarks.harness import workloads
from benchmarks.harness.models import MODELS, bundle
from raskrank import Reranker, cpu
from raskrank.bundle import open_bundle
from raskrank.onnx_backend import OnnxBackend
from raskrank.planning import Run
from raskrank.reranker import CHUNK_PAIRS
from raskrank.running import planned
from raskrank.tokenizer import load_encoder

CORES = (1, 2, 4, 8, 16)
PASSAGES = (1, 3, 10, 100, 1000)
REPEATS = 5


class Costs:
    """Seconds of a run on one core, measured when first asked for."""

    def __init__(self, backend: OnnxBackend, vocabulary: int) -> None:
        self._backend, self._vocabulary = backend, vocabulary
        self._known: dict[tuple[int, int], float] = {}

    def of(self, run: Run) -> float:
        shape = len(run.indices), run.length
        if shape not in self._known:
            ids = np.random.default_rng(run.length).integers(10, self._vocabulary, shape)
            self._known[shape] = statistics.median(self._time(ids) for _ in range(REPEATS))
        return self._known[shape]

    def _time(self, ids: "np.typing.NDArray[np.int64]") -> float:
        start = time.perf_counter()
        self._backend.logits(ids, np.zeros_like(ids))
        return time.perf_counter() - start


def makespan(costs: Sequence[float], cores: int) -> float:
    """Seconds until the last core is done, when each takes the next of `costs` as soon as it is free."""
    free = [0.0] * cores
    for cost in costs:
        heapq.heappush(free, heapq.heappop(free) + cost)
    return max(free)


def measured(model: str, documents: list[str]) -> float:
    """Seconds of one call on all cores of this machine, median of three."""
    seconds = []
    with Reranker.load(bundle(model, "int8")) as reranker:
        for _ in range(4):
            start = time.perf_counter()
            reranker.score(workloads.QUERY, documents)
            seconds.append(time.perf_counter() - start)
    return statistics.median(seconds[1:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="minilm", help=f"one of {', '.join(MODELS)}, or a checkpoint folder")
    model = parser.parse_args().model
    opened = open_bundle(bundle(model, "int8"))
    manifest, here = opened.manifest, cpu.usable_cpus()
    backend = OnnxBackend.of_bundle(opened, 1)
    encoder = load_encoder(opened.tokenizer, manifest.max_length, manifest.vocab_size, opened.folder, parallel=True)
    costs = Costs(backend, manifest.vocab_size)
    print(f"{model} int8, one query, mixed passages: ms on paper, and times as fast as one core\n")
    print(f"{'passages':>8}", *(f"{f'{cores} cores':>16}" for cores in CORES), f"{f'measured on {here}':>16}")
    for count in PASSAGES:
        documents = workloads.passages(count)
        lengths = [len(pair.input_ids) for pair in encoder.encode([(workloads.QUERY, text) for text in documents])]
        parts = [lengths[start : start + CHUNK_PAIRS] for start in range(0, count, CHUNK_PAIRS)]
        on_paper = [
            sum(makespan([costs.of(run) for run in planned(backend, part, cores)], cores) for part in parts) for cores in CORES
        ]
        cells = [f"{seconds * 1e3:.0f} ({on_paper[0] / seconds:.1f} x)" for seconds in on_paper]
        print(f"{count:8}", *(f"{cell:>16}" for cell in cells), f"{measured(model, documents) * 1e3:16.0f}", flush=True)
    print(f"\n{cpu.model_name()}, {', '.join(cpu.instruction_sets())}")


if __name__ == "__main__":
    main()
