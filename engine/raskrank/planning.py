"""Plan runs of the model from token counts. Pure: needs no model."""

from collections.abc import Sequence
from typing import NamedTuple

# A run is spread over idle cores where its products are worth the hand-over between threads: tokens * hidden_size ** 2 at
# least this. Measured on 2 cores (docs/performance.md): below, one core alone is as fast or faster.
SPREAD_MIN_WORK = 1_500_000


class Run(NamedTuple):
    """One forward pass. All its pairs have `length` tokens, so it needs neither padding nor a mask."""

    length: int
    indices: tuple[int, ...]
    spread: bool  # over several cores, because some would be idle


def plan(lengths: Sequence[int], *, cores: int, hidden_size: int) -> list[Run]:
    """One run for each pair, longest first, equal lengths in input order.

    lengths: tokens of each pair. cores: runs that may be in flight together. Longest first keeps all cores busy to the end:
    what is left over last is short. One pair a run, because a per-tensor activation range would let a neighbour in the run
    change a score.
    """
    order = sorted(range(len(lengths)), key=lambda index: -lengths[index])
    idle = len(lengths) < cores
    return [Run(lengths[index], (index,), idle and lengths[index] * hidden_size**2 >= SPREAD_MIN_WORK) for index in order]
