"""Parquet, by pyarrow. A part is of one row group, and keeps the columns, their types and the compression of its file."""

from collections.abc import Generator, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, BinaryIO

from raskrank.bulk.job import Settings
from raskrank.bulk.lines import check_columns
from raskrank.bulk.part import BATCH_BYTES, BATCH_ROWS, GO_ON, Added, Part
from raskrank.bulk.sources import Source
from raskrank.errors import InputError
from raskrank.extras import need
from raskrank.quoting import named, shown

READ_BYTES = 1 << 20  # of a column at once; without it a whole row group is read before its first row
GROUP_BYTES = 1 << 25  # of a row group of the output, at least: readers do not like small ones


class ParquetBatch:
    """Rows of a file. rows: a RecordBatch of pyarrow."""

    def __init__(self, rows: Any, settings: Settings, name: str, group: int, first: int) -> None:
        self.rows = rows
        self.queries: list[object] = rows.column(settings.columns.query).to_pylist()
        self.documents: list[object] = rows.column(settings.columns.document).to_pylist()
        self._name, self._group, self._first = name, group, first

    def place(self, index: int) -> str:
        return _place(self._name, self._group, self._first + index)


class Parquet:
    """A reader of Parquet."""

    def __init__(self, source: Source, settings: Settings) -> None:
        need("Parquet", "bulk", "pyarrow")
        self._source, self._settings, self._name = source, settings, shown(source.name)
        self._group: _Group | None = None
        with self._opened() as file:
            self._schema = file.schema_arrow
            self._groups = [file.metadata.row_group(number).num_rows for number in range(file.num_row_groups)]
            columns = file.metadata.row_group(0).num_columns if self._groups else 0
            codec = file.metadata.row_group(0).column(0).compression if columns else "SNAPPY"
            self._compression = "NONE" if codec == "UNCOMPRESSED" else codec
            names = file.schema_arrow.names
            check_columns(names, settings, self._name, f"it has {', '.join(map(named, names[:10]))}")
            for name in (settings.columns.query, settings.columns.document):
                self._check_type(name)
            if settings.bad_rows == "stop":
                self._check_nulls(file)

    def parts(self, number: int, rows: int) -> Iterator[Part]:
        for group, size in enumerate(self._groups):
            for piece, first in enumerate(range(0, size, rows)):
                yield Part(number, group, piece, min(rows, size - first), first, 0)

    def batches(self, part: Part) -> Iterator[ParquetBatch]:
        if self._group is None or not self._group.goes_on_with(part):
            if self._group is not None:
                self._group.close()
            self._group = _Group(self._opened(), part.group)
        for first, rows in self._group.take(part.first, part.rows):
            yield ParquetBatch(rows, self._settings, self._name, part.group, first)

    def writer(self, file: BinaryIO) -> "ParquetWriter":
        return ParquetWriter(file, self._schema, self._settings, self._compression)

    @contextmanager
    def _opened(self) -> Iterator[Any]:
        import pyarrow as pa
        from pyarrow import parquet

        try:
            with parquet.ParquetFile(self._source.path, buffer_size=READ_BYTES, pre_buffer=False) as file:
                yield file
        except pa.ArrowException as error:  # it may be of any length, and quote what stands in the file
            raise InputError(f"{self._name}: cannot be read as Parquet ({type(error).__name__})") from None
        except OSError as error:
            raise InputError(f"{self._name}: cannot be read: {error.strerror or 'no sound Parquet'}") from None

    def _check_type(self, name: str) -> None:
        from pyarrow import types

        found = self._schema.field(name).type
        kind = found.value_type if types.is_dictionary(found) else found
        views = getattr(types, "is_string_view", types.is_string)
        if not (types.is_string(kind) or types.is_large_string(kind) or views(kind)):
            raise InputError(f'{self._name}: column "{shown(name)}" holds {named(found)}; expected text (string)')

    def _check_nulls(self, file: Any) -> None:
        """What the statistics of the file say, before anything is scored."""
        for group in range(file.num_row_groups):
            columns = [file.metadata.row_group(group).column(number) for number in range(file.metadata.num_columns)]
            for column in columns:
                name, statistics = column.path_in_schema, column.statistics
                if name not in (self._settings.columns.query, self._settings.columns.document) or statistics is None:
                    continue
                if statistics.has_null_count and statistics.null_count:
                    where = _place(self._name, group, _first_null(file, group, name))
                    raise InputError(f'{where}: "{shown(name)}" is null; {GO_ON}')


