"""All that one result file says, as a Markdown page."""

from statistics import median

from benchmarks.harness.contender import OURS
from benchmarks.harness.machines import title
from benchmarks.harness.results import Limits, Measured, Result, Started, p95, ratio, undisturbed
from benchmarks.harness.tables import bold, count, digits, milliseconds, table, times_text
from benchmarks.harness.workloads import WORKLOADS


def page(result: Result, *, chart: str | None = None) -> str:
    """The whole result as Markdown; `chart` is the address of its picture."""
    parts = [f"# Beside its peers: {title(result)}", conditions(result)]
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
                bold(name) + size,
                milliseconds(middle),
                milliseconds(p95(timing["seconds"])),
                digits(workload["passages"] / middle),
                digits(workload["tokens"] / middle),
                times_text(times) if times else "–",
                f"{timing['padding']:.0%}",
                "–" if timing["tau"] is None else f"{timing['tau']:.4f}",
                "–" if timing["drift"] is None else f"{timing['drift']:.4f}",
            ]
        )
    header = ["", "median ms", "p95 ms", "passages/s", "tokens/s", "times ours", "padding", "tau", "drift"]
    rounds = max((len(timing["seconds"]) for timing in workload["contenders"].values()), default=0)
    return f"{count(rounds, 'round')}, {workload['tokens']:,} tokens.\n\n" + table(header, rows)


def start_table(start: dict[str, Started]) -> str:
    ours = start.get(OURS)
    rows = []
    for name, started in sorted(start.items(), key=lambda item: median(item[1]["first"])):
        first, resident = median(started["first"]), median(started["resident"])
        rows.append(
            [
                bold(name),
                f"{first:.2f}",
                f"{first / median(ours['first']):.1f}" if ours else "–",
                f"{resident / 1e6:,.0f}",
                f"{median(started['private']) / 1e6:,.0f}",
                f"{median(ours['resident']) / resident:.2f}" if ours else "–",
            ]
        )
    header = ["", "first score s", "times ours", "resident MB", "of it private", "ours / theirs"]
    return "From a process's start to its first score, and memory after 100 passages of mixed length; medians.\n\n" + table(
        header, rows
    )


def threads_table(result: Result) -> str:
    counts = next(iter(result["threads"].values()))
    rows = []
    for name, seconds in result["threads"].items():
        one = median(seconds["1"])
        cells = [f"{milliseconds(median(times))} ({one / median(times):.2f}x)" for times in seconds.values()]
        rows.append([next(workload.title for workload in WORKLOADS if workload.name == name), *cells])
    return "Median ms, and how many times as fast as one thread.\n\n" + table(
        ["", *(count(int(number), "thread") for number in counts)], rows
    )


def limits_table(limits: Limits) -> str:
    peaks = [
        [count(int(threads), "thread"), *(f"{peak[kind]:,.0f}" for kind in ("int8", "fp32"))]
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
        + table(["", "int8", "fp32"], peaks)
        + "\n\nThe limit is the time of the int8 products at the int8 peak and of attention at the fp32 peak, the last layer's "
        "query, output and feed-forward products on one row; the rest is taken to cost nothing (`harness/limits.py`). Peaks "
        "and times are those of the fastest tenth of the calls, which others on the machine disturbed least.\n\n"
        + table(["", "threads", "limit ms", "Raskrank int8 ms", "share"], shares)
    )


def participants(result: Result) -> str:
    measured = [
        [bold(name), about["setting"], ", ".join(f"{package} {number}" for package, number in about["versions"].items())]
        for name, about in result["contenders"].items()
        if about["versions"] or not about["problem"]
    ]
    text = table(["", "setting", "versions"], measured, numbers=False)
    problems = [f"- {name}: {about['problem']}" for name, about in result["contenders"].items() if about["problem"]]
    return text + ("\n\nNot measured, or not everywhere:\n\n" + "\n".join(problems) if problems else "")
