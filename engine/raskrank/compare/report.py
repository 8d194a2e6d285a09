"""What a comparison says: Markdown that reads as text, and the same numbers for machines."""

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from raskrank.compare.measure import COUNTS, Judged, Result
from raskrank.compare.quality import DEPTH
from raskrank.terminal import shorten, width

NAME_COLUMNS = 48  # longer names of models are cut
JUDGED = (f"nDCG@{DEPTH}", f"MRR@{DEPTH}", "top-1", "tokens/passage")
PARAGRAPH_COLUMNS = 100
NOT_MEASURED = "–"


@dataclass(frozen=True, kw_only=True)
class About:
    """What was compared on what. candidates: the most that a query had."""

    data: str
    queries: int
    candidates: int
    machine: str
    date: str
    versions: Mapping[str, str]


def to_markdown(results: Sequence[Result], about: About) -> str:
    """Sections, each a heading and a table whose columns are aligned for readers of the text itself."""
    parts = [
        f"## Quality: {about.queries} queries with up to {about.candidates} candidates each",
        _table(
            ["model", "runs", *JUDGED, "not finite"],
            [[result.name, result.runs, *_judged(result.overall), str(result.non_finite)] for result in results],
        ),
    ]
    rows = [
        [result.name, result.runs, language, str(judged.quality.queries), *_judged(judged)]
        for result in results
        for language, judged in result.languages.items()
    ]
    if len({language for result in results for language in result.languages}) > 1:
        parts += ["## By language", _table(["model", "runs", "language", "queries", *JUDGED], rows, texts=3)]
    rows = [
        [result.name, result.runs, f"{result.agreement.tau:.4f}", f"{result.agreement.top1:.1%}"]
        for result in results
        if result.agreement
    ]
    if rows:
        parts += ["## Against the checkpoint", _table(["model", "runs", "Kendall tau", "same best passage"], rows)]
    few, many = COUNTS
    rounds = min(len(timing.seconds) for result in results for timing in result.calls.values())
    columns = ["M params", "MB disk", "MB memory", "s to score", *(f"ms for {count}" for count in COUNTS)]
    parts += [
        "## Size and speed",
        _table(["model", "runs", *columns], [[result.name, result.runs, *_measured(result)] for result in results]),
        _paragraph(
            f"ms for {few} and {many} passages: median / 95th percentile of at least {rounds} calls, the models taking turns. "
            f"In fresh processes: s to score, from start to first score; MB memory, resident after {many} passages."
        ),
        _paragraph(f"Data: {about.data}. {about.date}, {about.machine}, {', '.join(map(' '.join, about.versions.items()))}."),
    ]
    return "\n\n".join(parts)


def to_dict(results: Sequence[Result], about: About) -> dict[str, object]:
    """The same numbers, not rounded, ready for JSON. None is what was not measured."""
    return {"about": asdict(about), "models": [_model(result) for result in results]}


def _model(result: Result) -> dict[str, object]:
    fresh = result.fresh
    return {
        "name": result.name,
        "runs": result.runs,
        "origin": result.origin,
        "license": result.license,
        "parameters": result.parameters,
        "disk_bytes": result.disk_bytes,
        "resident_bytes": fresh.resident_bytes if fresh else None,
        "private_bytes": fresh.private_bytes if fresh else None,
        "first_score_seconds": fresh.first_score_s if fresh else None,
        "calls": {
            str(count): {"rounds": len(timing.seconds), "median_seconds": timing.median, "p95_seconds": timing.p95}
            for count, timing in result.calls.items()
        },
        "non_finite": result.non_finite,
        **_judged_dict(result.overall),
        "languages": {language: _judged_dict(judged) for language, judged in result.languages.items()},
        "against_checkpoint": asdict(result.agreement) if result.agreement else None,
    }


def _judged_dict(judged: Judged) -> dict[str, float]:
    found = judged.quality
    return {
        "queries": found.queries,
        f"ndcg@{DEPTH}": found.ndcg,
        f"mrr@{DEPTH}": found.mrr,
        "top1": found.top1,
        "tokens_per_passage": judged.tokens,
    }


def _judged(judged: Judged) -> list[str]:
    found = judged.quality
    return [f"{found.ndcg:.4f}", f"{found.mrr:.4f}", f"{found.top1:.1%}", f"{judged.tokens:.1f}"]


def _measured(result: Result) -> list[str]:
    fresh = result.fresh
    return [
        _millions(result.parameters),
        _millions(result.disk_bytes),
        _millions(fresh.resident_bytes if fresh else None),
        f"{fresh.first_score_s:.2f}" if fresh else NOT_MEASURED,
        *(f"{_number(timing.median * 1e3)} / {_number(timing.p95 * 1e3)}" for timing in result.calls.values()),
    ]


def _millions(value: int | None) -> str:
    return NOT_MEASURED if value is None else _number(value / 1e6)


def _number(value: float) -> str:
    """To three digits, or more before the point."""
    return f"{value:.{2 if value < 10 else 1 if value < 100 else 0}f}"


def _paragraph(text: str) -> str:
    return textwrap.fill(text, PARAGRAPH_COLUMNS, break_long_words=False, break_on_hyphens=False)


def _table(header: Sequence[str], rows: Sequence[Sequence[str]], texts: int = 2) -> str:
    """A Markdown table whose first `texts` columns are aligned to the left, the others to the right."""
    cells = [header, *([_cell(cell) for cell in row] for row in rows)]
    widths = [max(width(row[column]) for row in cells) for column in range(len(header))]

    def line(row: Sequence[str]) -> str:
        padded = []
        for column, (cell, size) in enumerate(zip(row, widths, strict=True)):
            space = " " * (size - width(cell))
            padded.append(cell + space if column < texts else space + cell)
        return f"| {' | '.join(padded)} |"

    rule = [f"{'-' * (size + 1)}{'-' if column < texts else ':'}" for column, size in enumerate(widths)]
    return "\n".join([line(header), f"|{'|'.join(rule)}|", *map(line, cells[1:])])


def _cell(text: str) -> str:
    return shorten(text, NAME_COLUMNS).replace("|", "\\|")
