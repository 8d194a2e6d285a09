"""Where the time of one pair goes, at once after another and after a pause in which the machine did other work.

    python -m benchmarks.studies.pair [--model minilm] [--pause 0.02]

In the pause every core writes 64 MB, so that caches are as cold as a process among others finds them, and then sleeps. Each row
is the median of 60 calls: the whole of `Reranker.score`; tokenizing; the model's run on all cores and on one.
"""

import argparse
import statistics
import threading
import time
from collections.abc import Callable

import numpy as np

from benchmarks.harness import workloads
from benchmarks.harness.models import HELP, bundle, plain_tokenizer
from raskrank import Reranker, cpu
from raskrank.backend import Backend
from raskrank.bundle import open_bundle
from raskrank.native_backend import NativeBackend, why_not
from raskrank.network import Network
from raskrank.onnx_backend import OnnxBackend
from raskrank.tokenizer import load_encoder

CALLS = 60
FLOATS = 8_000_000  # that a core writes in a pause


def median(call: Callable[[], object], pause: Callable[[], None]) -> float:
    """Milliseconds of a call."""
    seconds = []
    for _ in range(CALLS):
        pause()
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return 1e3 * statistics.median(seconds)


def other_work(cores: int, pause: float) -> Callable[[], None]:
    arrays = [np.zeros(FLOATS) for _ in range(cores)]

    def work() -> None:
        threads = [threading.Thread(target=lambda array=array: np.add(array, 1, out=array)) for array in arrays]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        time.sleep(pause)

    return work


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="minilm", help=HELP)
    parser.add_argument("--pause", type=float, default=0.02, help="seconds of sleep")
    arguments = parser.parse_args()
    folder, cores = bundle(arguments.model, "int8"), cpu.usable_cpus()
    opened = open_bundle(folder)
    manifest = opened.manifest
    backend: Backend = (OnnxBackend if why_not(manifest.encoder) else NativeBackend)(Network.of(opened), cores)
    encoder = load_encoder(opened.tokenizer, manifest.max_length, manifest.vocab_size, folder, parallel=True)
    (workload,) = (workload for workload in workloads.WORKLOADS if workload.name == workloads.PAIR)
    query, documents = workloads.texts(workload, plain_tokenizer(arguments.model))
    pairs = [(query, document) for document in documents]
    ids, types = (array[None] for array in encoder.encode(pairs)[0][:2])
    pauses = {"at once": lambda: None, "after a pause": other_work(cores, arguments.pause)}
    with Reranker.load(folder) as reranker:
        calls: dict[str, Callable[[], object]] = {
            "score": lambda: reranker.score(query, documents),
            "tokenizing": lambda: encoder.encode(pairs),
            f"the run, {cores} threads": lambda: backend.logits(ids, types, threads=cores),
            "the run, 1 thread": lambda: backend.logits(ids, types),
        }
        print(f"{arguments.model}, a pair of {ids.size} tokens on {backend.name}; {cpu.model_name()}\n")
        print(f"{'ms':<20}", *(f"{name:>14}" for name in pauses))
        for name, call in calls.items():
            print(f"{name:<20}", *(f"{median(call, pause):14.2f}" for pause in pauses.values()), flush=True)


if __name__ == "__main__":
    main()
