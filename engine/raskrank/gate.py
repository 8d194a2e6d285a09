"""The parity gate: what may differ between a checkpoint and its bundle, and by how much."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Literal

from raskrank.errors import Corrupt, InputError, ParityError
from raskrank.manifest import Manifest, Precision
from raskrank.parity import NO_ORDER, Parity

# Texts that a tokenizer does not know are no evidence of how a model ranks. Of our samples every tokenizer for European
# languages that was tried knows all but 0.1%.
MAX_UNKNOWN = 0.1
# Fewer queries say nothing about order.
MIN_RANKED = 2
# Where fp32 happens to round by nothing, on a tiny model: logits are around 1 to 10, and fp32 has seven digits.
MIN_ROUNDING = 1e-6


@dataclass(frozen=True, kw_only=True)
class Thresholds:
    """How far a bundle may be from its checkpoint on the sample pairs. The only place where these numbers stand.

    max_fp32_error: PyTorch against ONNX in fp32, largest difference of a logit, in multiples of the checkpoint's own rounding:
        how far PyTorch in fp32 is from itself in fp64, on a few of the pairs. Both compute the same in another order: of 23
        right graphs, most of them with outliers, none was off by more than 2.7 of these; a wrong one is off by thousands.
    min_tau: int8 against PyTorch, mean Kendall tau-b over the queries. The embedded nano model reaches 0.997 on our samples,
        whose lists hold near ties; an export that mixes up neighbours everywhere falls below 0.95.
    min_top1: share of queries whose best document stays the best. Leaves room for near ties in a small set.
    max_drift: largest difference of a score after a sigmoid, 0 to 1. Above it a document would change its place against
        any fixed cut-off that an application has.
    max_mean_drift: mean of the same; catches a shift of all scores that the order does not show.
    """

    max_fp32_error: float = 10
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
    "fp32": (("max_fp32_error", "fp32_error", "largest logit difference, in multiples of what fp32 itself rounds,", "<="),),
    "int8": _ORDER,
    "trimmed": _ORDER,
}
ADVICE: Mapping[Literal["fp32", "trimmed"], str] = {
    "trimmed": "trim the vocabulary on more text of the kind that the samples are, or not at all",
    "fp32": "the ONNX graph does not compute what the checkpoint does; please report this with the checkpoint's name",
}


@dataclass(frozen=True, kw_only=True, eq=False)
class Verification(Parity):
    """A bundle against its checkpoint, and whether it passed: a Parity, judged by the thresholds of the bundle's export.

    `str()` has the numbers, and says in its last line whether the bundle passed, or why not.

    thresholds: what a bundle of this kind must keep to, by name.
    failed: for each threshold that it does not keep, a sentence that says so; empty if it passed.
    passed: whether it keeps to all of them.
    """

    thresholds: Mapping[str, float]
    failed: Mapping[str, str]

    @property
    def passed(self) -> bool:
        return not self.failed

    def __str__(self) -> str:
        limits = ", ".join(f"{name} {limit:.4g}" for name, limit in self.thresholds.items())
        return f"{super().__str__()}\n" + ("passed: " + limits if self.passed else "failed: " + "; ".join(self.failed.values()))


def unfamiliar(unknown_share: float) -> str | None:
    """Why pairs with this share of unknown tokens are no evidence, or None."""
    if unknown_share <= MAX_UNKNOWN:
        return None
    return (
        f"the model's tokenizer does not know {unknown_share:.0%} of the pairs' tokens, at most {MAX_UNKNOWN:.0%} is allowed: "
        "how it ranks such texts says nothing"
    )


def judged(manifest: Manifest) -> Judged:
    """What a bundle is held to."""
    return "trimmed" if manifest.vocabulary is not None and manifest.precision == "fp32" else manifest.precision


def recorded(manifest: Manifest, path: Path) -> tuple[Thresholds, float]:
    """The thresholds of a bundle's export and the rounding of its checkpoint, as its manifest has them, or Corrupt."""
    try:
        thresholds, rounding = Thresholds(**manifest.parity["thresholds"]), manifest.parity["fp32"]["rounding"]
        if len(manifest.parity["thresholds"]) < len(fields(Thresholds)) or not MIN_ROUNDING <= rounding < math.inf:
            raise ValueError("not all thresholds, or no rounding")
    except (KeyError, TypeError, ValueError) as error:
        raise Corrupt(f"{path}: the manifest does not record the thresholds of its export; export it again") from error
    return thresholds, float(rounding)


def failures(parity: Parity, thresholds: Thresholds, kind: Judged) -> dict[str, str]:
    """By name of the threshold, what a bundle of this kind fails. NaN fails every check."""
    failed = {}
    for threshold, measure, label, sign in CHECKS[kind]:
        value, limit = getattr(parity, measure), getattr(thresholds, threshold)
        if measure in ("tau", "top1") and not parity.ranked_queries:
            failed[threshold] = f"{label}: {NO_ORDER}"
        elif not (value >= limit if sign == ">=" else value <= limit):
            failed[threshold] = f"{label} {value:.4g}, allowed {sign} {limit:.4g}"
    return failed


def verification(parity: Parity, thresholds: Thresholds, kind: Judged) -> Verification:
    """The parity with what the gate says of it, for a bundle of this kind."""
    return Verification(
        **{field.name: getattr(parity, field.name) for field in fields(Parity)},
        thresholds={name: getattr(thresholds, name) for name, *_ in CHECKS[kind]},
        failed=failures(parity, thresholds, kind),
    )


def check(parity: Parity, thresholds: Thresholds, kind: Literal["fp32", "trimmed"]) -> None:
    """Raises ParityError if a graph of this kind, which nothing repairs, is too far from its checkpoint."""
    if failed := failures(parity, thresholds, kind):
        raise ParityError(
            f"{parity.candidate} against {parity.reference} on {len(parity.queries)} pairs: {'; '.join(failed.values())}. "
            f"Nothing was written; {ADVICE[kind]}"
        )
