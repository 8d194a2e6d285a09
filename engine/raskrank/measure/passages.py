"""What `raskrank bench` scores: few and many passages, short and long, of a user's texts or made from our samples."""

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain

from raskrank.samples import read_samples

QUERY = "Hvem har erfaring fra intensivavdeling?"
FEW = 10
SEED = 20261124
SHORT_WORDS = (2, 8)
MIXED_WORDS = (5, 300)  # bounds of a log-normal distribution whose median is about 75 words
LONG_WORDS = 400  # 512 tokens or more for most tokenizers, and most models read no more


@dataclass(frozen=True, kw_only=True)
class Workload:
    """Passages to score for one query, at least one."""

    kind: str  # "" for a user's texts; for ours how long they are: "short", "mixed" or "long"
    passages: tuple[str, ...]
    share: int  # of the benchmark's time, in proportion to the shares of the other workloads

    @property
    def name(self) -> str:
        return f"{len(self.passages)} {self.kind}".rstrip()

    def sample(self, count: int) -> "Workload":
        """`count` of the passages, in their order, or all if there are fewer. Their lengths are spread as those of all are."""
        total = len(self.passages)
        count = min(count, total)
        by_length = sorted(range(total), key=lambda index: len(self.passages[index]))
        # By length, the middle one of each of `count` equal parts.
        chosen = sorted(by_length[(2 * part + 1) * total // (2 * count)] for part in range(count))
        return replace(self, passages=tuple(self.passages[index] for index in chosen))


def from_texts(texts: Sequence[str], most: int) -> list[Workload]:
    """Workloads of 1, 10 and `most` of a user's texts, in this order; of fewer where there are fewer, none twice."""
    return _counts("", texts, most)


def from_samples(most: int) -> list[Workload]:
    """Workloads of 1, 10 and `most` passages of mixed length, then of `most` short and `most` long ones.

    The same on every machine. A passage is a few documents of our samples in a row, cut to a number of words.
    """
    words = [document.split() for sample in read_samples() for document in sample.documents]
    rng = random.Random(SEED)
    mixed = _joined(words, rng, [_mixed(rng) for _ in range(most)])
    short = _joined(words, rng, [rng.randint(*SHORT_WORDS) for _ in range(most)])
    long = _joined(words, rng, [LONG_WORDS] * most)
    return [
        *_counts("mixed", mixed, most),
        Workload(kind="short", passages=short, share=1),
        Workload(kind="long", passages=long, share=1),
    ]


def _counts(kind: str, passages: Sequence[str], most: int) -> list[Workload]:
    largest = min(most, len(passages))
    counts = sorted({1, min(FEW, largest), largest})
    return [Workload(kind=kind, passages=tuple(passages), share=2**step).sample(count) for step, count in enumerate(counts)]


def _mixed(rng: random.Random) -> int:
    low, high = MIXED_WORDS
    return min(high, max(low, round(rng.lognormvariate(4.3, 0.6))))


def _joined(documents: Sequence[list[str]], rng: random.Random, lengths: Sequence[int]) -> tuple[str, ...]:
    """A passage for each length, in words, none twice. Each begins where a document does, if that makes another passage."""
    passages: dict[str, None] = {}
    for length in lengths:
        start, skipped = rng.randrange(len(documents)), 0
        words = list(chain.from_iterable(chain(documents[start:], documents[:start])))
        while (passage := " ".join(words[skipped : skipped + length])) in passages:
            skipped += 1
        passages[passage] = None
    return tuple(passages)
