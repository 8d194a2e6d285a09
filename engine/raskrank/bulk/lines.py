"""JSON Lines. Each line is written as it was read, byte for byte, with more at the end of its object."""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import BinaryIO, Generic, TypeVar

import numpy as np

from raskrank.bulk.job import Settings
from raskrank.bulk.part import BATCH_BYTES, BATCH_ROWS, Added, Part
from raskrank.bulk.sources import Source
from raskrank.errors import InputError
from raskrank.quoting import kind_of, shown, shown_keys
from raskrank.reading import BOM, parse_json, read_lines, readable
from raskrank.rows import Lines

Content = TypeVar("Content")


@dataclass(frozen=True, kw_only=True)
class Rows(Generic[Content]):
    """A batch. rows: of JSON the text of each line, of CSV its cells. numbers: of the lines or rows in the file, from 1."""

    name: str
    unit: str
    rows: Sequence[Content]
    numbers: Sequence[int]
    queries: Sequence[object]
    documents: Sequence[object]

    def place(self, index: int) -> str:
        return f"{self.name}, {self.unit} {self.numbers[index]}"


class Counted:
    """Lines of a file from its beginning. offset: bytes before the next of them. number: of the last of them."""

    def __init__(self, lines: Lines, source: Source) -> None:
        with source.path.open("rb") as stream:
            self.offset = len(BOM) if stream.read(len(BOM)) == BOM else 0
        self._lines, self.number = lines, 0

    def __iter__(self) -> Iterator[tuple[int, str]]:
        for number, text in self._lines:
            self.number = number
            self.offset += len(text) if text.isascii() else len(text.encode())
            yield number, text


class JsonLines:
    """A reader of JSON Lines: an object a line, the first of which has the two fields."""

    def __init__(self, source: Source, settings: Settings) -> None:
        self._source, self._settings, self._name = source, settings, shown(source.name)
        for number, line in islice(self._lines(0), 1):
            item = self._object(number, line)
            check_columns([*item], settings, f"{self._name}, line {number}", f"it has {shown_keys(item)}")

    def parts(self, number: int, rows: int) -> Iterator[Part]:
        with readable(self._name), self._source.path.open("rb") as stream:
            lines = Counted(read_lines(stream, self._name), self._source)
            filled = (line for line in lines if line[1].strip())
            first, offset, piece = 0, 0, 0
            while taken := sum(1 for _ in islice(filled, rows)):
                yield Part(number, 0, piece, taken, first, offset)
                first, offset, piece = lines.number, lines.offset, piece + 1

    def batches(self, part: Part) -> Iterator[Rows[str]]:
        columns, lines = self._settings.columns, islice(self._lines(part.offset), part.rows)
        while batch := limited(lines, lambda line: len(line[1])):
            numbers = [part.first + number for number, _ in batch]
            objects = [self._object(number, line) for number, (_, line) in zip(numbers, batch, strict=True)]
            yield Rows(
                name=self._name,
                unit="line",
                rows=[line for _, line in batch],
                numbers=numbers,
                queries=[item.get(columns.query) for item in objects],
                documents=[item.get(columns.document) for item in objects],
            )

    def writer(self, file: BinaryIO) -> "JsonWriter":
        return JsonWriter(file, self._settings.added)

    def _lines(self, offset: int) -> Iterator[tuple[int, str]]:
        with readable(self._name), self._source.path.open("rb") as stream:
            stream.seek(offset)
            yield from (line for line in read_lines(stream, self._name, offset) if line[1].strip())

    def _object(self, number: int, line: str) -> dict[str, object]:
        where = f"{self._name}, line {number}"
        item = parse_json(line, where)
        if not isinstance(item, dict):
            raise InputError(f"{where}: expected an object, got {kind_of(item)}")
        check_free([*item], self._settings, where)
        return item


class JsonWriter:
    def __init__(self, file: BinaryIO, names: Sequence[str]) -> None:
        self._file, self._keys = file, [json.dumps(name, ensure_ascii=False) for name in names]

    def write(self, batch: Rows[str], added: Sequence[Added]) -> None:
        for line, one in zip(batch.rows, added, strict=True):
            values = (value or "null" for value in texts_of(one, len(self._keys)))
            more = ", ".join(f"{key}: {value}" for key, value in zip(self._keys, values, strict=True))
            self._file.write(f"{line.rstrip().removesuffix('}').rstrip()}, {more}}}\n".encode())

    def close(self) -> None:
        pass


def check_columns(names: Sequence[str], settings: Settings, where: str, has: str) -> None:
    """Raises InputError unless the columns that are read are there, once, and those that are added are not."""
    for name, option in ((settings.columns.query, "--query-column"), (settings.columns.document, "--document-column")):
        if names.count(name) != 1:
            count = "several columns are" if name in names else "no column is"
            raise InputError(f'{where}: {count} called "{shown(name)}"; {has}; say which with {option}')
    check_free(names, settings, where)


def check_free(names: Sequence[str], settings: Settings, where: str) -> None:
    """Raises InputError where a column that is added is there already."""
    for name in settings.added:
        if name in names:
            raise InputError(f'{where}: has a column "{shown(name)}" already; --prefix P puts P in front of what is added')


def texts_of(added: Added, columns: int) -> list[str]:
    """What stands in so many added columns of JSON or CSV: a score as short as gives the same float32; "" for None."""
    score = "" if added.score is None else str(np.float32(added.score))
    truncated = "" if added.truncated is None else str(added.truncated).lower()
    return [score, truncated, *map(str, added.span or ("", ""))][:columns]


Row = TypeVar("Row")


def limited(rows: Iterator[Row], size: Callable[[Row], int]) -> list[Row]:
    """As many of the rows as make a batch. size: of a row, about, in bytes."""
    batch, total = list[Row](), 0
    for row in islice(rows, BATCH_ROWS):
        batch.append(row)
        total += size(row)
        if total >= BATCH_BYTES:
            break
    return batch
