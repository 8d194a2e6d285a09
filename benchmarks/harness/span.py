"""What all results say together, a column for each model and machine: README's table, and where a peer is ahead."""

from collections.abc import Callable, Iterable, Sequence
from statistics import median
from typing import Literal

from benchmarks.harness.contender import OURS
from benchmarks.harness.machines import kind, model, title
from benchmarks.harness.results import Result, undisturbed
from benchmarks.harness.tables import bold, count, milliseconds, table
from benchmarks.harness.workloads import MAIN, PAIR, WORKLOADS

USUAL = ("sentence-transformers torch", "sentence-transformers onnx int8")  # the peers of README's table, beside the fastest
NOT_MEASURED = "–"


def ratios(result: Result, workload: str) -> dict[str, float]:
    """How many times our time each peer takes, by name, the fastest first: of the medians. {} where it was not measured."""
    measured = result["workloads"].get(workload)
    if measured is None or OURS not in measured["contenders"]:
        return {}
    medians = {name: median(timing["seconds"]) for name, timing in measured["contenders"].items()}
    ours = medians[OURS]
    return {
        name: seconds / ours
        for name, seconds in sorted(medians.items(), key=lambda item: item[1])
        if not name.startswith("Raskrank")
    }


def peers(found: Iterable[Result]) -> list[str]:
    """Those that ran the main workload anywhere, by the median of their ratios."""
    by_name: dict[str, list[float]] = {}
    for result in found:
        for name, value in ratios(result, MAIN).items():
            by_name.setdefault(name, []).append(value)
    return sorted(by_name, key=lambda name: median(by_name[name]))


def summary(found: Sequence[Result], pages: Sequence[str]) -> str:
    """README's table, and what a reader has to know of it. pages: the address of each result's own page."""
    rows = [
        [f"{_title(MAIN)}: {OURS}", *map(_milliseconds, found)],
        *([f"{_title(MAIN)}: {name}", *(_ratio(ratios(result, MAIN).get(name)) for result in found)] for name in USUAL),
        *fastest_rows(found),
        *own_rows(found),
    ]
    return "\n\n".join([table(["", *map(_heading, found)], _measured(rows)), conditions(found, pages)])


def speed_table(found: Sequence[Result]) -> str:
    """The main workload: our milliseconds, and every peer's times of it."""
    rows = [[name, *(_ratio(ratios(result, MAIN).get(name)) for result in found)] for name in peers(found)]
    return table([_title(MAIN), *map(_heading, found)], [[bold(OURS), *map(_milliseconds, found)], *rows])


def fastest_rows(found: Sequence[Result]) -> list[list[str]]:
    """Every workload against whoever was the fastest of the peers there."""
    rows = []
    for workload in sorted(WORKLOADS, key=lambda workload: workload.name != MAIN):
        fastest = [next(iter(ratios(result, workload.name).items()), None) for result in found]
        cells = [NOT_MEASURED if peer is None else f"{_ratio(peer[1])}<br>{peer[0]}" for peer in fastest]
        rows.append([f"{workload.title}: the fastest peer", *cells])
    return rows


def own_rows(found: Sequence[Result]) -> list[list[str]]:
    """What one process needs, beside the best of the peers, and how near it is to what its machine could do."""
    first = [_start(result, "first", lambda seconds: f"{seconds:.2f} s") for result in found]
    memory = [_start(result, "resident", lambda size: f"{size / 1e6:,.0f} MB") for result in found]
    rows = [
        ["first score of a fresh process, and of the soonest peer", *first],
        ["resident memory after 100 passages, and of the leanest peer", *memory],
    ]
    for name in (PAIR, MAIN):
        rows.append([f"share of the machine's limit, {_title(name)}", *(_share(result, name) for result in found)])
    return [*rows, [f"all cores against one, {_title(MAIN)}", *map(_scaling, found)]]


def conditions(found: Sequence[Result], pages: Sequence[str]) -> str:
    about = [
        f"- [{title(result)}]({address}): {result['machine']['cpu']}, {result['date']}, {_rounds(result)}"
        for result, address in zip(found, pages, strict=True)
    ]
    return (
        "Numbers without a unit are how many times as long as Raskrank int8 a peer takes: the ratio of medians, everyone in "
        "turns in one run on the same weights, texts and cores. **Bold**: a peer is ahead. "
        f"{NOT_MEASURED}: not measured. Settings, versions, ranges and fidelity of each:\n\n" + "\n".join(about)
    )


def _measured(rows: Sequence[Sequence[str]]) -> list[Sequence[str]]:
    return [row for row in rows if any(cell != NOT_MEASURED for cell in row[1:])]


def _title(name: str) -> str:
    return next(workload.title for workload in WORKLOADS if workload.name == name)


def _heading(result: Result) -> str:
    return f"{model(result)}<br>{kind(result['machine'])}"


def _milliseconds(result: Result) -> str:
    measured = result["workloads"].get(MAIN)
    timing = measured["contenders"].get(OURS) if measured else None
    return f"{milliseconds(median(timing['seconds']))} ms" if timing else NOT_MEASURED


def _ratio(value: float | None) -> str:
    if value is None:
        return NOT_MEASURED
    text = f"{value:.1f}" if value >= 10 else f"{value:.2f}"
    return f"**{text}**" if float(text) < 1 else text


def _start(result: Result, key: Literal["first", "resident"], show: Callable[[float], str]) -> str:
    """Ours, and the least of the peers."""
    found = {name: median(started[key]) for name, started in result["start"].items()}
    ours = found.pop(OURS, None)
    if ours is None or not found:
        return NOT_MEASURED
    best = min(found, key=lambda name: found[name])
    theirs = f"**{show(found[best])}**" if found[best] < ours else show(found[best])
    return f"{show(ours)}<br>{best} {theirs}"


def _share(result: Result, workload: str) -> str:
    shares = result["limits"]["shares"] if result["limits"] else []
    found = [share for share in shares if share["title"] == _title(workload)]
    return f"{found[0]['limit'] / undisturbed(found[0]['seconds']):.0%}" if found else NOT_MEASURED


def _scaling(result: Result) -> str:
    medians = [median(seconds) for seconds in result["threads"].get(MAIN, {}).values()]
    return f"{medians[0] / medians[-1]:.1f}" if len(medians) > 1 else NOT_MEASURED


def _rounds(result: Result) -> str:
    timing = result["workloads"].get(MAIN, {"contenders": {}})["contenders"].get(OURS)
    return count(len(timing["seconds"]) if timing else 0, "round")
