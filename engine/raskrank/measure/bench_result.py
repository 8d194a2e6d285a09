"""What a benchmark found. It holds no text of a query or passage."""

from dataclasses import dataclass

from raskrank.measure.fresh import FreshProcess
from raskrank.measure.timing import Timing


@dataclass(frozen=True, kw_only=True)
class Model:
    """What was measured, and what a process of its own needed."""

    label: str  # different for each
    name: str
    backend: str
    precision: str
    scheme: str | None  # of a bundle, as its manifest has it
    plain: str | None  # of a plain export: who made it, of what
    folder: str  # of a plain export, that of its checkpoint
    bundle_bytes: int | None
    fresh: FreshProcess


@dataclass(frozen=True, kw_only=True)
class Speed:
    """One model on one workload."""

    label: str
    timing: Timing
    lengths: tuple[int, ...]  # tokens that it read of each pair, ascending
    kendall_tau: float | None  # between its ranking and the first model's; None for a single passage

    @property
    def passages_per_s(self) -> float:
        return len(self.lengths) / self.timing.median

    @property
    def tokens_per_s(self) -> float:
        return sum(self.lengths) / self.timing.median


@dataclass(frozen=True, kw_only=True)
class Result:
    """All models on one workload: passages that were scored for one query."""

    kind: str  # as in Workload
    asked: int  # passages that were asked for; fewer were scored where the time did not allow so many
    speeds: tuple[Speed, ...]  # in the order of the models

    @property
    def passages(self) -> int:
        return len(self.speeds[0].lengths)

    @property
    def rounds(self) -> int:
        return len(self.speeds[0].timing.seconds)

    @property
    def name(self) -> str:
        return f"{self.passages} {self.kind}".rstrip() + ("*" if self.passages < self.asked else "")

    def ratios(self, speed: Speed) -> tuple[float, float, float]:
        """How many times as long as the first model it took: by the medians, and in the least and most of the rounds."""
        first = self.speeds[0].timing
        rounds = [theirs / ours for theirs, ours in zip(speed.timing.seconds, first.seconds, strict=True)]
        return speed.timing.median / first.median, min(rounds), max(rounds)


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """All that was measured, where and with what."""

    cpu: str
    instruction_sets: tuple[str, ...]
    usable_cores: int
    threads: int
    versions: dict[str, str]
    date: str
    source: str  # where the passages are from
    fresh_passages: int  # that a fresh process scored
    models: tuple[Model, ...]
    results: tuple[Result, ...]  # at least one, smallest first
    left_out: tuple[str, ...]  # workloads for which no time was left
    seconds: float
