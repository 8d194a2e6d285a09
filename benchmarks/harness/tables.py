"""Numbers and Markdown tables as every page shows them."""

from collections.abc import Sequence

from benchmarks.harness.contender import OURS
from benchmarks.harness.results import Ratio


def table(header: Sequence[str], rows: Sequence[Sequence[str]], *, numbers: bool = True) -> str:
    """Numbers stand to the right, texts to the left; the first column is text."""
    lines = [header, ["---", *["---:" if numbers else "---"] * (len(header) - 1)], *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def bold(name: str) -> str:
    """Of contenders, ours."""
    return f"**{name}**" if name == OURS else name


def count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def digits(value: float) -> str:
    """A number with three digits or more: 5,135, 41.2, 0.85."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def milliseconds(seconds: float) -> str:
    return digits(seconds * 1e3)


def times_text(times: Ratio) -> str:
    """Median and, of several rounds, the range; two decimals where they matter."""
    middle, least, most = (f"{value:.1f}" if value >= 10 else f"{value:.2f}" for value in times)
    return middle if least == most else f"{middle} ({least}–{most})"
