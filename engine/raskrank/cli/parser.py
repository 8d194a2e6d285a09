"""argparse, with errors that are InputErrors, and commands that all say their exit codes."""

import argparse
import math
import textwrap
from contextlib import suppress
from itertools import pairwise
from typing import NoReturn

from raskrank.errors import InputError

WRONG_USE = "wrong use: arguments, input that cannot be read, no such bundle"


class Parser(argparse.ArgumentParser):
    """Raises its errors as InputError."""

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message} (see: {self.prog} --help)")


class Commands:
    """The commands of a parser."""

    def __init__(self, parser: Parser) -> None:
        self._parsers = parser.add_subparsers(metavar="COMMAND", required=True)

    def add(self, name: str, summary: str, more: str, example: str, failure: str, *extra: str) -> Parser:
        codes = f"  0    done\n  1    {failure}\n  2    {WRONG_USE}\n  130  interrupted"
        command: Parser = self._parsers.add_parser(
            name,
            help=summary,
            description="\n".join([f"{summary[0].upper()}{summary[1:]}.", "", *textwrap.wrap(more, 78), *extra]),
            epilog=f"example:\n{textwrap.indent(example, '  ')}\n\nexit codes:\n{codes}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        command.set_defaults(command=name)
        command.add_argument("--json", action="store_true", help="print JSON, and nothing else, on standard output")
        return command


def count(text: str) -> int:
    with suppress(ValueError):
        if (number := int(text)) >= 1:
            return number
    raise argparse.ArgumentTypeError(f"expected a whole number of at least 1, got {text!r}")


def natural(text: str) -> int:
    with suppress(ValueError):
        if (number := int(text)) >= 0:
            return number
    raise argparse.ArgumentTypeError(f"expected a whole number of at least 0, got {text!r}")


def number(text: str) -> float:
    with suppress(ValueError):
        if not math.isnan(number := float(text)):
            return number
    raise argparse.ArgumentTypeError(f"expected a number, got {text!r}")


def counts(text: str) -> tuple[int, ...]:
    """Whole numbers between commas, none above the one before."""
    numbers = tuple(count(part) for part in text.split(","))
    if any(later > earlier for earlier, later in pairwise(numbers)):
        raise argparse.ArgumentTypeError(f"expected numbers that do not rise, got {text!r}")
    return numbers


def seconds(text: str) -> float:
    with suppress(ValueError):
        if 0 < (number := float(text)) < math.inf:
            return number
    raise argparse.ArgumentTypeError(f"expected a number of seconds above 0, got {text!r}")


def price(text: str) -> float:
    with suppress(ValueError):
        if 0 <= (number := float(text)) < math.inf:
            return number
    raise argparse.ArgumentTypeError(f"expected a number of at least 0, got {text!r}")
