"""CSV and TSV with a header. The output has the delimiter of the input, and quotes where they are needed."""

import csv
import io
from collections.abc import Iterator, Sequence
from itertools import chain, islice
from typing import BinaryIO, Literal, cast

from raskrank.bulk.job import Settings
from raskrank.bulk.lines import Counted, Rows, check_columns, limited, texts_of
from raskrank.bulk.part import Added, Part
from raskrank.bulk.sources import Source
from raskrank.errors import InputError
from raskrank.quoting import shown
from raskrank.reading import read_lines, readable
from raskrank.rows import Lines, delimiter_of, rows_of

Cells = dict[str, str]


class Table:
    """A reader of CSV or TSV."""

    def __init__(self, source: Source, settings: Settings) -> None:
        self._source, self._settings, self._name = source, settings, shown(source.name)
        self._format: Literal["csv", "tsv"] = "csv" if source.format == "csv" else "tsv"
        self._wanted = frozenset({settings.columns.query.lower(), settings.columns.document.lower()})
        self._head, self._names, self._delimiter = "", list[str](), "\t"
        with readable(self._name), source.path.open("rb") as stream:
            self._read_header(read_lines(stream, self._name))

    def parts(self, number: int, rows: int) -> Iterator[Part]:
        if not self._names:
            return
        with readable(self._name), self._source.path.open("rb") as stream:
            lines = Counted(read_lines(stream, self._name), self._source)
            found = rows_of(self._format, iter(lines), self._name, self._wanted)
            last, offset, piece = next(found).number, lines.offset, 0
            while taken := [row.number for row in islice(found, rows)]:
                yield Part(number, 0, piece, len(taken), last, offset)
                last, offset, piece = taken[-1], lines.offset, piece + 1

    def batches(self, part: Part) -> Iterator[Rows[list[str]]]:
        columns = self._settings.columns
        with readable(self._name), self._source.path.open("rb") as stream:
            stream.seek(part.offset)
            lines = chain([(part.first, self._head)], read_lines(stream, self._name, part.offset))
            found = rows_of(self._format, lines, self._name, self._wanted)
            next(found)
            rows = ((row.number, cast(Cells, row.value)) for row in islice(found, part.rows))
            while batch := limited(rows, lambda row: sum(map(len, row[1].values()))):
                yield Rows(
                    name=self._name,
                    unit="row",
                    rows=[[*cells.values()] for _, cells in batch],
                    numbers=[number for number, _ in batch],
                    queries=[cells[columns.query] for _, cells in batch],
                    documents=[cells[columns.document] for _, cells in batch],
                )

    def writer(self, file: BinaryIO) -> "TableWriter":
        writer = TableWriter(file, self._delimiter, quoted=self._format == "csv", added=len(self._settings.added))
        writer.write_header([*self._names, *self._settings.added])
        return writer

    def _read_header(self, lines: Lines) -> None:
        """Its text, names and delimiter; nothing where the file is empty."""
        taken = list[str]()
        filled = (taken.append(line[1]) or line for line in lines if taken or line[1].strip())  # type: ignore[func-returns-value]
        for number, value in islice(rows_of(self._format, filled, self._name, self._wanted), 1):
            names = cast(list[str], value)
            where, has = f"{self._name}, row {number}", f"it has {len(names)} fields and must be the header"
            check_columns(names, self._settings, where, has)
            if len({*names}) < len(names):
                raise InputError(f"{where}: two columns have the same name; rename one of them")
            self._head, self._names = "".join(taken), names
            self._delimiter = delimiter_of(taken[0], self._wanted) if self._format == "csv" else "\t"


class TableWriter:
    def __init__(self, file: BinaryIO, delimiter: str, *, quoted: bool, added: int) -> None:
        self._file, self._added = file, added
        self._text = io.StringIO(newline="")
        quoting: Literal[0, 3] = csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE
        quote = '"' if quoted else None
        self._writer = csv.writer(self._text, delimiter=delimiter, lineterminator="\n", quoting=quoting, quotechar=quote)

    def write_header(self, names: Sequence[str]) -> None:
        self._writer.writerow(names)
        self._flush()

    def write(self, batch: Rows[list[str]], added: Sequence[Added]) -> None:
        self._writer.writerows([*cells, *texts_of(one, self._added)] for cells, one in zip(batch.rows, added, strict=True))
        self._flush()

    def close(self) -> None:
        pass

    def _flush(self) -> None:
        self._file.write(self._text.getvalue().encode())
        self._text.seek(0)
        self._text.truncate()
