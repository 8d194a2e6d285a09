"""Files of text and JSON that a user names. What is wrong with one is an InputError that says where, and quotes no text."""

import codecs
import json
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import BinaryIO

from raskrank.errors import InputError, LimitError
from raskrank.quoting import kind_of, shown, shown_keys
from raskrank.texts import Limits, lone_surrogate

BOM = codecs.BOM_UTF8
READ_BYTES = 1 << 16  # at once, what a pipe holds: within one long read Python may miss a Ctrl-C
MAX_LINE_BYTES = 1 << 27  # a text of the greatest length with each character written as \uXXXX, and as much again
MAX_JSON_CHARS = 1 << 29  # of a JSON array, which is held whole and takes several times that in memory
_SIMPLE_KEY = re.compile("[A-Za-z_][A-Za-z0-9_]{0,39}")  # one that jq takes without quotes


@contextmanager
def readable(name: str, expected: str = "") -> Iterator[None]:
    """What the system says of a file while it is read, as InputError. expected: what to add, if anything."""
    try:
        yield
    except InputError:
        raise
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{name}: cannot be read: {reason}{expected and f'; expected {expected}'}") from error


def read_lines(stream: BinaryIO, name: str, start: int = 0) -> Iterator[tuple[int, str]]:
    """Number from 1, and text with its end, of each line of UTF-8; a byte order mark is left out. Only "\\n" ends a line."""
    for number, line in enumerate(_lines(stream, name), 1):
        mark = len(BOM) if not start and line.startswith(BOM) else 0
        try:
            text = line[mark:].decode()
        except UnicodeDecodeError as error:
            raise InputError(f"{name}: not UTF-8 text at byte {start + mark + error.start}") from None
        yield number, text
        start += len(line)


def read_objects(file: Path, expected: str = "") -> Iterator[tuple[int, str, object]]:
    """Number from 1, place for a message, and value: of each line of a file of JSON Lines that is not blank, or, where the
    first of them begins with "[", of each item of one JSON array. expected: what to say where it cannot be read."""
    name = shown(file)
    with readable(name, expected), file.open("rb") as stream:
        lines = (numbered for numbered in read_lines(stream, name) if numbered[1].strip())
        first = next(lines, (0, ""))
        if first[1].lstrip().startswith("["):
            for number, value in enumerate(parse_array((line for _, line in chain([first], lines)), name), 1):
                yield number, f"{name}, item {number}", value
        elif first[0]:
            for number, line in chain([first], lines):
                where = f"{name}, line {number}"
                yield number, where, parse_json(line, where)


def parse_json(text: str, where: str) -> object:
    """The value of a line."""
    try:
        return json.loads(text.rstrip("\r\n"))
    except json.JSONDecodeError as error:
        raise InputError(f"{where}: not JSON: {error.msg} at character {error.pos}") from None
    except (ValueError, RecursionError):
        raise InputError(f"{where}: JSON with numbers that are too long, or nested too deeply") from None


def parse_array(lines: Iterable[str], name: str) -> list[object]:
    """The items of a JSON array that makes up a whole file."""
    kept, size = [], 0
    for line in lines:
        kept.append(line)
        size += len(line)
        if size > MAX_JSON_CHARS:
            raise LimitError(
                f"{name}: JSON of more than {MAX_JSON_CHARS} characters in one array; jq -c '.[]' makes JSON Lines of it"
            )
    try:
        data = json.loads("".join(kept))
    except json.JSONDecodeError as error:
        raise InputError(f"{name}: not JSON: {error.msg} at line {error.lineno}, character {error.colno}") from None
    except (ValueError, RecursionError):
        raise InputError(f"{name}: JSON with numbers that are too long, or nested too deeply") from None
    if isinstance(data, list):
        return data
    keys = f" with {shown_keys(data)}" if isinstance(data, dict) else ""
    raise InputError(f"{name}: {kind_of(data)}{keys}, expected an array, or an object on each line{array_inside(data)}")


def check_text(text: str, where: str) -> str:
    """`text`, if a model would take it."""
    limit = Limits().max_text_chars
    if len(text) > limit:
        raise LimitError(f"{where}: a text of {len(text)} characters, more than {limit}")
    if (place := lone_surrogate(text)) is not None:
        raise InputError(f"{where}: not valid Unicode, a lone surrogate at character {place} of a text")
    return text


def array_inside(data: object) -> str:
    """How to make JSON Lines of the array that an object holds; "" if it holds none."""
    for key, value in data.items() if isinstance(data, dict) else ():
        if isinstance(value, list) and _SIMPLE_KEY.fullmatch(key):
            return f"; jq -c '.{key}[]' makes JSON Lines of the array in it"
    return ""


def _lines(stream: BinaryIO, name: str) -> Iterator[bytes]:
    parts: list[bytes] = []
    size = 0
    while part := stream.read1(READ_BYTES):  # type: ignore[attr-defined]
        *ended, rest = part.split(b"\n")
        for piece in ended:
            yield b"".join([*parts, piece, b"\n"])
            parts.clear()
            size = 0
        parts.append(rest)
        size += len(rest)
        if size > MAX_LINE_BYTES:
            raise LimitError(f"{name}: a line of more than {MAX_LINE_BYTES} bytes")
    if size:
        yield b"".join(parts)
