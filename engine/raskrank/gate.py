"""The parity gate: what may differ between a checkpoint and its bundle, and by how much."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Literal

from raskrank.errors import InputError, ParityError
from raskrank.manifest import Manifest, Precision
from raskrank.parity import Parity


@dataclass(frozen=True, kw_only=True)
class Thresholds:
    """How far a bundle may be from its checkpoint on the sample pairs. The only place where these numbers stand.

    max_fp32_logit_difference: PyTorch against ONNX in fp32, largest difference of a logit. Both compute the same in another
        order; with logits around 1 to 10 rounding stays around 1e-5, so a larger one means a wrong graph.
    min_tau: int8 against PyTorch, mean Kendall tau-b over the queries. The embedded nano model reaches 0.997 on our samples,
        whose lists hold near ties; an export that mixes up neighbours everywhere falls below 0.95.
    min_top1: share of queries whose best document stays the best. Leaves room for near ties in a small set.
    max_drift: largest difference of a score after a sigmoid, 0 to 1. Above it a document would change its place against
        any fixed cut-off that an application has.
    max_mean_drift: mean of the same; catches a shift of all scores that the order does not show.
    """

    max_fp32_logit_difference: float = 1e-4
    min_tau: float = 0.95
    min_top1: float = 0.95
    max_drift: float = 0.15
    max_mean_drift: float = 0.03

    def __post_init__(self) -> None:
        ranges = {"min_tau": (-1, 1), "min_top1": (0, 1), "max_drift": (0, 1), "max_mean_drift": (0, 1)}
        for name, value in asdict(self).items():
            low, high = ranges.get(name, (0, float("inf")))
            # Infinity would make the manifest, which records these, no valid JSON.
            wrong = isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value)
            if wrong or not low <= value <= high:
                raise InputError(f"Thresholds.{name}: expected a number from {low} to {high}, got {value!r}")


# What is judged: a graph of this precision, or fp32 on texts that a trimmed vocabulary spells otherwise.
Judged = Precision | Literal["trimmed"]
_ORDER = (
    ("min_tau", "tau", "Kendall tau", ">="),
    ("min_top1", "top1", "top-1 agreement", ">="),
    ("max_drift", "max_drift", "largest score drift", "<="),
    ("max_mean_drift", "mean_drift", "mean score drift", "<="),
)
# For each: the threshold, the property of Parity that it holds, its name, and which side is allowed.
CHECKS: Mapping[Judged, tuple[tuple[str, str, str, str], ...]] = {
    "fp32": (("max_fp32_logit_difference", "max_logit_difference", "largest logit difference", "<="),),
    "int8": _ORDER,
    "trimmed": _ORDER,
}
ADVICE: Mapping[Literal["fp32", "trimmed"], str] = {
    "trimmed": "trim the vocabulary on more text of the kind that the samples are, or not at all",
    "fp32": "the ONNX graph does not compute what the checkpoint does; please report this with the checkpoint's name",
}


def judged(manifest: Manifest) -> Judged:
    """What a bundle is held to."""
    return "trimmed" if manifest.vocabulary is not None and manifest.precision == "fp32" else manifest.precision


def failures(parity: Parity, thresholds: Thresholds, kind: Judged) -> dict[str, str]:
    """By name of the threshold, what a bundle of this kind fails. NaN fails every check."""
    failed = {}
    for threshold, measure, label, sign in CHECKS[kind]:
        value, limit = getattr(parity, measure), getattr(thresholds, threshold)
        if not (value >= limit if sign == ">=" else value <= limit):
            failed[threshold] = f"{label} {value:.4g}, allowed {sign} {limit:.4g}"
    return failed


def check(parity: Parity, thresholds: Thresholds, kind: Literal["fp32", "trimmed"]) -> None:
    """Raises ParityError if a graph of this kind, which nothing repairs, is too far from its checkpoint."""
    if failed := failures(parity, thresholds, kind):
        raise ParityError(
            f"{parity.candidate} against {parity.reference} on {len(parity.queries)} pairs: {'; '.join(failed.values())}. "
            f"Nothing was written; {ADVICE[kind]}"
        )
