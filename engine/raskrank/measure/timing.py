"""The times of functions that take turns."""

import math
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

MIN_ROUNDS = 3  # with fewer, one disturbance can move the median
PAUSE_S = 0.005  # before each call, since threads of the call before may still be spinning


@dataclass(frozen=True)
class Timing:
    """How long a function took. seconds: one number for each counted round, in order; at least one."""

    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    @property
    def p95(self) -> float:
        """The smallest time that at least 95% of the rounds did not exceed; with fewer than 20 rounds, the longest."""
        return sorted(self.seconds)[math.ceil(0.95 * len(self.seconds)) - 1]

    @property
    def best(self) -> float:
        return min(self.seconds)


def interleaved(
    functions: Mapping[str, Callable[[], object]],
    *,
    rounds: int,
    budget_s: float | None = None,
    advance: Callable[[int], None] | None = None,
) -> dict[str, Timing]:
    """The times of each function, in the order given.

    Each round calls every function once, so that whatever else the machine does slows all of them alike. One round comes
    first that is not counted.

    rounds: how many to count, at least 1. budget_s: seconds for all of it; a round that would exceed them, if it took as
    long as the slowest so far, is left out, but at least 3 rounds (or `rounds`, if fewer) are counted. Default: no limit.
    advance: called with 1 after each call, those of the uncounted round too. Exceptions of the functions pass through.
    """
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    began, slowest = time.perf_counter(), 0.0
    for number in range(rounds + 1):
        start = time.perf_counter()
        if budget_s is not None and number > MIN_ROUNDS and start - began + slowest > budget_s:
            break
        for name, function in functions.items():
            time.sleep(PAUSE_S)
            before = time.perf_counter()
            function()
            after = time.perf_counter()
            if number:
                seconds[name].append(after - before)
            if advance is not None:
                advance(1)
        slowest = max(slowest, time.perf_counter() - start)
    return {name: Timing(tuple(row)) for name, row in seconds.items()}
