"""The chart of README's first screen: how many times our time each peer takes, a panel for each machine."""

from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.harness.chart import OTHERS_COLOUR, OURS_COLOUR, TEXT_COLOUR
from benchmarks.harness.contender import OURS
from benchmarks.harness.machines import kind, model
from benchmarks.harness.results import Result
from benchmarks.harness.span import peers, ratios
from benchmarks.harness.tables import milliseconds
from benchmarks.harness.workloads import MAIN

AHEAD_COLOUR, FAINT_COLOUR = "#4b6a88", "#8b949c"
WIDTH, DPI = 8.0, 200  # inches: 1,600 pixels, shown at half of that on an ordinary screen
ROW, HEAD, TITLES, FOOT = 0.27, 0.72, 0.55, 0.3  # inches of height: a bar's row, title, titles of panels, note
NEAR = 1.5  # ratios below it have two decimals
LEFT = 0.012  # of the width, where texts begin


def draw_panels(found: Sequence[Result], file: Path) -> None:
    """Write a PNG of the main workload of results of one model, in the order given."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    names = [OURS, *peers(found)]
    longest = max(value for result in found for value in ratios(result, MAIN).values())
    height = HEAD + FOOT + TITLES + ROW * len(names)
    layout = ConstrainedLayoutEngine(rect=(0, FOOT / height, 1, 1 - (HEAD + FOOT) / height), w_pad=0.06)
    figure, panels = pyplot.subplots(1, len(found), figsize=(WIDTH, height), sharey=True, squeeze=False, layout=layout)
    for axes, result in zip(panels[0], found, strict=True):
        _panel(axes, result, names, longest)
    panels[0][0].set_yticks(range(len(names)), names, fontsize=9, color=TEXT_COLOUR)
    panels[0][0].get_yticklabels()[0].set(weight="bold", color=OURS_COLOUR)
    title = f"How many times as long as {OURS} the others take"
    about = f"{model(found[0])}, a query with {found[0]['workloads'][MAIN]['title']}, by kind of CPU"
    note = "Shorter is faster; blue is ahead of us. Same weights, texts and cores for everyone, in turns; ratios of medians. "
    dates = " and ".join(sorted({result["date"] for result in found}))
    figure.text(LEFT, 1 - 0.3 / height, title, fontsize=14, weight="bold", color=TEXT_COLOUR)
    figure.text(LEFT, 1 - 0.55 / height, about, fontsize=10, color=TEXT_COLOUR)
    figure.text(LEFT, 0.1 / height, f"{note}{dates}", fontsize=8, color=FAINT_COLOUR)
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=DPI, facecolor="white", metadata={"Software": None})
    pyplot.close(figure)


def _panel(axes: Any, result: Result, names: Sequence[str], longest: float) -> None:
    """A machine's bars, one for each name; the first is ours."""
    values = {OURS: 1.0, **ratios(result, MAIN)}
    ours = median(result["workloads"][MAIN]["contenders"][OURS]["seconds"])
    axes.axvline(1, color=OURS_COLOUR, linewidth=1, linestyle=(0, (4, 2)), zorder=0)
    for row, name in enumerate(names):
        if (value := values.get(name)) is None:
            axes.text(1 + 0.03 * longest, row, "not measured", va="center", fontsize=8, color=FAINT_COLOUR)
            continue
        colour = OURS_COLOUR if name == OURS else AHEAD_COLOUR if round(value, 2) < 1 else OTHERS_COLOUR
        text = f"{milliseconds(ours)} ms" if name == OURS else f"{value:.2f} x" if value < NEAR else f"{value:.1f} x"
        axes.barh(row, value, color=colour, height=0.72)
        weight = "bold" if name == OURS else "normal"
        axes.text(max(value, 1) + 0.03 * longest, row, text, va="center", fontsize=9, color=TEXT_COLOUR, weight=weight)
    axes.set_xlim(0, 1.22 * longest)
    axes.set_ylim(len(names) - 0.45, -0.55)
    axes.set_xticks([])
    axes.tick_params(axis="y", length=0)
    axes.spines[["top", "right", "bottom", "left"]].set_visible(False)
    axes.set_title(kind(result["machine"]), loc="left", fontsize=9.5, weight="bold", color=TEXT_COLOUR, pad=16)
    cpu = result["machine"]["cpu"].replace("(R)", "")
    axes.text(0, 1.012, cpu, transform=axes.transAxes, fontsize=8, color=FAINT_COLOUR)
