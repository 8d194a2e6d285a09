"""A picture of a result: passages a second of every contender, longest bar first, ours in its own colour."""

from pathlib import Path
from statistics import median

from benchmarks.harness.machines import kind, model
from benchmarks.harness.results import Result
from benchmarks.harness.tables import digits
from benchmarks.harness.workloads import MAIN

OURS_COLOUR, OTHERS_COLOUR, TEXT_COLOUR = "#b5371f", "#a9b4bf", "#2b2f33"


def draw(result: Result, file: Path) -> None:
    """Write a PNG of the main workload. Whiskers reach from the slowest to the fastest round."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    workload = result["workloads"][MAIN]
    rates = {
        name: [workload["passages"] / seconds for seconds in timing["seconds"]]
        for name, timing in workload["contenders"].items()
    }
    middles = {name: workload["passages"] / median(timing["seconds"]) for name, timing in workload["contenders"].items()}
    names = sorted(rates, key=lambda name: middles[name])
    medians = [middles[name] for name in names]
    spread = [
        [middle - min(rates[name]) for name, middle in zip(names, medians, strict=True)],
        [max(rates[name]) - middle for name, middle in zip(names, medians, strict=True)],
    ]
    figure, axes = pyplot.subplots(figsize=(9, 1.2 + 0.42 * len(names)), layout="constrained")
    colours = [OURS_COLOUR if name.startswith("Raskrank") else OTHERS_COLOUR for name in names]
    axes.barh(names, medians, xerr=spread, color=colours, height=0.7, error_kw={"ecolor": TEXT_COLOUR, "elinewidth": 1})
    longest = max(max(rate) for rate in rates.values())
    for row, name in enumerate(names):
        axes.text(max(rates[name]) + 0.012 * longest, row, digits(medians[row]), va="center", color=TEXT_COLOUR)
    axes.set_xlim(0, 1.1 * longest)
    axes.margins(y=0.01)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0, labelcolor=TEXT_COLOUR)
    axes.set_xlabel("passages a second", color=TEXT_COLOUR)
    machine = result["machine"]
    axes.set_title(
        f"{model(result)}: a query with {workload['title']}\n{machine['cpu']}, {kind(machine)}, {result['date']}",
        loc="left",
        fontsize=11,
        color=TEXT_COLOUR,
    )
    figure.savefig(file, dpi=150)
    pyplot.close(figure)
