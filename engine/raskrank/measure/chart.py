"""The chart of a comparison: quality against time."""

from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from raskrank.errors import InputError
from raskrank.extras import need
from raskrank.measure.compare import COUNTS, About, Result
from raskrank.measure.quality import DEPTH
from raskrank.printable import shorten

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COUNT = COUNTS[-1]  # passages of the calls whose time is shown
NAME_COLUMNS = 40  # longer names of models are cut
STYLES = {
    "native int8": ("o", "tab:blue"),
    "onnx int8": ("v", "tab:cyan"),
    "onnx fp32": ("s", "tab:green"),
    "torch fp32": ("^", "tab:red"),
}
OTHER_STYLE = ("D", "tab:gray")
# Where a name may stand beside its point: to the right or left, and how far up, in typographic points; nearest first.
PLACES = sorted(product((-9, 9), range(-120, 121, 6)), key=lambda place: (abs(place[1]), place[0]))
MARGIN = 8  # pixels around a name; half a marker is as wide
STEPS = 100  # points of each line, from which names are kept away


class Point(NamedTuple):
    """A result in the chart."""

    ms: float
    ndcg: float


def check_chart(file: Path) -> None:
    """Find out before anything is measured what would fail after it. Raises MissingExtra or InputError."""
    need("--chart", "compare", "matplotlib")
    if file.suffix.lower() != ".png":
        raise InputError(f"--chart: expected a file name that ends in .png, got {file.name}")
    if not file.absolute().parent.is_dir():
        raise InputError(f"--chart: there is no folder {file.parent}")


def draw_chart(results: Sequence[Result], about: About, file: Path) -> None:
    """Write a PNG with a point for each result, at its median time (logarithmic) and mean nDCG.

    A line joins the points of a model, and its name stands beside them. Raises OSError if the file cannot be written.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, NullFormatter

    points = [Point(result.calls[COUNT].median * 1e3, result.overall.quality.ndcg) for result in results]
    figure = Figure(figsize=(8, 5), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    for runs in dict.fromkeys(result.runs for result in results):
        marker, color = STYLES.get(runs, OTHER_STYLE)
        own = [point for point, result in zip(points, results, strict=True) if result.runs == runs]
        axes.scatter(*zip(*own, strict=True), marker=marker, color=color, label=runs, zorder=2)
    lines = {}
    for name in dict.fromkeys(result.name for result in results):
        lines[name] = sorted(point for point, result in zip(points, results, strict=True) if result.name == name)
        axes.plot(*zip(*lines[name], strict=True), color="lightgray", linewidth=1, zorder=1)
    axes.set_xscale("log")
    axes.set_xlim(min(point.ms for point in points) / 3, max(point.ms for point in points) * 2)
    low, high = min(point.ndcg for point in points), max(point.ndcg for point in points)
    room = max(0.01, (high - low) / 5)
    axes.set_ylim(low - room, high + room)
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel(f"one query with {COUNT} passages, median time in ms (logarithmic)")
    axes.set_ylabel(f"mean nDCG@{DEPTH}, 0 to 1")
    axes.set_title(f"{about.queries} queries, up to {about.candidates} candidates each", fontsize="medium")
    axes.grid(alpha=0.3)
    figure.legend(loc="outside lower center", ncols=len(STYLES) + 1, frameon=False)
    figure.draw_without_rendering()  # settles the layout, from which the places of names follow
    _write_names(axes, lines)
    figure.savefig(file)


def _write_names(axes: "Axes", lines: Mapping[str, Sequence[Point]]) -> None:
    """Write each name at the first of the PLACES that is inside the axes and free of other names, points and lines."""
    from matplotlib.transforms import Bbox, offset_copy

    inside, taken = axes.get_window_extent(), list[Bbox]()
    pixels = [axes.transData.transform(line) for line in lines.values()]  # (points, 2) each
    drawn = np.concatenate(
        [np.linspace(line[:-1], line[1:], STEPS).reshape(-1, 2) for line in pixels if len(line) > 1] + pixels
    )
    for name, (point, *_) in lines.items():
        for across, up in PLACES:
            moved = offset_copy(axes.transData, axes.get_figure(root=True), across, up, units="points")
            align = "left" if across > 0 else "right"
            label = axes.text(
                *point, shorten(name, NAME_COLUMNS), transform=moved, ha=align, va="center", fontsize="small", parse_math=False
            )
            extent = label.get_window_extent().padded(MARGIN)
            free = not extent.count_overlaps(taken) and not extent.count_contains(drawn)
            if free and inside.contains(*extent.min) and inside.contains(*extent.max):
                taken.append(extent)
                if up:
                    leader = {"arrowstyle": "-", "color": "gray", "linewidth": 0.5}
                    axes.annotate("", point, (across, up), textcoords="offset points", arrowprops=leader)
                break
            label.remove()
