"""What is known of a pair once the model has read it."""

import math
from collections.abc import Sequence
from typing import NamedTuple

from raskrank.encoding import EncodedPair, Span


class Scored(NamedTuple):
    """Of a pair alone, or of its best window: its logit, and what EncodedPair says of it."""

    logit: float
    truncated: bool
    span: Span | None

    @property
    def finite(self) -> bool:
        return math.isfinite(self.logit)


def best_window(windows: Sequence[EncodedPair], logits: Sequence[float]) -> Scored:
    """The window of a pair with the highest logit, the first of equals; but one whose logit is no finite number before all."""
    best = max(range(len(windows)), key=lambda place: (not math.isfinite(logits[place]), logits[place], -place))
    return Scored(logits[best], windows[best].truncated, windows[best].span)
