"""Plan runs of the model from token counts. Pure: needs no model."""

from collections.abc import Sequence
from typing import NamedTuple


class Run(NamedTuple):
    """One forward pass. All its pairs have `length` tokens, so it needs neither padding nor a mask."""

    length: int
    indices: tuple[int, ...]


def plan(lengths: Sequence[int]) -> list[Run]:
    """One run for each pair, longest first, equal lengths in input order.

    lengths: tokens of each pair. Longest first keeps all cores busy to the end: what is left over last is short. One pair a
    run, because a per-tensor activation range would let a neighbour in the run change a score.
    """
    order = sorted(range(len(lengths)), key=lambda index: -lengths[index])
    return [Run(lengths[index], (index,)) for index in order]