class _Group:
    """A row group that is read from its beginning; parts that follow one another share one way through it."""

    def __init__(self, opened: AbstractContextManager[Any], number: int) -> None:
        self._number, self._row, self._rest = number, 0, None
        self._batches = self._read(opened)

    def goes_on_with(self, part: Part) -> bool:
        return part.group == self._number and part.first >= self._row

    def take(self, first: int, count: int) -> Iterator[tuple[int, Any]]:
        """Row and rows of each batch of `count` rows from row `first` on, which is not before what was taken."""
        end = first + count
        while self._row < end:
            batch = self._rest if self._rest is not None else next(self._batches)
            start, stop = max(first - self._row, 0), min(end - self._row, batch.num_rows)
            row, self._rest = self._row, batch.slice(stop) if stop < batch.num_rows else None
            self._row += stop
            if start < stop:
                yield row + start, batch.slice(start, stop - start)

    def close(self) -> None:
        self._batches.close()

    def _read(self, opened: AbstractContextManager[Any]) -> Generator[Any]:
        with opened as file:
            yield from file.iter_batches(batch_size=_batch_rows(file.metadata, self._number), row_groups=[self._number])


class ParquetWriter:
    """Writes row groups of GROUP_BYTES, the last of which may be smaller."""

    def __init__(self, file: BinaryIO, schema: Any, settings: Settings, compression: str) -> None:
        from pyarrow import parquet

        self._settings, self._schema = settings, schema
        for field, _ in columns_of(settings, []):
            self._schema = self._schema.append(field)
        self._writer = parquet.ParquetWriter(file, self._schema, compression=compression)
        self._waiting: list[Any] = []

    def write(self, batch: ParquetBatch, added: Sequence[Added]) -> None:
        import pyarrow as pa

        columns = [*batch.rows.columns, *(column for _, column in columns_of(self._settings, added))]
        self._waiting.append(pa.RecordBatch.from_arrays(columns, schema=self._schema))
        if sum(rows.nbytes for rows in self._waiting) >= GROUP_BYTES:
            self._flush()

    def close(self) -> None:
        if self._waiting:
            self._flush()
        self._writer.close()

    def _flush(self) -> None:
        import pyarrow as pa

        waiting, self._waiting = self._waiting, []
        self._writer.write_table(pa.Table.from_batches(waiting, self._schema))


def _place(name: str, group: int, row: int) -> str:
    return f"{name}, row group {group}, row {row} of it (both counted from 0)"


def columns_of(settings: Settings, added: Sequence[Added]) -> list[tuple[Any, Any]]:
    """Field and array of each column that is added."""
    import pyarrow as pa

    spans = [one.span or (None, None) for one in added]
    columns = (
        (pa.float32(), [one.score for one in added]),
        (pa.bool_(), [one.truncated for one in added]),
        (pa.int32(), [start for start, _ in spans]),
        (pa.int32(), [end for _, end in spans]),
    )
    return [
        (pa.field(name, kind), pa.array(values, kind)) for name, (kind, values) in zip(settings.added, columns, strict=False)
    ]


def _batch_rows(metadata: Any, group: int) -> int:
    """Rows of a row group that take about BATCH_BYTES."""
    row_group = metadata.row_group(group)
    width: int = max(1, row_group.total_byte_size // max(1, row_group.num_rows))
    return max(1, min(BATCH_ROWS, BATCH_BYTES // width))


def _first_null(file: Any, group: int, name: str) -> int:
    row = 0
    for batch in file.iter_batches(batch_size=BATCH_ROWS, row_groups=[group], columns=[name]):
        for index, valid in enumerate(batch.column(0).is_valid().to_pylist()):
            if not valid:
                return row + index
        row += batch.num_rows
    return row
