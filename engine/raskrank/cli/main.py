"""The command line: runs a command, a file of its own each, and turns what it raises into a line and an exit code."""

import argparse
import logging
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress

from raskrank.cli.arguments import parse
from raskrank.errors import InputError, MissingExtra, MissingFile, RaskrankError, RaskrankWarning
from raskrank.quoting import shown
from raskrank.terminal import OutputError, open_standard_streams, say, show


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code. argv: arguments without the program's name, by default the process's own."""
    try:
        open_standard_streams()
        for stream in (sys.stdout, sys.stderr):
            with suppress(AttributeError, ValueError):  # closed, or replaced by an object without an encoding
                stream.reconfigure(encoding="utf-8", errors="backslashreplace")  # type: ignore[union-attr]
        with _warnings_shown():
            return _run(sys.argv[1:] if argv is None else argv)
    except KeyboardInterrupt:
        say("interrupted")
        return 130
    except (InputError, MissingExtra, MissingFile) as error:
        say(f"error: {error}")
        return 2
    except (RaskrankError, OutputError) as error:
        say(f"error: {error}")
        return 1
    except OSError as error:
        # A path is one that was given, or lies in such a folder; without one it is the system that fails.
        say(f"error: {shown(os.fsdecode(error.filename))}: {error.strerror}" if error.filename else f"error: {error}")
        return 2 if error.filename else 1


def _run(argv: Sequence[str]) -> int:
    try:
        arguments = parse(argv)
    except SystemExit as done:  # how argparse ends --help and --version
        if not done.code:
            show("", end="")  # argparse lets what it wrote wait
        return int(done.code or 0)
    return _command(arguments.command)(arguments)


def _command(name: str) -> Callable[[argparse.Namespace], int]:
    """Imported when asked for: `rank` does not wait for what `compare` needs."""
    match name:
        case "export":
            from raskrank.cli.export import run
        case "rank":
            from raskrank.cli.rank import run
        case "score":
            from raskrank.cli.score import run
        case "info":
            from raskrank.cli.info import run
        case "verify":
            from raskrank.cli.verify import run
        case "compare":
            from raskrank.cli.compare import run
        case "serve":
            from raskrank.cli.serve import run
        case _:
            from raskrank.cli.bench import run
    return run


@contextmanager
def _warnings_shown() -> Iterator[None]:
    """The engine's log of warnings goes to standard error while a command runs."""
    handler, logger = _LogLines(logging.WARNING), logging.getLogger("raskrank")
    logger.addHandler(handler)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RaskrankWarning)  # the log has them, too
            yield
    finally:
        logger.removeHandler(handler)


class _LogLines(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        say(f"{record.levelname.lower()}: {record.getMessage()}")
