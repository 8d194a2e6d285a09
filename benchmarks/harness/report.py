"""What a result file says, as a Markdown report with a chart, and as the table in README.md.

python benchmarks/report.py FILE.json       writes FILE.md and FILE.png
python benchmarks/report.py --readme        writes the table between README.md's markers, from benchmarks/results/*.json
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from statistics import median

import results
from chart import draw
from models import ROOT, WORK
from peers import OURS
from results import Limits, Measured, Ratio, Result, Started, digits, p95, ratio, undisturbed
from workloads import MAIN, WORKLOADS

README = ROOT / "README.md"
RESULTS = Path(__file__).parent / "results"
BEGIN, END = "<!-- benchmark: begin -->", "<!-- benchmark: end -->"
TITLES = {"nano": "nano", "minilm": "MiniLM-L-6", "bge": "bge-reranker-base"}  # in README's order


def write_report(result: Result, folder: Path, name: str) -> list[Path]:
    """NAME.md in the folder and, where the main workload was measured, NAME.png. Returns what was written."""
    page, picture = folder / f"{name}.md", folder / f"{name}.png"
    charted = MAIN in result["workloads"]
    folder.mkdir(parents=True, exist_ok=True)
    page.write_text(report(result, chart=picture.name if charted else None), "utf-8")
    if not charted:
        return [page]
    draw(result, picture)
    return [page, picture]


def report(result: Result, *, chart: str | None = None) -> str:
    """The whole result as Markdown; `chart` is the address of its picture."""
    parts = [f"# Raskrank beside its peers: {result['model']}", conditions(result)]
    if chart:
        parts.append(f"![Passages a second]({chart})")
    for workload in result["workloads"].values():
        parts += [f"## {workload['title'].capitalize()}", speed_table(workload)]
    if result["start"]:
        parts += ["## Fresh processes", start_table(result["start"])]
    if result["threads"]:
        parts += ["## Raskrank by threads", threads_table(result)]
    if result["limits"]:
        parts += ["## Share of the machine's limit", limits_table(result["limits"])]
    parts += ["## Who was measured, and how", participants(result)]
    return "\n\n".join(parts) + "\n"


def conditions(result: Result) -> str:
    machine = result["machine"]
    return (
        f"{result['architecture']}, {result['parameters'] / 1e6:.1f} million parameters. {machine['cpu']}, {machine['cores']} "
        f"cores, {', '.join(machine['instruction_sets'])}; {machine['system']}, Python {machine['python']}; "
        f"{result['date']}. Norwegian texts: {result['texts']}.\n\n"
        "All contenders were loaded at once and took turns, one call each a round; where memory is short, who holds more "
        "than 2 GB lets go of it between turns, and is warm again before the next. Times are of the whole call, tokenizing "
        "included. *Times ours*: the ratio of the medians, with the range of the rounds' own ratios. *Padding*: padded over "
        "real tokens, less one, of the batches that a contender makes. *Tau* and *drift*: Kendall's tau and the largest "
        "difference of a score between 0 and 1, against PyTorch."
    )


def speed_table(workload: Measured) -> str:
    ours = workload["contenders"].get(OURS)
    rows = []
    for name, timing in sorted(workload["contenders"].items(), key=lambda item: median(item[1]["seconds"])):
        middle = median(timing["seconds"])
        times = ratio(timing["seconds"], ours["seconds"]) if ours else None
        size = f" (batches of {timing['batch_size']})" if timing["batch_size"] else ""
        rows.append(
            [
                _bold(name) + size,
                milliseconds(middle),
                milliseconds(p95(timing["seconds"])),
                digits(workload["passages"] / middle),
                digits(workload["tokens"] / middle),
                _times(times) if times else "–",
                f"{timing['padding']:.0%}",
                "–" if timing["tau"] is None else f"{timing['tau']:.4f}",
                "–" if timing["drift"] is None else f"{timing['drift']:.4f}",
            ]
        )
    header = ["", "median ms", "p95 ms", "passages/s", "tokens/s", "times ours", "padding", "tau", "drift"]
    rounds = max((len(timing["seconds"]) for timing in workload["contenders"].values()), default=0)
    return f"{_count(rounds, 'round')}, {workload['tokens']:,} tokens.\n\n" + _table(header, rows)


def start_table(start: dict[str, Started]) -> str:
    ours = start.get(OURS)
    rows = []
    for name, started in sorted(start.items(), key=lambda item: median(item[1]["first"])):
        first, resident = median(started["first"]), median(started["resident"])
        rows.append(
            [
                _bold(name),
                f"{first:.2f}",
                f"{first / median(ours['first']):.1f}" if ours else "–",
                f"{resident / 1e6:,.0f}",
                f"{median(started['private']) / 1e6:,.0f}",
                f"{median(ours['resident']) / resident:.2f}" if ours else "–",
            ]
        )
    header = ["", "first score s", "times ours", "resident MB", "of it private", "ours / theirs"]
    return "From a process's start to its first score, and memory after 100 passages of mixed length; medians.\n\n" + _table(
        header, rows
    )


def threads_table(result: Result) -> str:
    counts = next(iter(result["threads"].values()))
    rows = []
    for name, seconds in result["threads"].items():
        one = median(seconds["1"])
        cells = [f"{milliseconds(median(times))} ({one / median(times):.2f}x)" for times in seconds.values()]
        rows.append([next(workload.title for workload in WORKLOADS if workload.name == name), *cells])
    return "Median ms, and how many times as fast as one thread.\n\n" + _table(
        ["", *(_count(int(count), "thread") for count in counts)], rows
    )


def limits_table(limits: Limits) -> str:
    peaks = [
        [_count(int(threads), "thread"), *(f"{peak[kind]:,.0f}" for kind in ("int8", "fp32"))]
        for threads, peak in limits["peaks"].items()
    ]
    shares = [
        [
            share["title"],
            str(share["threads"]),
            milliseconds(share["limit"]),
            milliseconds(undisturbed(share["seconds"])),
            f"{share['limit'] / undisturbed(share['seconds']):.0%}",
        ]
        for share in limits["shares"]
    ]
    return (
        "Matrix products through onnxruntime, billions of operations a second:\n\n"
        + _table(["", "int8", "fp32"], peaks)
        + "\n\nThe limit is the time of the int8 products at the int8 peak and of attention at the fp32 peak, the last layer's "
        "query, output and feed-forward products on one row; the rest is taken to cost nothing (`limits.py`). Peaks and "
        "times are those of the fastest tenth of the calls, which others on the machine disturbed least.\n\n"
        + _table(["", "threads", "limit ms", "Raskrank int8 ms", "share"], shares)
    )


def participants(result: Result) -> str:
    measured = [
        [_bold(name), about["setting"], ", ".join(f"{package} {number}" for package, number in about["versions"].items())]
        for name, about in result["contenders"].items()
        if about["versions"] or not about["problem"]
    ]
    text = _table(["", "setting", "versions"], measured, numbers=False)
    problems = [f"- {name}: {about['problem']}" for name, about in result["contenders"].items() if about["problem"]]
    return text + ("\n\nNot measured, or not everywhere:\n\n" + "\n".join(problems) if problems else "")


def readme_table(found: Sequence[Result]) -> str:
    """What stands between README's markers: speed and start, a column group a model, then the limit and the conditions."""
    names = [name for name in found[0]["contenders"] if any(_speed(result, name) for result in found)]
    names.sort(key=lambda name: next(median(seconds) for result in found if (seconds := _speed(result, name))))
    titles = [TITLES.get(result["model"], result["model"]) for result in found]
    speed = _table(
        ["100 passages of mixed length", *(cell for title in titles for cell in (f"{title}, ms", "times ours"))],
        [[_bold(name), *(cell for result in found for cell in _speed_cells(result, name))] for name in names],
    )
    started = [name for name in names if any(name in result["start"] for result in found)]
    start = _table(
        ["a fresh process", *(cell for title in titles for cell in (f"{title}, first score s", "resident MB"))],
        [[_bold(name), *(cell for result in found for cell in _start_cells(result, name))] for name in started],
    )
    shares = [_shares(title, result["limits"]) for title, result in zip(titles, found, strict=True) if result["limits"]]
    return "\n\n".join([speed, *([start] if started else []), *shares, _small_print(found)])


