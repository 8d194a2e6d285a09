"""The results of a comparison as Markdown that also reads as text, and the same numbers as JSON."""

from collections.abc import Sequence
from dataclasses import asdict

from raskrank.measure.compare import COUNTS, About, Judged, Result
from raskrank.measure.quality import DEPTH
from raskrank.measure.tables import markdown_table, number, wrapped

JUDGED = (f"nDCG@{DEPTH}", f"MRR@{DEPTH}", "top-1", "tokens/passage")
PARAGRAPH_COLUMNS = 100
NOT_MEASURED = "–"


def to_markdown(results: Sequence[Result], about: About) -> str:
    """Sections of a heading and a table each, and below them what one should know to read them."""
    parts = [
        f"## Quality: {about.queries} queries with up to {about.candidates} candidates each",
        markdown_table(
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
        parts += ["## By language", markdown_table(["model", "runs", "language", "queries", *JUDGED], rows, left=3)]
    rows = [
        [result.name, result.runs, f"{result.agreement.tau:.4f}", f"{result.agreement.top1:.1%}"]
        for result in results
        if result.agreement
    ]
    if rows:
        parts += ["## Against the checkpoint", markdown_table(["model", "runs", "Kendall tau", "same best passage"], rows)]
    for result in results:
        if result.overlap:
            parts += ["## In a cascade, against the last model alone", _cascade_table(results[result.overlap.alone], result)]
    few, many = COUNTS
    rounds = min(len(timing.seconds) for result in results for timing in result.calls.values())
    columns = ["M params", "MB disk", "MB memory", "s to score", *(f"ms for {count}" for count in COUNTS)]
    parts += [
        "## Size and speed",
        markdown_table(["model", "runs", *columns], [[result.name, result.runs, *_measured(result)] for result in results]),
        _paragraph(
            f"ms for {few} and {many} passages: median / 95th percentile of at least {rounds} calls, the models taking turns. "
            f"In fresh processes: s to score, from start to first score; MB memory, resident after {many} passages."
        ),
        _paragraph(f"Data: {about.data}. {about.date}, {about.machine}, {', '.join(map(' '.join, about.versions.items()))}."),
    ]
    return "\n\n".join(parts)


def to_dict(results: Sequence[Result], about: About) -> dict[str, object]:
    """The same numbers, not rounded, ready for JSON. What was not measured is None."""
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
        "against_last_alone": {f"top{DEPTH}": result.overlap.top, "top1": result.overlap.top1} if result.overlap else None,
    }


def _cascade_table(alone: Result, cascade: Result) -> str:
    def row(result: Result, top: float, top1: float) -> list[str]:
        medians = [result.calls[count].median for count in COUNTS]
        ratio = alone.calls[COUNTS[-1]].median / medians[-1]
        quality = f"{result.overall.quality.ndcg:.4f}"
        return [result.name, quality, f"{top:.1%}", f"{top1:.1%}", *(number(median * 1e3) for median in medians), number(ratio)]

    overlap = cascade.overlap
    rows = [row(alone, 1.0, 1.0)] + ([row(cascade, overlap.top, overlap.top1)] if overlap else [])
    times = [*(f"ms for {count}" for count in COUNTS), f"times as fast for {COUNTS[-1]}"]
    return markdown_table(["model", f"nDCG@{DEPTH}", f"same top {DEPTH}", "same best passage", *times], rows, left=1)


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
        *(f"{number(timing.median * 1e3)} / {number(timing.p95 * 1e3)}" for timing in result.calls.values()),
    ]


def _millions(value: int | None) -> str:
    return NOT_MEASURED if value is None else number(value / 1e6)


def _paragraph(text: str) -> str:
    return "\n".join(wrapped(text, PARAGRAPH_COLUMNS))
