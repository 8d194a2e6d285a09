"""What a benchmark found: for reading, and as JSON. It holds no text of a query or passage."""

import statistics
import textwrap
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from raskrank.measuring import FreshProcess, Timing
from raskrank.terminal import COLUMNS, duration, shorten, width

LABEL_COLUMNS = 20  # so that two of them fit a line
P95_ROUNDS = 20  # of fewer the 95th percentile is the longest


@dataclass(frozen=True, kw_only=True)
class Model:
    """What was measured, and what a process of its own needed."""

    label: str
    name: str
    backend: str
    precision: str
    scheme: str | None  # of a bundle, as its manifest has it
    folder: str
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
    asked: int  # passages, if there had been time for all
    speeds: tuple[Speed, ...]

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
        """How many times as long as the first model: of the medians, and the smallest and largest of the rounds."""
        first = self.speeds[0].timing
        rounds = [theirs / ours for theirs, ours in zip(speed.timing.seconds, first.seconds, strict=True)]
        return speed.timing.median / first.median, min(rounds), max(rounds)


@dataclass(frozen=True, kw_only=True)
class Report:
    """Where, with what and what was measured. `str()` gives tables of at most 80 columns."""

    cpu: str
    instruction_sets: tuple[str, ...]
    usable_cores: int
    threads: int
    versions: dict[str, str]
    date: str
    source: str
    fresh_passages: int
    models: tuple[Model, ...]
    results: tuple[Result, ...]  # at least one, smallest first
    left_out: tuple[str, ...]  # workloads for which no time was left
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON: every number, also those of single rounds."""
        return {
            "cpu": self.cpu,
            "instruction_sets": self.instruction_sets,
            "usable_cores": self.usable_cores,
            "threads": self.threads,
            "versions": self.versions,
            "date": self.date,
            "seconds": self.seconds,
            "passages_from": self.source,
            "models": [asdict(model) for model in self.models],
            "fresh_process_passages": self.fresh_passages,
            "workloads": [_result_dict(result) for result in self.results],
            "left_out": self.left_out,
        }

    def __str__(self) -> str:
        speeds = [self._speeds(index) for index in range(len(self.models))]
        parts = [self._conditions(), self._passages(), *speeds, self._fresh(), self._rankings(), self._notes()]
        return "\n\n".join(part for part in parts if part)

    def _conditions(self) -> str:
        machine = [self.cpu, f"{self.threads} of {self.usable_cores} usable cores", *self.instruction_sets]
        rows = [
            ("machine", ", ".join(machine)),
            ("versions", ", ".join(f"{package} {number}" for package, number in self.versions.items())),
            *((_short(model.label), _about(model)) for model in self.models),
            ("passages", self.source),
            ("measured", f"{self.date}, in {duration(self.seconds)}"),
        ]
        indent = max(width(label) for label, _ in rows) + 2
        return "\n".join(_wrapped(text, label + " " * (indent - width(label)), indent) for label, text in rows)

    def _passages(self) -> str:
        rows = [
            [result.name, *(f"{number:.0f}" for number in _spread(result.speeds[0].lengths)), str(result.rounds)]
            for result in self.results
        ]
        return _table(["passages", "tokens: shortest", "median", "longest", "rounds"], rows)

    def _speeds(self, index: int) -> str:
        """The table of one model; from the second on with how it compares to the first."""
        header = ["passages", "median ms", "p95 ms", "passages/s", "tokens/s"]
        rows, title = [], _short(self.models[index].label)
        if index:
            header.append("times as long")
            title += f", times as long as {self._first} (range of rounds)"
        for result in self.results:
            speed = result.speeds[index]
            milliseconds = (speed.timing.median * 1e3, speed.timing.p95 * 1e3)
            row = [result.name, *map(_number, (*milliseconds, speed.passages_per_s, speed.tokens_per_s))]
            if index:
                ratio, low, high = result.ratios(speed)
                row.append(f"{ratio:.2f} ({low:.2f}–{high:.2f})")
            rows.append(row)
        return f"{title}\n{_table(header, rows)}"

    def _fresh(self) -> str:
        rows = []
        for model in self.models:
            fresh = model.fresh
            sizes = [_megabytes(fresh.resident_bytes), _megabytes(fresh.private_bytes)]
            rows.append([_short(model.label), f"{fresh.first_score_s:.2f}", *sizes])
        return _table(["a fresh process", "first score s", "resident MB", "of it private"], rows)

    def _rankings(self) -> str:
        """How alike the rankings are, where most passages of the first kind were ranked."""
        kind = [result for result in self.results if result.kind == self.results[0].kind]
        most = max(kind, key=lambda result: result.passages)
        taus = [f"{_short(speed.label)} {speed.kendall_tau:.4f}" for speed in most.speeds[1:] if speed.kendall_tau is not None]
        if not taus:
            return ""
        return _wrapped(f"Kendall tau with {self._first}'s ranking of {_counted(most.passages)}: {', '.join(taus)}")

    def _notes(self) -> str:
        """What one should know to read the tables."""
        notes = [
            "Times are of whole calls, with tokenizing. Fresh processes: from the start to a first score, files in the page "
            f"cache; memory after {_counted(self.fresh_passages)}; private is what is not shared and the kernel cannot drop."
        ]
        if any(result.rounds < P95_ROUNDS for result in self.results):
            notes.append(f"p95 of fewer than {P95_ROUNDS} rounds is the longest.")
        if any(result.passages < result.asked for result in self.results):
            notes.append("* Fewer than asked for: three rounds of all would not fit the time, see --seconds.")
        if self.left_out:
            notes.append(f"No time was left for: {', '.join(self.left_out)}; see --seconds.")
        return "\n".join(map(_wrapped, notes))

    @property
    def _first(self) -> str:
        return _short(self.models[0].label)


def _result_dict(result: Result) -> dict[str, Any]:
    return {
        "kind": result.kind or None,
        "passages": result.passages,
        "passages_asked": result.asked,
        "rounds": result.rounds,
        "models": [_speed_dict(result, speed) for speed in result.speeds],
    }


def _speed_dict(result: Result, speed: Speed) -> dict[str, Any]:
    return {
        "label": speed.label,
        "median_s": speed.timing.median,
        "p95_s": speed.timing.p95,
        "best_s": speed.timing.best,
        "passages_per_s": speed.passages_per_s,
        "tokens_per_s": speed.tokens_per_s,
        "tokens": dict(zip(("min", "median", "max"), _spread(speed.lengths), strict=True)),
        "times_as_long": dict(zip(("median", "min", "max"), result.ratios(speed), strict=True)),
        "kendall_tau": speed.kendall_tau,
        "seconds": speed.timing.seconds,
    }


def _spread(lengths: Sequence[int]) -> tuple[float, float, float]:
    return lengths[0], statistics.median(lengths), lengths[-1]


def _about(model: Model) -> str:
    facts = [f"{model.name} {model.precision}"]
    if model.scheme not in (None, model.precision):
        facts.append(f"scheme {model.scheme}")
    if model.backend == "torch":
        facts.append("one pair at a time on all cores")
    if model.bundle_bytes is not None:
        facts.append(f"{_megabytes(model.bundle_bytes)} MB")
    return ", ".join([*facts, model.folder])


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """The first column to the left, the others to the right."""
    widths = [max(width(row[column]) for row in (header, *rows)) for column in range(len(header))]
    lines = []
    for first, *numbers in (header, *rows):
        cells = [number.rjust(size) for number, size in zip(numbers, widths[1:], strict=True)]
        lines.append("  ".join([first + " " * (widths[0] - width(first)), *cells]))
    return "\n".join(lines)


def _wrapped(text: str, label: str = "", indent: int = 0) -> str:
    lines = textwrap.wrap(text, COLUMNS - indent, break_long_words=False, break_on_hyphens=False)
    return label + f"\n{' ' * indent}".join(lines)


def _counted(count: int) -> str:
    return "1 passage" if count == 1 else f"{count} passages"


def _short(label: str) -> str:
    return shorten(label, LABEL_COLUMNS)


def _number(value: float) -> str:
    decimals = 2 if value < 9.995 else 1 if value < 99.95 else 0
    return f"{value:,.{decimals}f}"


def _megabytes(size: int | None) -> str:
    return "unknown" if size is None else _number(size / 1e6)
