"""The rows of a file of documents in each format: lines of text, JSON Lines, a JSON array, CSV, TSV."""

import csv
import json
import re
from collections.abc import Iterator
from itertools import chain, count, dropwhile
from pathlib import PurePath
from typing import Literal, NamedTuple, get_args

from raskrank.errors import InputError
from raskrank.reading import MAX_LINE_BYTES, parse_array, parse_json

Format = Literal["text", "jsonl", "json", "csv", "tsv"]
FORMATS: tuple[Format, ...] = get_args(Format)
SUFFIXES: dict[str, Format] = {".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "json", ".csv": "csv", ".tsv": "tsv"}
UNITS: dict[Format, str] = {"text": "line", "jsonl": "line", "json": "item", "csv": "row", "tsv": "row"}
DELIMITERS = ",;\t"
# How JSON begins, and hardly any other text: {"key", {}, { and [{, ["text", [[, [], [ at the end of their line.
_BEGINS_JSON = re.compile(r'\s*(?:\{\s*(?:["}]|$)|\[\s*(?:[\[{"\]]|$))')

Lines = Iterator[tuple[int, str]]


class Row(NamedTuple):
    """number: as a person counts, from 1. value: a text, or an object with fields; in JSON it may be anything else."""

    number: int
    value: object


def format_of(name: str, lines: Lines, asked: Format | None) -> tuple[Format, bool, Lines]:
    """The format of a file, whether that is a guess from how it begins, and its lines, of which one had to be read.

    Decides: what was asked for, else the name, else the content. A file of JSON Lines may be called .json, too.
    """
    head = []
    for numbered in lines:
        head.append(numbered)
        if numbered[1].strip():
            break
    lines, first = chain(head, lines), head[-1][1] if head else ""
    named = SUFFIXES.get(PurePath(name).suffix.lower())
    if asked or named not in (None, "json"):
        return asked or named or "text", False, lines
    if named is None and not _BEGINS_JSON.match(first):
        return "text", False, lines
    return ("jsonl" if _is_object(first) else "json"), named is None, lines


def rows_of(format: Format, lines: Lines, name: str, wanted: frozenset[str]) -> Iterator[Row]:
    """The rows that are not blank. wanted: names of fields, in lower case, one of which a CSV's header will have."""
    if format == "text":
        return (Row(number, line.removesuffix("\n").removesuffix("\r")) for number, line in lines if line.strip())
    if format == "jsonl":
        return (Row(number, parse_json(line, f"{name}, line {number}")) for number, line in lines if line.strip())
    if format == "json":
        return _array(lines, name)
    return _table(lines, name, wanted, quoted=format == "csv")


def _array(lines: Lines, name: str) -> Iterator[Row]:
    texts = dropwhile(_is_blank, (line for _, line in lines))
    for first in texts:  # a file without any has no documents
        yield from (Row(number, value) for number, value in enumerate(parse_array(chain([first], texts), name), 1))


def _table(lines: Lines, name: str, wanted: frozenset[str], *, quoted: bool) -> Iterator[Row]:
    """Each row as an object. Rows are counted as a spreadsheet does: the header is the first."""
    csv.field_size_limit(max(csv.field_size_limit(), MAX_LINE_BYTES))  # it is the process's; of 128 KiB nothing is left
    start, first = next((numbered for numbered in lines if not _is_blank(numbered[1])), (0, ""))
    if not start:
        return
    quoting: Literal[0, 3] = csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE
    delimiter = delimiter_of(first, wanted) if quoted else "\t"
    texts = chain([first], (line for _, line in lines))
    reader = csv.reader(texts, delimiter=delimiter, quoting=quoting, strict=True)
    header: list[str] = []
    for number in count(start):
        try:
            cells = next(reader, None)
        except csv.Error as error:
            raise InputError(f"{name}, row {number}: not CSV: {str(error).partition(' - ')[0]}") from None
        if cells is None:
            return
        if not cells or (len(cells) == 1 < len(header) and _is_blank(cells[0])):
            continue
        if not header:
            header = [cell.strip() for cell in cells]
            yield Row(number, header)
            continue
        while len(cells) > len(header) and not cells[-1]:
            cells.pop()
        if len(cells) != len(header):
            rule = "in double quotes" if quoted else "in a file of CSV, in double quotes: TSV has none"
            raise InputError(
                f"{name}, row {number}: {len(cells)} fields, the header has {len(header)}; a field that holds a delimiter or "
                f"the end of a line stands {rule}"
            )
        yield Row(number, dict(zip(header, cells, strict=True)))


def delimiter_of(header: str, wanted: frozenset[str]) -> str:
    """Of the three, that which gives the header a field that is wanted, or else the most fields."""

    def fit(delimiter: str) -> tuple[bool, int]:
        try:
            names = next(csv.reader([header], delimiter=delimiter), [])
        except csv.Error:
            return False, 0
        return any(name.strip().lower() in wanted for name in names), len(names)

    return max(DELIMITERS, key=fit)


def _is_object(line: str) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False


def _is_blank(text: str) -> bool:
    return not text.strip()
