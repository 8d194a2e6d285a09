"""From 10 to 100,000 pairs in one call: cost of a token, and memory.

    python benchmarks/scale.py [--model nano|minilm|FOLDER] [--most 100000]

The texts are short ones of the same kind at every size. A call with 10 pairs is repeated, so that each size scores at least
1,000 pairs. Memory is what is resident after the call, without the texts that this script itself holds.
"""

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

import workloads
from models import HELP, bundle, plain_tokenizer
from raskrank import Reranker, cpu

SIZES = (10, 100, 1_000, 10_000, 100_000)
LEAST_PAIRS = 1_000
QUERY = "Hvor mange bor i Tromsø?"


def resident() -> int:
    """Bytes."""
    fields = Path("/proc/self/statm").read_text("ascii").split()
    return int(fields[1]) * 4096


def measure(reranker: Reranker, documents: Sequence[str]) -> float:
    """Seconds of a call, the best of three series."""
    repeats = max(1, LEAST_PAIRS // len(documents))
    best = float("inf")
    for _ in range(3 if len(documents) <= LEAST_PAIRS else 1):
        start = time.perf_counter()
        for _ in range(repeats):
            reranker.score(QUERY, documents)
        best = min(best, (time.perf_counter() - start) / repeats)
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="nano", help=HELP)
    parser.add_argument("--most", type=int, default=SIZES[-1], help="pairs (default: %(default)s)")
    arguments = parser.parse_args()
    sizes = [size for size in SIZES if size <= arguments.most]
    tokenizer = plain_tokenizer(arguments.model)
    sample = workloads.passages(1_000, "short")
    documents = [sample[number % len(sample)] for number in range(sizes[-1])]
    tokens = [len(tokenizer.encode(QUERY, document).ids) for document in sample]
    with Reranker.load(bundle(arguments.model, "int8")) as reranker:
        reranker.score(QUERY, sample)
        before = resident()
        print(f"{'pairs':>10}{'seconds':>12}{'pairs/s':>12}{'µs a token':>14}{'grown by MB':>14}")
        for size in sizes:
            seconds = measure(reranker, documents[:size])
            total = sum(tokens[number % len(tokens)] for number in range(size))
            grown = (resident() - before) / 1e6
            print(f"{size:10,}{seconds:12.3f}{size / seconds:12,.0f}{1e6 * seconds / total:14.2f}{grown:14.1f}", flush=True)
    print(f"\n{arguments.model}; {cpu.model_name()}, {cpu.usable_cpus()} cores, {', '.join(cpu.instruction_sets())}")


if __name__ == "__main__":
    main()
