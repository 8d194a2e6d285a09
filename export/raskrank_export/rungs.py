"""The rungs of the repair ladder that an export tried, and what they came to."""

from dataclasses import dataclass
from typing import Any, NamedTuple

from raskrank.manifest import Precision
from raskrank.parity import Parity
from raskrank_export.quantization import Quantization


class Rung(NamedTuple):
    """A form of the graph. quantization: None is fp32."""

    name: str
    quantization: Quantization | None


class Verdict(NamedTuple):
    """A form of the graph on a part of the samples, in each backend. failed: by name of the threshold, in either.

    native: in our own kernels; None where they do not run it, or what onnxruntime gives has failed.
    """

    onnx: Parity
    native: Parity | None
    failed: dict[str, str]

    @property
    def parity(self) -> Parity:
        """What decides: the kernels' where they alone fail."""
        return self.native if self.failed and self.native is not None else self.onnx


class Attempt(NamedTuple):
    """A rung that was tried. failed: by name of the threshold; empty for what passed. size: bytes of graph and weights.

    parity: what decided. What was chosen or measured on half of the samples is held to that half first, and if it passes to
    the other; parity.part says which it is. chosen_on: on the first of these halves, or on all where there are no halves: what
    attempts are compared by. products, embeddings: how many are int8. native: as in Verdict.
    """

    rung: Rung
    parity: Parity
    chosen_on: Parity
    failed: dict[str, str]
    size: int
    products: int = 0
    embeddings: int = 0
    native: Parity | None = None

    def __str__(self) -> str:
        parity, outcome = self.parity, f"failed {', '.join(self.failed)}" if self.failed else "passed"
        return (
            f"{self.rung.name}: Kendall tau {parity.tau:.4f}, top-1 {parity.top1:.1%}, score drift largest "
            f"{parity.max_drift:.4f}, mean {parity.mean_drift:.4f} on {len(parity.queries)} pairs ({parity.part}); {outcome}"
        )


class Cost(NamedTuple):
    """Median milliseconds of one pair of `tokens` tokens on one thread; the two took turns."""

    tokens: int
    plain_ms: float
    passed_ms: float


@dataclass(frozen=True, kw_only=True)
class Climb:
    """The rungs that were tried, in order; the last one passed.

    skipped: why, by rung. moved: by product, how far the logits moved when it alone was quantized, mean over
    `sensitivity_pairs` pairs; empty where that was not measured. cost: None where plain int8 passed.
    """

    attempts: tuple[Attempt, ...]
    skipped: dict[str, str]
    moved: dict[str, float]
    sensitivity_pairs: int
    cost: Cost | None

    @property
    def passed(self) -> Attempt:
        return self.attempts[-1]

    @property
    def precision(self) -> Precision:
        return "fp32" if self.passed.rung.quantization is None else "int8"

    def summary(self) -> dict[str, Any]:
        """For the manifest: of what passed "int8", unless it is fp32, and "native"; and "ladder" if plain int8 failed."""
        passed = {"int8": self.passed.parity.summary()} if self.precision == "int8" else {}
        if self.passed.native is not None:
            passed["native"] = self.passed.native.summary()
        if self.cost is None:
            return passed
        tried = [
            {"rung": attempt.rung.name, "bytes": attempt.size, "failed": [*attempt.failed], **attempt.parity.summary()}
            for attempt in self.attempts
        ]
        sensitivity = {"pairs": self.sensitivity_pairs, "mean_logit_difference": self.moved} if self.moved else None
        ladder = {
            "rung": self.passed.rung.name,
            "tried": tried,
            "skipped": self.skipped,
            "sensitivity": sensitivity,
            "cost": self.cost._asdict(),
        }
        return passed | {"ladder": ladder}

    def __str__(self) -> str:
        plain, passed, cost = self.attempts[0], self.passed, self.cost
        if cost is None:
            return str(passed)
        if passed.rung.quantization is None:
            headline = "NOT QUANTIZED: every form of int8 failed, so the bundle is fp32"
        else:
            headline = f"plain int8 failed; repaired as {passed.rung.name}"
        lines = [
            headline,
            f"{passed.size / 1e6:.1f} MB instead of {plain.size / 1e6:.1f}, {cost.passed_ms:.2f} ms instead of "
            f"{cost.plain_ms:.2f} for {cost.tokens} tokens on one thread",
            *map(str, self.attempts),
            *(f"{name}: skipped, {reason}" for name, reason in self.skipped.items()),
        ]
        excluded = passed.rung.quantization.excluded if passed.rung.quantization else ()
        lines += [
            f"in fp32: {name}, which alone in int8 moves logits by {moved:.2g} (mean of {self.sensitivity_pairs} pairs)"
            for name, moved in self.moved.items()
            if name in excluded
        ]
        return "\n  ".join(lines)
