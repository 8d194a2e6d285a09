"""What 4, 8 and 16 cores would give, and what a call loses on them beside the runs themselves.

    python -m benchmarks.studies.cores [--model minilm|bge|nano|FOLDER]

Each distinct run (pairs x tokens) of the plan is timed on one core. On paper, a core takes the next run when it is free, as the
engine's threads do, and the pairs are planned in parts of as many as the engine takes at once; a run that is spread counts as
if its cores shared it evenly. "Asleep" is the engine's own pool with a backend that sleeps as long as each run takes: what it
has more than the paper is what the pool costs, on as many threads as wanted, whatever this machine has. What both leave out:
tokenizing, which comes before the first run and is timed apart; and what cores cost each other (memory, clock, two threads on
one core), for which the machine's own peaks on one thread and on all are the measure. The call itself is timed on the cores of
this machine, to show how far off the rest is.
"""

import argparse
import heapq
import statistics
import time
from collections.abc import Sequence

import numpy as np

from benchmarks.harness import workloads
from benchmarks.harness.limits import measure_peaks
from benchmarks.harness.models import MODELS, bundle
from raskrank import Reranker, cpu
from raskrank.backend import Backend, Float32Array, Int64Array
from raskrank.bundle import open_bundle
from raskrank.encoding import EncodedPair
from raskrank.native_backend import NativeBackend, why_not
from raskrank.network import Network
from raskrank.onnx_backend import OnnxBackend
from raskrank.planning import Run
from raskrank.running import Workers, planned, run_pairs
from raskrank.scoring import CHUNK_PAIRS
from raskrank.tokenizer import load_encoder

CORES = (1, 2, 4, 8, 16)
PASSAGES = (1, 3, 10, 100, 1000)
REPEATS = 5


class Costs:
    """Seconds of a run on one core, measured when first asked for."""

    def __init__(self, backend: Backend, vocabulary: int) -> None:
        self._backend, self._vocabulary = backend, vocabulary
        self._known: dict[tuple[int, int], float] = {}

    def of(self, pairs: int, length: int) -> float:
        shape = pairs, length
        if shape not in self._known:
            ids = np.random.default_rng(length).integers(10, self._vocabulary, shape)
            self._known[shape] = statistics.median(self._time(ids) for _ in range(REPEATS))
        return self._known[shape]

    def of_run(self, run: Run) -> float:
        return self.of(len(run.indices), run.length) / run.threads

    def _time(self, ids: Int64Array) -> float:
        start = time.perf_counter()
        self._backend.logits(ids, np.zeros_like(ids))
        return time.perf_counter() - start


class Asleep:
    """A backend that takes as long as another and needs no core for it."""

    name = "asleep"

    def __init__(self, like: Backend, costs: Costs, concurrency: int) -> None:
        self.hidden_size, self.groups, self.min_share = like.hidden_size, like.groups, like.min_share
        self.concurrency, self._costs = concurrency, costs

    def logits(self, input_ids: Int64Array, token_type_ids: Int64Array, *, threads: int = 1) -> Float32Array:  # noqa: ARG002
        time.sleep(self._costs.of(*input_ids.shape) / threads)
        return np.zeros(len(input_ids), np.float32)

    def expect(self, helpers: int) -> None:
        pass

    def close(self) -> None:
        pass


def asleep(like: Backend, costs: Costs, parts: Sequence[Sequence[EncodedPair]], cores: int) -> float:
    """Seconds of the runs of all parts in the engine's pool, median of three."""
    backend, pool, seconds = Asleep(like, costs, cores), Workers(cores), []
    for _ in range(4):
        start = time.perf_counter()
        for part in parts:
            run_pairs(backend, pool, part)
        seconds.append(time.perf_counter() - start)
    pool.close()
    return statistics.median(seconds[1:])


def makespan(costs: Sequence[float], cores: int) -> float:
    """Seconds until the last core is done, when each takes the next of `costs` as soon as it is free."""
    free = [0.0] * cores
    for cost in costs:
        heapq.heappush(free, heapq.heappop(free) + cost)
    return max(free)


def measured(model: str, documents: list[str]) -> float:
    """Seconds of one call on all cores of this machine, median of three."""
    seconds = []
    with Reranker.load(bundle(model, "int8", "group")) as reranker:
        for _ in range(4):
            start = time.perf_counter()
            reranker.score(workloads.QUERY, documents)
            seconds.append(time.perf_counter() - start)
    return statistics.median(seconds[1:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="minilm", help=f"one of {', '.join(MODELS)}, or a checkpoint folder")
    model = parser.parse_args().model
    opened = open_bundle(bundle(model, "int8", "group"))
    manifest, here = opened.manifest, cpu.usable_cpus()
    backend: Backend = (OnnxBackend if why_not(manifest.encoder) else NativeBackend)(Network.of(opened), 1)
    encoder = load_encoder(opened.tokenizer, manifest.max_length, manifest.vocab_size, opened.folder, parallel=True)
    costs = Costs(backend, manifest.vocab_size)
    print(f"{model} int8 on {backend.name}, one query, mixed passages: ms on paper / asleep, and times as fast as one core\n")
    print(f"{'passages':>8}", *(f"{f'{cores} cores':>22}" for cores in CORES), f"{'tokenizing':>12}{f'call on {here}':>12}")
    for count in PASSAGES:
        documents = workloads.passages(count)
        pairs = [(workloads.QUERY, text) for text in documents]
        start = time.perf_counter()
        encoded = encoder.encode(pairs)
        tokenizing = time.perf_counter() - start
        parts = [encoded[start : start + CHUNK_PAIRS] for start in range(0, count, CHUNK_PAIRS)]
        cells, on_one = [], 0.0
        for cores in CORES:
            plans = [planned(backend, [len(pair.input_ids) for pair in part], cores) for part in parts]
            paper = sum(makespan([costs.of_run(run) for run in runs], cores) for runs in plans)
            slept = asleep(backend, costs, parts, cores)
            on_one = on_one or slept
            cells.append(f"{paper * 1e3:.0f} / {slept * 1e3:.0f} ({on_one / slept:.1f} x)")
        row = " ".join(f"{cell:>22}" for cell in cells)
        print(f"{count:8} {row}{tokenizing * 1e3:12.1f}{measured(model, documents) * 1e3:12.0f}", flush=True)
    print(f"\n{cpu.model_name()}, {', '.join(cpu.instruction_sets())}")
    one, all_threads = measure_peaks(1), measure_peaks(here)
    ratios = f"int8 {all_threads.int8 / one.int8:.1f}, fp32 {all_threads.fp32 / one.fp32:.1f}"
    print(f"the machine's own peaks on {here} threads, as many times those on one: {ratios}")


if __name__ == "__main__":
    main()
