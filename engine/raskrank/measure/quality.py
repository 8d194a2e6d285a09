"""How good rankings are. A ranking is given as the grades of its documents, in the order that a model gave them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

DEPTH = 10  # ranks that count


@dataclass(frozen=True, kw_only=True)
class Quality:
    """Means over `queries` rankings, each in [0, 1]."""

    queries: int
    ndcg: float
    mrr: float
    top1: float


def quality(rankings: Sequence[Sequence[int]]) -> Quality:
    """Judge rankings, at least one. Each has the grades of all its documents, at least one of them above 0."""
    return Quality(
        queries=len(rankings),
        ndcg=fmean(ndcg(grades) for grades in rankings),
        mrr=fmean(reciprocal_rank(grades) for grades in rankings),
        top1=fmean(float(grades[0] > 0) for grades in rankings),
    )


def ndcg(grades: Sequence[int], depth: int = DEPTH) -> float:
    """Normalized discounted cumulative gain of the first `depth` ranks, in [0, 1]: 1 for the best order of these grades.

    The DCG, which is the sum of grade / log2(rank + 1), divided by the DCG of the same grades in falling order; 0 if no
    grade is above 0. (Järvelin & Kekäläinen, "Cumulated gain-based evaluation of IR techniques", ACM TOIS 20, 2002; the
    gain is the grade itself, the discount that of trec_eval.)
    """
    ideal = _dcg(sorted(grades, reverse=True)[:depth])
    return _dcg(grades[:depth]) / ideal if ideal else 0.0


def reciprocal_rank(grades: Sequence[int], depth: int = DEPTH) -> float:
    """1 / rank of the first document with a grade above 0; 0 if none of the first `depth` has one. Its mean is the MRR.

    (Voorhees, "The TREC-8 question answering track report", 1999.)
    """
    return next((1 / rank for rank, grade in enumerate(grades[:depth], 1) if grade > 0), 0.0)


def _dcg(grades: Sequence[int]) -> float:
    return sum(grade / math.log2(rank + 1) for rank, grade in enumerate(grades, 1))
