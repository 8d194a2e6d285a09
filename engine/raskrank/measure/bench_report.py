"""What a benchmark found, as text and as JSON."""

import statistics
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from raskrank.measure.bench_result import Benchmark, Model, Result, Speed
from raskrank.measure.tables import number, plain_table, wrapped
from raskrank.printable import shorten, width
from raskrank.terminal import COLUMNS, duration

LABEL_COLUMNS = 20  # so that two of them fit a line
P95_ROUNDS = 20  # with fewer, the 95th percentile is the longest


def to_text(found: Benchmark) -> str:
    """Tables of at most 80 columns; a longer path makes a longer line."""
    speeds = [_speeds(found, index) for index in range(len(found.models))]
    parts = [_conditions(found), _passages(found), *speeds, _fresh(found), _rankings(found), _notes(found)]
    return "\n\n".join(part for part in parts if part)


def to_dict(found: Benchmark) -> dict[str, Any]:
    """Ready for JSON: every number, also those of single rounds."""
    return {
        "cpu": found.cpu,
        "instruction_sets": found.instruction_sets,
        "usable_cores": found.usable_cores,
        "threads": found.threads,
        "versions": found.versions,
        "date": found.date,
        "seconds": found.seconds,
        "passages_from": found.source,
        "models": [asdict(model) for model in found.models],
        "fresh_process_passages": found.fresh_passages,
        "workloads": [_result_dict(result) for result in found.results],
        "left_out": found.left_out,
    }


def _conditions(found: Benchmark) -> str:
    machine = [found.cpu, f"{found.threads} of {found.usable_cores} usable cores", *found.instruction_sets]
    rows = [
        ("machine", ", ".join(machine)),
        ("versions", ", ".join(f"{package} {version}" for package, version in found.versions.items())),
        *((_short(model.label), _about(model)) for model in found.models),
        ("passages", found.source),
        ("measured", f"{found.date}, in {duration(found.seconds)}"),
    ]
    indent = max(width(label) for label, _ in rows) + 2
    return "\n".join(_wrapped(text, label + " " * (indent - width(label)), indent) for label, text in rows)


def _passages(found: Benchmark) -> str:
    rows = [
        [result.name, *(f"{tokens:.0f}" for tokens in _spread(result.speeds[0].lengths)), str(result.rounds)]
        for result in found.results
    ]
    return plain_table(["passages", "tokens: shortest", "median", "longest", "rounds"], rows)


def _speeds(found: Benchmark, index: int) -> str:
    """The table of one model; for all but the first with how it compares to the first."""
    header = ["passages", "median ms", "p95 ms", "passages/s", "tokens/s"]
    rows, title = [], _short(found.models[index].label)
    if index:
        header.append("times as long")
        title += f", times as long as {_first(found)} (range of rounds)"
    for result in found.results:
        speed = result.speeds[index]
        milliseconds = (speed.timing.median * 1e3, speed.timing.p95 * 1e3)
        row = [result.name, *map(_number, (*milliseconds, speed.passages_per_s, speed.tokens_per_s))]
        if index:
            ratio, low, high = result.ratios(speed)
            row.append(f"{ratio:.2f} ({low:.2f}–{high:.2f})")
        rows.append(row)
    return f"{title}\n{plain_table(header, rows)}"


def _fresh(found: Benchmark) -> str:
    rows = []
    for model in found.models:
        fresh = model.fresh
        sizes = [_megabytes(fresh.resident_bytes), _megabytes(fresh.private_bytes)]
        rows.append([_short(model.label), f"{fresh.first_score_s:.2f}", *sizes])
    return plain_table(["a fresh process", "first score s", "resident MB", "of it private"], rows)


def _rankings(found: Benchmark) -> str:
    """How alike the rankings are, of the most passages of the first kind."""
    kind = [result for result in found.results if result.kind == found.results[0].kind]
    most = max(kind, key=lambda result: result.passages)
    taus = [f"{_short(speed.label)} {speed.kendall_tau:.4f}" for speed in most.speeds[1:] if speed.kendall_tau is not None]
    if not taus:
        return ""
    return _wrapped(f"Kendall tau with {_first(found)}'s ranking of {_counted(most.passages)}: {', '.join(taus)}")


def _notes(found: Benchmark) -> str:
    """What one should know to read the tables."""
    notes = [
        "Times are of whole calls, with tokenizing. Fresh processes: from the start to a first score, files in the page "
        f"cache; memory after {_counted(found.fresh_passages)}; private is what is not shared and the kernel cannot drop."
    ]
    if any(model.plain is not None for model in found.models):
        notes.append(
            "The plain export has none of our passes, fusions and kernels. onnxruntime runs it as it runs a bundle: the same "
            "tokens on the same threads, without padding."
        )
    if any(result.rounds < P95_ROUNDS for result in found.results):
        notes.append(f"p95 of fewer than {P95_ROUNDS} rounds is the longest.")
    if any(result.passages < result.asked for result in found.results):
        notes.append("* Fewer than asked for: three rounds of all would not fit the time, see --seconds.")
    if found.left_out:
        notes.append(f"No time was left for: {', '.join(found.left_out)}; see --seconds.")
    return "\n".join(map(_wrapped, notes))


def _first(found: Benchmark) -> str:
    return _short(found.models[0].label)


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
    if model.plain is not None:
        facts.append(f"by {model.plain}")
    if model.backend == "torch":
        facts.append("one pair at a time on all cores")
    if model.bundle_bytes is not None:
        facts.append(f"{_megabytes(model.bundle_bytes)} MB")
    return ", ".join([*facts, model.folder])


def _wrapped(text: str, label: str = "", indent: int = 0) -> str:
    return label + f"\n{' ' * indent}".join(wrapped(text, COLUMNS - indent))


def _counted(count: int) -> str:
    return "1 passage" if count == 1 else f"{count} passages"


def _short(label: str) -> str:
    return shorten(label, LABEL_COLUMNS)


def _number(value: float) -> str:
    return number(value, thousands=",")


def _megabytes(size: int | None) -> str:
    return "unknown" if size is None else _number(size / 1e6)
