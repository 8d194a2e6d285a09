"""What a person sees of a command: the two streams, JSON, and progress."""

import json
import math
import os
import re
import shutil
import sys
import threading
from contextlib import suppress
from types import TracebackType
from typing import Self, TextIO

from raskrank.errors import RaskrankError
from raskrank.printable import ELLIPSIS, plain

COLUMNS = 80  # where the output is no terminal
MAX_SAID = 1000  # characters at each end of a message; one may repeat an argument or a path of any length
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
