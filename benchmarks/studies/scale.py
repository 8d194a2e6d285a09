"""From 10 to 100,000 pairs in one call: cost of a token, and memory.

    python -m benchmarks.studies.scale [--model nano|minilm|FOLDER] [--most 100000]

The texts are short ones of the same kind at every size. Calls are repeated until a size has scored 1,000 pairs, and at least
three times. Memory is what is resident after the call, without the texts that this script itself holds.
"""

import argparse
import os
import statistics
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.harness import workloads
from benchmarks.harness.models import HELP, bundle, plain_tokenizer
from raskrank import Reranker, cpu

SIZES = (10, 100, 1_000, 10_000, 100_000)
LEAST_PAIRS = 1_000
MIN_CALLS = 3
QUERY = "Hvor mange bor i Tromsø?"


def resident() -> int:
    """Bytes."""
    fields = Path("/proc/self/statm").read_text("ascii").split()
    return int(fields[1]) * os.sysconf("SC_PAGE_SIZE")


def measure(reranker: Reranker, documents: Sequence[str]) -> float:
    """Seconds of a call, the median of as many as score LEAST_PAIRS, at least MIN_CALLS."""
    seconds = []
    for _ in range(max(MIN_CALLS, LEAST_PAIRS // len(documents))):
        start = time.perf_counter()
        reranker.score(QUERY, documents)
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="nano", help=HELP)
    parser.add_argument("--most", type=int, default=SIZES[-1], help="pairs (default: %(default)s)")
    arguments = parser.parse_args()
    sizes = [size for size in SIZES if size <= arguments.most]
    tokenizer = plain_tokenizer(arguments.model)
    sample = workloads.passages(1_000, "short")
    documents = [f"{sample[number % len(sample)]} {number}" for number in range(sizes[-1])]  # none twice: it would cost nothing
    tokens = [len(tokenizer.encode(QUERY, document).ids) for document in documents]
    with Reranker.load(bundle(arguments.model, "int8")) as reranker:
        reranker.score(QUERY, sample)
        before = resident()
        print(f"{'pairs':>10}{'seconds':>12}{'pairs/s':>12}{'µs a token':>14}{'grown by MB':>14}")
        for size in sizes:
            seconds = measure(reranker, documents[:size])
            total = sum(tokens[:size])
            grown = (resident() - before) / 1e6
            print(f"{size:10,}{seconds:12.3f}{size / seconds:12,.0f}{1e6 * seconds / total:14.2f}{grown:14.1f}", flush=True)
    print(f"\n{arguments.model}; {cpu.model_name()}, {cpu.usable_cpus()} cores, {', '.join(cpu.instruction_sets())}")


if __name__ == "__main__":
    main()