def write_readme(readme: str, table: str) -> str:
    """README's text with the table between its markers. Raises ValueError where they are not there, once and in order."""
    before, begin, rest = readme.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end) or BEGIN in rest or END in after:
        raise ValueError(f"README.md needs the lines {BEGIN} and {END}, once and in this order")
    return f"{before}{BEGIN}\n{table}\n{END}{after}"


def committed() -> list[Result]:
    """The results in benchmarks/results, in README's order."""
    found = [results.read(file) for file in sorted(RESULTS.glob("*.json"))]
    order = list(TITLES)
    return sorted(found, key=lambda result: order.index(result["model"]) if result["model"] in order else len(order))


def milliseconds(seconds: float) -> str:
    return digits(seconds * 1e3)


def _speed(result: Result, name: str) -> list[float] | None:
    timing = result["workloads"].get(MAIN, {"contenders": {}})["contenders"].get(name)
    return timing["seconds"] if timing else None


def _speed_cells(result: Result, name: str) -> tuple[str, str]:
    theirs, ours = _speed(result, name), _speed(result, OURS)
    if theirs is None or ours is None:
        return "–", "–"
    times = ratio(theirs, ours)
    return milliseconds(median(theirs)), "1" if name == OURS else _times(times)


def _start_cells(result: Result, name: str) -> tuple[str, str]:
    started = result["start"].get(name)
    return (f"{median(started['first']):.2f}", f"{median(started['resident']) / 1e6:,.0f}") if started else ("–", "–")


