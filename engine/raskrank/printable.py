"""Texts made safe and short enough for a terminal, and tables that fit it."""

import unicodedata
from collections.abc import Iterator, Sequence

MIN_TEXT_COLUMNS = 10  # on a narrower terminal lines wrap: less text than this says nothing
MAX_CHARS = 4096  # of a text that is to be shortened; more than a line holds, whatever is invisible in it
MAX_MARKS = 8  # combining marks on one character; more of them would be drawn over other lines
ELLIPSIS = "…"
_JOINERS = "\u200c\u200d"  # invisible, but without them Persian words and emoji of several parts fall apart
_EMOJI_STYLE = "\ufe0f"


def safe(text: str) -> str:
    """`text` on one line, without anything that a terminal would obey: control characters, newlines, marks of direction.

    Each white space becomes a space; code points that have no glyph of their own become U+FFFD.
    """
    return text if text.isascii() and text.isprintable() else "".join(map(_visible, text))


def plain(text: str) -> str:
    """`safe(text)`, with one space for each run of white space."""
    return " ".join(safe(text).split())


def safe_lines(text: str) -> str:
    """Several lines, each of them `safe`."""
    return "\n".join(map(safe, text.split("\n")))


def width(text: str) -> int:
    """Columns that a plain text takes, at most; terminals that draw a cluster of emoji as one take fewer."""
    return len(text) if text.isascii() else sum(_columns(cluster) for cluster in _clusters(text))


def shorten(text: str, limit: int) -> str:
    """`plain(text)`, cut between characters with an ellipsis where it takes more than `limit` columns."""
    shown = plain(text[:MAX_CHARS])
    whole = len(text) <= MAX_CHARS
    kept, used, fits = "", 0, 0  # fits: length of the longest beginning that leaves room for the ellipsis
    for cluster in _clusters(shown):
        used += _columns(cluster)
        if used > limit:
            whole = False
            break
        kept += cluster
        if used < limit:
            fits = len(kept)
    return kept if whole else kept[:fits].rstrip() + ELLIPSIS


def table(header: Sequence[str], rows: Sequence[Sequence[str]], limit: int) -> list[str]:
    """Lines of at most `limit` columns. The last column is text, to the left and shortened; the others stand to the right."""
    cells = [header, *rows]
    widths = [max(width(row[column]) for row in cells) for column in range(len(header) - 1)]
    room = max(limit - sum(widths) - 2 * len(widths), MIN_TEXT_COLUMNS)
    lines = []
    for row in cells:
        parts = [" " * (size - width(cell)) + cell for size, cell in zip(widths, row, strict=False)]
        lines.append("  ".join([*parts, shorten(row[-1], room)]).rstrip())
    return lines


def _visible(char: str) -> str:
    category = unicodedata.category(char)
    if category in ("Cc", "Zl", "Zp", "Zs"):
        return " "
    if category == "Cf":
        return char if char in _JOINERS else ""
    return "\ufffd" if category in ("Cn", "Co", "Cs") else char


def _clusters(text: str) -> Iterator[str]:
    """Parts of a plain text that a cut must not tear: a character with its marks, and what joiners hold together."""
    cluster, marks = "", 0
    for char in text:
        mark = unicodedata.category(char) in ("Mn", "Me", "Mc")
        if cluster and (mark or char in _JOINERS or cluster[-1] == _JOINERS[1]):
            marks += mark
            if not mark or marks <= MAX_MARKS:
                cluster += char
        else:
            if cluster:
                yield cluster
            cluster, marks = char, 0
    if cluster:
        yield cluster


def _columns(cluster: str) -> int:
    total = 0
    for char in cluster:
        if unicodedata.east_asian_width(char) in "WF":
            total += 2
        elif char == _EMOJI_STYLE:
            total += 1  # makes the character before it an emoji, two columns wide in newer terminals
        elif unicodedata.category(char) not in ("Mn", "Me", "Cf"):
            total += 1
    return total
