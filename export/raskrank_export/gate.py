"""The parity gate: what may differ between a checkpoint and its bundle, and by how much."""

import math
from dataclasses import asdict, dataclass

from raskrank.errors import InputError, ParityError
from raskrank.parity import Parity


@dataclass(frozen=True, kw_only=True)
class Thresholds:
    """How far a bundle may be from its checkpoint on the sample pairs. The only place where these numbers stand.

    max_fp32_logit_difference: PyTorch against ONNX in fp32, largest difference of a logit. Both compute the same in another
        order; with logits around 1 to 10 rounding stays below 1e-5, so a larger one means a wrong graph.
    min_tau: int8 against PyTorch, mean Kendall tau-b over the queries. The published nano model reaches 0.98 on our samples,
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


def check_graph(parity: Parity, thresholds: Thresholds) -> None:
    """Raises ParityError if the fp32 graph does not compute what the checkpoint does."""
    _refuse(
        parity,
        [("largest logit difference", parity.max_logit_difference, "<=", thresholds.max_fp32_logit_difference)],
        "the ONNX graph does not compute what the checkpoint does; please report this with the checkpoint's name",
    )


def check_quantized(parity: Parity, thresholds: Thresholds) -> None:
    """Raises ParityError if the quantised bundle would rank or score too differently."""
    _refuse(
        parity,
        [
            ("Kendall tau", parity.tau, ">=", thresholds.min_tau),
            ("top-1 agreement", parity.top1, ">=", thresholds.min_top1),
            ("largest score drift", parity.max_drift, "<=", thresholds.max_drift),
            ("mean score drift", parity.mean_drift, "<=", thresholds.max_mean_drift),
        ],
        "export with precision='fp32' (--precision fp32), or set thresholds that you accept (--min-tau, --max-drift)",
    )


def _refuse(parity: Parity, checks: list[tuple[str, float, str, float]], advice: str) -> None:
    # Written so that NaN fails every check.
    failed = [
        f"{name} {value:.4g}, allowed {sign} {limit:.4g}"
        for name, value, sign, limit in checks
        if not (value >= limit if sign == ">=" else value <= limit)
    ]
    if failed:
        raise ParityError(
            f"{parity.candidate} against {parity.reference} on {len(parity.queries)} pairs: {'; '.join(failed)}. "
            f"Nothing was written; {advice}"
        )
