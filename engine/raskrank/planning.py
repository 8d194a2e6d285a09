"""Plan runs of the model from token counts. Pure: needs no model."""

import heapq
import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

# Tokens of a run that pairs of equal length share. Measured: short pairs gain by half, from 128 tokens on nothing is gained.
GROUP_TOKENS = 256
# How long runs of a model take beside each other, measured from 8 to 512 tokens with hidden sizes of 128 and 384: attention
# takes as long as all else where a pair has so many times the hidden size; a run takes so many tokens' time whatever is in it;
# and on n cores it goes n ** SPREAD times as fast, or faster.
ATTENTION, RUN_TOKENS, SPREAD = 2.5, 4, 0.75


class Run(NamedTuple):
    """One forward pass. All its pairs have `length` tokens, so it needs neither padding nor a mask."""

    length: int
    indices: tuple[int, ...]
    threads: int  # cores that it may use: more than one where there are fewer runs than cores

    def work(self, hidden_size: int) -> float:
        """How long it takes, about, in the time of one token of a short pair on one core."""
        attention = self.length / (ATTENTION * max(hidden_size, 1))
        tokens = len(self.indices) * self.length
        return (RUN_TOKENS + tokens * (1 + attention)) / math.pow(self.threads, SPREAD)


def plan(
    lengths: Sequence[int], *, cores: int, hidden_size: int, groups: bool, min_share: int, in_order: bool = False
) -> list[Run]:
    """Runs that hold every pair once, longest first, equal lengths in input order.

    lengths: tokens of each pair. cores: that may be busy together. groups: pairs of equal length may share a run, as many as
    GROUP_TOKENS allows while every core gets a part of them. min_share: see Backend. Longest first keeps all cores busy to the
    end: what is left over last is short. in_order: the runs in input order instead, each at the place of its first pair.
    """
    order = sorted(range(len(lengths)), key=lambda index: -lengths[index])
    share = math.ceil(len(lengths) / cores)
    parts: list[tuple[int, tuple[int, ...]]] = []
    for length, equal in itertools.groupby(order, key=lambda index: lengths[index]):
        indices = tuple(equal)
        size = max(1, min(GROUP_TOKENS // length, share)) if groups else 1
        parts += [(length, indices[start : start + size]) for start in range(0, len(indices), size)]
    if in_order:
        parts.sort(key=lambda part: part[1][0])
    works = [len(indices) * length * hidden_size**2 for length, indices in parts]
    threads = _spread(works, cores, min_share) if len(lengths) < cores else [1] * len(parts)
    return [Run(length, indices, number) for (length, indices), number in zip(parts, threads, strict=True)]


def _spread(works: Sequence[int], cores: int, min_share: int) -> list[int]:
    """How many of the cores each run gets, at least one: the idle ones go where each has most to do, while it is enough."""
    threads = [1] * len(works)
    waiting = [(-work, index) for index, work in enumerate(works)]
    heapq.heapify(waiting)
    idle = cores - len(works)
    while idle and waiting:
        _, index = heapq.heappop(waiting)
        if works[index] < min_share * (threads[index] + 1):
            continue
        threads[index] += 1
        idle -= 1
        heapq.heappush(waiting, (-works[index] // threads[index], index))
    return threads
