"""What a person sees: texts made safe and short enough for a terminal, tables that fit it, progress, and the two streams."""

import json
import math
import os
import re
import shutil
import sys
import threading
import unicodedata
from collections.abc import Iterator, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Self, TextIO

from raskrank.errors import RaskrankError

COLUMNS = 80  # where the output is no terminal
MIN_TEXT_COLUMNS = 10  # on a narrower terminal lines wrap: less text than this says nothing
MAX_CHARS = 4096  # of a text that is to be shortened; more than a line holds, whatever is invisible in it
MAX_MARKS = 8  # combining marks on one character; more of them would be drawn over other lines
MAX_SAID = 1000  # characters at each end of a message; one may repeat an argument or a path of any length
ELLIPSIS = "…"
_JOINERS = "\u200c\u200d"  # invisible, but without them Persian words and emoji of several parts fall apart
_EMOJI_STYLE = "\ufe0f"
# JSON leaves these as they are, and a terminal would obey them.
_UNSAFE_IN_JSON = re.compile("[\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


class OutputError(Exception):
    """Standard output cannot be written."""


def show(text: str, end: str = "\n") -> None:
    """Print on standard output, now. A reader that has left, as `head` does, is no error; raises OutputError for others."""
    if sys.stdout is None:
        return
    try:
        sys.stdout.write(text + end)
        sys.stdout.flush()
    except OSError as error:
        _give_up(sys.stdout)
        if not isinstance(error, BrokenPipeError):
            raise OutputError(f"standard output: {error.strerror}") from error


def say(message: str) -> None:
    """One line on standard error; a progress bar there stays whole."""
    if sys.stderr is None:
        return
    try:
        # What an interrupted bar, or ^C, left on the line goes.
        line = ("\r\x1b[K" if is_terminal(sys.stderr) else "") + f"raskrank: {_both_ends(plain(message))}"
        if (tqdm := sys.modules.get("tqdm")) is not None:
            tqdm.tqdm.write(line, file=sys.stderr)
        else:
            sys.stderr.write(line + "\n")
        sys.stderr.flush()
    except OSError:  # nobody reads it: the exit code has to do
        _give_up(sys.stderr)


def to_json(value: object, indent: int | None = None) -> str:
    """JSON that any reader and any terminal can take: NaN and infinity become null, control characters are escaped.

    Raises RaskrankError where it is nested too deeply for Python to write.
    """
    try:
        text = json.dumps(_finite(value), ensure_ascii=False, allow_nan=False, indent=indent)
    except RecursionError:
        raise RaskrankError("nested too deeply to be printed as JSON; leave out --json") from None
    return _UNSAFE_IN_JSON.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def is_terminal(stream: TextIO | None) -> bool:
    """False also for a stream that the process was started without."""
    return stream is not None and stream.isatty()


def columns(stream: TextIO | None) -> int:
    """Width of the terminal behind `stream`, or 80 where it is none."""
    return shutil.get_terminal_size((COLUMNS, 24)).columns if is_terminal(stream) else COLUMNS


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


class Bar:
    """A progress bar of `total` units on `stream`, gone when it closes. `advance` may be called from several threads.

    done: units that earlier runs did. rate: show how many are done in a second.
    """

    def __init__(self, name: str, total: int, stream: TextIO, *, done: int = 0, rate: bool = False) -> None:
        from tqdm import tqdm

        self._lock = threading.Lock()
        layout = f"{{desc}}  {{bar}}  {{n_fmt}}/{{total_fmt}}, {'{rate_noinv_fmt}, ' if rate else ''}{{remaining}} left"
        self._bar = tqdm(
            total=total,
            initial=done,
            desc=name,
            file=stream,
            leave=False,
            dynamic_ncols=True,
            bar_format=layout,
            unit="",
        )

    def advance(self, units: int) -> None:
        with self._lock:
            self._bar.update(units)

    def close(self) -> None:
        self._bar.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


class Steps:
    """The progress of a command on `stream`: a line for each step, which stays with its time; a bar meanwhile if it counts."""

    def __init__(self, stream: TextIO) -> None:
        self._stream, self._step = stream, ""
        self._bar: Bar | None = None

    def start(self, step: str, total: int | None) -> None:
        self._step = step
        if total is not None:
            self._bar = Bar(step, total, self._stream)
        else:
            self._stream.write(f"{step} {ELLIPSIS}")
            self._stream.flush()

    def advance(self, units: int) -> None:
        if self._bar is not None:
            self._bar.advance(units)

    def finish(self, seconds: float) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None
        # Longer than what start wrote, so it covers that.
        self._stream.write(f"\r{self._step:<24}{duration(seconds):>12}\n")
        self._stream.flush()


def duration(seconds: float) -> str:
    """Such as "1.2 s", "3 min 20 s" or "5 h 03 min"."""
    if seconds < 99.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 120:
        return f"{minutes} min {rest:02} s"
    return f"{minutes // 60} h {minutes % 60:02} min"


def open_standard_streams() -> None:
    """Where the process was started without one of the three, the null device takes its number. Else the next file that is
    opened would, and what a library prints would be written into it, such as a bundle's weights."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free


def _both_ends(message: str) -> str:
    return message if len(message) <= 2 * MAX_SAID else f"{message[:MAX_SAID]} {ELLIPSIS} {message[-MAX_SAID:]}"


def _give_up(stream: TextIO) -> None:
    """At exit Python would try again what is still in the buffer, and complain."""
    with suppress(OSError):  # it has no number
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, stream.fileno())
        os.close(null)


def _finite(value: object) -> object:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    return [_finite(item) for item in value] if isinstance(value, list | tuple) else value


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
