"""Plan runs of the model from token counts. Pure: needs no model."""

import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

# A run is spread over idle cores where its products are worth the hand-over between threads: tokens * hidden_size ** 2 at
# least this. Measured on 2 cores (docs/notebook.md): below, one core alone is as fast or faster.
SPREAD_MIN_WORK = 30_000_000
# Tokens of a run that pairs of equal length share. Measured: short pairs gain by half, from 128 tokens on nothing is gained.
GROUP_TOKENS = 256


class Run(NamedTuple):
    """One forward pass. All its pairs have `length` tokens, so it needs neither padding nor a mask."""

    length: int
    indices: tuple[int, ...]
    spread: bool  # over several cores, because some would be idle


def plan(lengths: Sequence[int], *, cores: int, hidden_size: int, groups: bool) -> list[Run]:
    """Runs that hold every pair once, longest first, equal lengths in input order.

    lengths: tokens of each pair. cores: runs that may be in flight together. groups: pairs of equal length may share a run, as
    many as GROUP_TOKENS allows while every core gets a part of them. Longest first keeps all cores busy to the end: what is
    left over last is short.
    """
    order = sorted(range(len(lengths)), key=lambda index: -lengths[index])
    idle, share = len(lengths) < cores, math.ceil(len(lengths) / cores)
    runs = []
    for length, equal in itertools.groupby(order, key=lambda index: lengths[index]):
        indices = tuple(equal)
        size = max(1, min(GROUP_TOKENS // length, share)) if groups else 1
        spread = idle and length * hidden_size**2 >= SPREAD_MIN_WORK
        runs += [Run(length, indices[start : start + size], spread) for start in range(0, len(indices), size)]
    return runs
