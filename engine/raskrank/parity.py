"""Two backends side by side on the same pairs: how far apart the numbers are, and whether the order is the same."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from raskrank.activation import sigmoid
from raskrank.backend import Float32Array

# Which of the samples: all, or where a repair of int8 was chosen on them, that half or the other.
Part = Literal["all", "chosen on", "held back"]
_PARTS: Mapping[Part, str] = {"all": "", "chosen on": ", chosen on them", "held back": ", not chosen on them"}
NO_ORDER = "no query has two documents with different scores: there is no order to compare"


@dataclass(frozen=True, kw_only=True, eq=False)
class Parity:
    """A candidate against a reference on n pairs. All arrays are float32 (n), in the order of `pairs` as given.

    Drift is the absolute difference of two scores after a sigmoid, whatever the model's own activation: a scale of 0 to 1
    on which models can be compared. tau and top-1 are means over the queries with at least two different reference logits:
    Kendall's tau-b in [-1, 1], and the share of queries whose best document is the same. NaN where there is no such query.

    reference: what the candidate is compared with, "torch fp32".
    candidate: what is judged, "onnx int8".
    queries: for each pair, the number of its query.
    reference_logits, candidate_logits: the logits of both.
    rounding: how far PyTorch in fp32 is from itself in fp64, in logits; logits that differ by no more have no order. None where
        it was not measured.
    part: which of the samples the pairs are.
    logit_differences: float32 (n), absolute differences of the logits.
    drifts: float32 (n), absolute differences of the scores, 0 to 1.
    max_logit_difference, mean_logit_difference: of `logit_differences`.
    max_drift, mean_drift: of `drifts`.
    tau: mean of Kendall's tau-b, -1 to 1.
    top1: share of the queries whose best document is the same, 0 to 1.
    """

    reference: str
    candidate: str
    queries: tuple[int, ...]
    reference_logits: Float32Array
    candidate_logits: Float32Array
    rounding: float | None = None
    part: Part = "all"

    @property
    def logit_differences(self) -> Float32Array:
        differences: Float32Array = np.abs(self.candidate_logits - self.reference_logits)
        return differences

    @property
    def drifts(self) -> Float32Array:
        drifts: Float32Array = np.abs(sigmoid(self.candidate_logits) - sigmoid(self.reference_logits))
        return drifts

    @property
    def max_logit_difference(self) -> float:
        return float(self.logit_differences.max(initial=0))

    @property
    def fp32_error(self) -> float:
        """The largest difference of a logit, in multiples of the rounding; NaN where that was not measured."""
        return math.nan if self.rounding is None else self.max_logit_difference / self.rounding

    @property
    def mean_logit_difference(self) -> float:
        return float(self.logit_differences.mean()) if len(self.queries) else 0.0

    @property
    def max_drift(self) -> float:
        return float(self.drifts.max(initial=0))

    @property
    def mean_drift(self) -> float:
        return float(self.drifts.mean()) if len(self.queries) else 0.0

    @property
    def logit_spread(self) -> float:
        """Standard deviation of the reference logits: what the differences are to be seen against."""
        return float(self.reference_logits.std()) if len(self.queries) else 0.0

    @property
    def ranked_queries(self) -> int:
        """How many queries have documents to put in order."""
        return len(self._ranked_queries())

    @property
    def tau(self) -> float:
        return _mean([kendall_tau(reference, candidate) for reference, candidate in self._ranked_queries()])

    @property
    def top1(self) -> float:
        return _mean([float(np.argmax(ref) == np.argmax(cand)) for ref, cand in self._ranked_queries()])

    def summary(self) -> dict[str, float | int | str | None]:
        """The numbers without the arrays, ready for JSON; None for tau and top-1 where there is no order to compare."""
        ranked = self.ranked_queries > 0
        return {
            "reference": self.reference,
            "candidate": self.candidate,
            "part": self.part,
            "pairs": len(self.queries),
            "queries": len(set(self.queries)),
            "logit_spread": round(self.logit_spread, 6),
            "rounding": self.rounding,
            "max_logit_difference": self.max_logit_difference,
            "mean_logit_difference": self.mean_logit_difference,
            "max_drift": round(self.max_drift, 6),
            "mean_drift": round(self.mean_drift, 6),
            "tau": round(self.tau, 6) if ranked else None,
            "top1": round(self.top1, 6) if ranked else None,
        }

    def __str__(self) -> str:
        pairs = f"{len(self.queries)} pairs of {len(set(self.queries))} queries{_PARTS[self.part]}"
        order = f"Kendall tau {self.tau:.4f}   top-1 agreement {self.top1:.1%}"
        return (
            f"{self.candidate} against {self.reference}, {pairs}\n"
            f"  {order if self.ranked_queries else NO_ORDER}\n"
            f"  score drift, 0 to 1: largest {self.max_drift:.4f}   mean {self.mean_drift:.4f}\n"
            f"  logit difference:    largest {self.max_logit_difference:.2g}   mean {self.mean_logit_difference:.2g}   "
            f"(logit spread {self.logit_spread:.2f})"
        )

    def _ranked_queries(self) -> list[tuple[Float32Array, Float32Array]]:
        queries = np.array(self.queries)
        groups = [queries == query for query in dict.fromkeys(self.queries)]
        pairs = [(self.reference_logits[group], self.candidate_logits[group]) for group in groups]
        return [(reference, candidate) for reference, candidate in pairs if not np.ptp(reference) <= (self.rounding or 0)]


def compare(
    pairs: Sequence[tuple[str, str]],
    reference: tuple[str, Float32Array],
    candidate: tuple[str, Float32Array],
    *,
    rounding: float | None = None,
    part: Part = "all",
) -> Parity:
    """A Parity of named logits, each float32 (n) in the order of `pairs`; pairs with equal query texts form one query."""
    numbers = {query: number for number, query in enumerate(dict.fromkeys(query for query, _ in pairs))}
    return Parity(
        reference=reference[0],
        candidate=candidate[0],
        queries=tuple(numbers[query] for query, _ in pairs),
        reference_logits=reference[1],
        candidate_logits=candidate[1],
        rounding=rounding,
        part=part,
    )


def kendall_tau(reference: Float32Array, candidate: Float32Array) -> float:
    """Kendall's tau-b of two score lists of one length: 1 for the same order, -1 for the reverse; ties count for neither.

    tau-b = (concordant - discordant) / sqrt((pairs - ties in reference) * (pairs - ties in candidate))
    (Kendall, "The treatment of ties in ranking problems", Biometrika 33, 1945). 0 where one list is all ties.
    """
    upper = np.triu_indices(len(reference), k=1)
    first, second = (
        np.sign(scores[:, None] - scores[None, :])[upper] for scores in (reference, candidate)
    )  # (n, n) -> (n(n-1)/2)
    scale = np.sqrt(float(np.count_nonzero(first)) * float(np.count_nonzero(second)))
    return float((first * second).sum() / scale) if scale else 0.0


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if values else math.nan
