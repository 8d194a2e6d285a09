"""Tables as text and as Markdown, and the numbers and paragraphs beside them."""

import textwrap
from collections.abc import Sequence

from raskrank.printable import shorten, width

CELL_COLUMNS = 48  # of Markdown; longer cells, which are names of models, are cut


def plain_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A line for each row. The first column is aligned to the left, the others to the right."""
    return "\n".join(map("  ".join, _aligned([header, *rows], left=1)))


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]], *, left: int = 2) -> str:
    """A Markdown table that is aligned as text too: the first `left` columns to the left, the others to the right."""
    cells = [header, *([shorten(cell, CELL_COLUMNS).replace("|", "\\|") for cell in row] for row in rows)]
    first, *lines = [f"| {' | '.join(row)} |" for row in _aligned(cells, left)]
    rule = [f"{'-' * (size + 1)}{'-' if column < left else ':'}" for column, size in enumerate(_widths(cells))]
    return "\n".join([first, f"|{'|'.join(rule)}|", *lines])


def _aligned(cells: Sequence[Sequence[str]], left: int) -> list[list[str]]:
    """The rows, each cell padded to the width of its column."""
    widths, padded = _widths(cells), []
    for row in cells:
        spaces = [" " * (size - width(cell)) for cell, size in zip(row, widths, strict=True)]
        texts = [cell + space for cell, space in zip(row[:left], spaces[:left], strict=True)]
        numbers = [space + cell for cell, space in zip(row[left:], spaces[left:], strict=True)]
        padded.append(texts + numbers)
    return padded


def _widths(cells: Sequence[Sequence[str]]) -> list[int]:
    return [max(map(width, column)) for column in zip(*cells, strict=True)]


def number(value: float, *, thousands: str = "") -> str:
    """To three digits, or more before the point. thousands: what stands between groups of these, "" or ","."""
    decimals = 2 if value < 9.995 else 1 if value < 99.95 else 0
    return f"{value:{thousands}.{decimals}f}"


def wrapped(text: str, columns: int) -> list[str]:
    """Lines of at most `columns`, but for words that are longer; no word is torn."""
    return textwrap.wrap(text, columns, break_long_words=False, break_on_hyphens=False)
