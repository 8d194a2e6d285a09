"""What there is to do: the files of a job, checked, and the parts of each."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import PurePath
from typing import Any

from raskrank.bulk.job import Format, Job, Model, Settings
from raskrank.bulk.lines import JsonLines
from raskrank.bulk.parquet import Parquet
from raskrank.bulk.part import Part, Reader
from raskrank.bulk.sources import Source, find
from raskrank.bulk.tables import Table

READERS: Mapping[Format, Callable[[Source, Settings], Reader[Any]]] = {
    "parquet": Parquet,
    "jsonl": JsonLines,
    "csv": Table,
    "tsv": Table,
}


def reader_of(source: Source, settings: Settings) -> Reader[Any]:
    """Raises InputError where the file does not hold what the settings say, MissingExtra for Parquet without pyarrow."""
    return READERS[source.format](source, settings)


class Plan:
    """The files of a job, and their parts in order.

    Making one looks at every file, and reads those of text through, since nothing in them says where their rows begin. Raises
    InputError and MissingExtra as `reader_of`.
    """

    def __init__(self, job: Job) -> None:
        self.job = job
        self.sources = find(job.inputs, job.output, job.format)
        readers = [reader_of(source, job.settings) for source in self.sources]
        self.parts = [part for number, reader in enumerate(readers) for part in reader.parts(number, job.part_rows)]

    @property
    def rows(self) -> int:
        return sum(part.rows for part in self.parts)

    def asked(self, model: Model) -> dict[str, object]:
        """For the journal: what decides what stands in the output."""
        inputs = [source.identity() for source in self.sources]
        return {"bundle": model.manifest_sha256, "backend": model.backend, **self.job.identity(), "inputs": inputs}


def place_of(part: Part, sources: Sequence[Source]) -> str:
    """Of a part's file, below the output."""
    source = sources[part.source]
    return str(PurePath(source.folder, part.name(source.format)))
