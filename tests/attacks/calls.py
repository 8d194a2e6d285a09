"""Many calls and many loads in one process: scores stay what they are, and memory stays flat.

python tests/attacks/calls.py --calls 20000 --loads 900
"""

import argparse
import random
import sys
from pathlib import Path

from raskrank import Reranker

WORDS = ("båt", "sjø", "søknad", "Python", "nurse", "🙂", "år", "in", "a", "town", "ærlig", "1 234,5")
STATM = Path("/proc/self/statm")
PAGE_KIB = 4
WARM = 5  # the first part of so many of a run fills caches, and is not counted
# MiB. The allocator's fragments come and go by a few; a leak of a kilobyte a call would be 16 in 20,000 calls.
ALLOWED = 12.0


def resident() -> float:
    """MiB of this process in memory."""
    return int(STATM.read_text("ascii").split()[1]) * PAGE_KIB / 1024


def calls(count: int, seed: int) -> tuple[float, int]:
    """Growth in MiB, and the pairs that were scored, over calls with lists of any length and texts of any length."""
    seeded, pairs, before = random.Random(seed), 0, 0.0
    with Reranker.load() as reranker:
        expected = reranker.score("by", ["en båt"]).tobytes()
        for number in range(count):
            if number == count // WARM:
                before = resident()
            texts = [" ".join(seeded.choices(WORDS, k=seeded.randint(0, 60))) for _ in range(seeded.randint(1, 6))]
            scores = reranker.score("by", [*texts, "en båt"])
            assert scores[-1:].tobytes() == expected, f"call {number}: another score beside other texts"
            pairs += len(scores)
        return resident() - before, pairs


def loads(count: int) -> float:
    """Growth in MiB over loads, each with a score and a close."""
    expected, before = b"", 0.0
    for number in range(count):
        if number == count // WARM:
            before = resident()
        with Reranker.load() as reranker:
            found = reranker.score("by", ["en båt"]).tobytes()
        assert found == (expected or found), f"load {number}: another score"
        expected = found
    return resident() - before


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=2000)
    parser.add_argument("--loads", type=int, default=50)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    if not STATM.exists():
        print("memory is measured on Linux alone")
        return 0
    grown, pairs = calls(arguments.calls, arguments.seed)
    print(f"{arguments.calls} calls of {pairs} pairs: {grown:+.1f} MiB after the first of {WARM} parts")
    more = loads(arguments.loads)
    print(f"{arguments.loads} loads: {more:+.1f} MiB after the first of {WARM} parts")
    return 1 if max(grown, more) > ALLOWED else 0


if __name__ == "__main__":
    sys.exit(main())