def _shares(title: str, limits: Limits) -> str:
    shares = [
        f"{share['limit'] / undisturbed(share['seconds']):.0%} for {share['title']} on {_count(share['threads'], 'thread')}"
        for share in limits["shares"]
    ]
    return f"Share of what the machine's matrix products allow, {title}: {', '.join(shares)}."


def _small_print(found: Sequence[Result]) -> str:
    machines = dict.fromkeys(
        f"{result['machine']['cpu']}, {_count(result['machine']['cores'], 'core')} "
        f"({', '.join(result['machine']['instruction_sets'])}), {result['date']}"
        for result in found
    )
    versions: dict[str, str] = {}
    for result in found:
        for about in result["contenders"].values():
            versions |= about["versions"]
    packages = ", ".join(f"{package} {versions[package]}" for package in sorted(versions, key=str.lower))
    missing = "".join(
        f" Not measured everywhere, {result['model']}: {name} ({about['problem']})."
        for result in found
        for name, about in result["contenders"].items()
        if about["problem"]
    )
    return (
        f"{'; '.join(machines)}. Everyone takes turns in one run on the same weights and texts; medians, ratios with the range "
        f"of the rounds' own (none: one round).{missing} {packages}. How each was set, and all other workloads: "
        "`python benchmarks/report.py benchmarks/results/MODEL.json`."
    )


def _times(times: Ratio) -> str:
    """Median and, of several rounds, the range; two decimals where they matter."""
    middle, least, most = (f"{value:.1f}" if value >= 10 else f"{value:.2f}" for value in times)
    return middle if least == most else f"{middle} ({least}–{most})"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _bold(name: str) -> str:
    return f"**{name}**" if name == OURS else name


def _table(header: Sequence[str], rows: Sequence[Sequence[str]], *, numbers: bool = True) -> str:
    """Numbers stand to the right, texts to the left."""
    lines = [header, ["---", *["---:" if numbers else "---"] * (len(header) - 1)], *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", nargs="*", type=Path, help="result files")
    parser.add_argument("--readme", action="store_true", help="write the table of README.md")
    arguments = parser.parse_args()
    for file in arguments.file:
        print(*write_report(results.read(file), WORK / "results", file.stem), sep="\n")
    if arguments.readme:
        if not (found := committed()):
            parser.error(f"no results in {RESULTS}")
        README.write_text(write_readme(README.read_text("utf-8"), readme_table(found)), "utf-8")
        print(README)


if __name__ == "__main__":
    main()
