"""Scores in any company: each has the bits of its pair alone, whatever it is scored with, in any order, on any number of
threads, by any method, and in a forked child.

python tests/attacks/invariance.py [--count N] [--seed S]

The embedded model scores pairs in random batches, in both backends where both run here. Exits with 1 if a score has other bits.
"""

import os
import random
import sys
import time
import traceback
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from attacking import count_and_seed
from attacks.texts import random_text
from builders import NORWEGIAN, SENTENCES
from raskrank import Reranker, kernels
from raskrank.options import BackendName

Pair = tuple[str, str]

THREADS = (1, 2, 3, 7)
LARGEST = 600  # pairs of a batch: more than one chunk
FORK_EVERY = 20  # of so many batches one is scored in a forked child
CACHE_BYTES = 1 << 16  # of one of the Rerankers, full after a few batches


class Company:
    """The pairs, what each scores alone, and Rerankers of one backend that must give the same."""

    def __init__(self, backend: BackendName, pairs: Sequence[Pair], stack: ExitStack) -> None:
        self.backend, self.pairs = backend, pairs
        self.rerankers = [stack.enter_context(Reranker.load(threads=threads, backend=backend)) for threads in THREADS]
        self.rerankers.append(stack.enter_context(Reranker.load(threads=2, backend=backend, cache_bytes=CACHE_BYTES)))
        self.alone = np.concatenate([self.rerankers[0].score_pairs([pair]) for pair in pairs])

    def wrong(self, places: list[int], dice: random.Random) -> int:
        """How many scores of a batch of these places have other bits than alone."""
        reranker, batch = dice.choice(self.rerankers), [self.pairs[place] for place in places]
        query, documents = batch[0][0], [document for _, document in batch]
        match dice.randrange(4):
            case 0:  # one query for all: compared with the pairs that have it
                found, same = reranker.score(query, documents), [pair[0] == query for pair in batch]
                return int(np.count_nonzero((found != self.alone[places])[same]))
            case 1:
                assessed = reranker.assess(batch)
                return int(np.count_nonzero(np.array([hit.score for hit in assessed], np.float32) != self.alone[places]))
            case _:
                return int(np.count_nonzero(reranker.score_pairs(batch) != self.alone[places]))

    def wrong_in_a_child(self, places: list[int]) -> int:
        """The same of a batch in a forked child, which loads a Reranker of its own; all of them if it does not end well."""
        reader, writer = os.pipe()
        if (child := os.fork()) == 0:
            code = 1
            try:
                with Reranker.load(threads=2, backend=self.backend) as reranker, os.fdopen(writer, "wb") as pipe:
                    pipe.write(reranker.score_pairs([self.pairs[place] for place in places]).tobytes())
                code = 0
            except BaseException:  # noqa: BLE001  a forked process ends here, whatever happens
                traceback.print_exc()
            finally:
                os._exit(code)
        os.close(writer)
        with os.fdopen(reader, "rb") as pipe:
            found = np.frombuffer(pipe.read(), np.float32)
        ended_well = os.waitpid(child, 0)[1] == 0 and len(found) == len(places)
        return int(np.count_nonzero(found != self.alone[places])) if ended_well else len(places)


def random_pairs(dice: random.Random, count: int) -> list[Pair]:
    """Hostile texts, plain ones, and crowds of one length, which share runs."""
    queries = [*NORWEGIAN[:4], "", random_text(dice)]
    pairs = list[Pair]()
    while len(pairs) < count:
        query, words = dice.choice(queries), dice.choice(SENTENCES).split()
        match dice.randrange(4):
            case 0:
                pairs.append((query, random_text(dice)))
            case 1:
                pairs.append((query, " ".join(dice.choices(SENTENCES, k=dice.randrange(6)))))
            case _:
                pairs += [(query, " ".join(dice.sample(words, len(words)))) for _ in range(8)]
    return pairs[:count]


def main() -> int:
    count, seed = count_and_seed(__doc__, 5000, "scores, at least")
    dice, start = random.Random(seed), time.monotonic()
    pairs = random_pairs(dice, max(10, min(2000, count // 20)))
    backends: tuple[BackendName, ...] = ("onnx",) if kernels.unavailable() else ("native", "onnx")
    scores = batches = children = wrong = 0
    with ExitStack() as stack:
        companies = [Company(backend, pairs, stack) for backend in backends]
        while scores < count:
            company, size = dice.choice(companies), min(len(pairs), int(LARGEST ** dice.random()))
            places = dice.choices(range(len(pairs)), k=size)  # some of them twice
            if batches % FORK_EVERY == 0:
                wrong += company.wrong_in_a_child(places)
                children += 1
            else:
                wrong += company.wrong(places, dice)
            scores, batches = scores + size, batches + 1
        spread = min(float(np.ptp(company.alone)) for company in companies)
    print(f"{scores:,} scores of {len(pairs):,} pairs, {spread:.2f} apart, in {batches:,} batches")
    print(f"{children} in forked children, else on {min(THREADS)} to {max(THREADS)} threads, {' and '.join(backends)}")
    print(f"{time.monotonic() - start:.0f} s: {wrong} with other bits than alone")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
