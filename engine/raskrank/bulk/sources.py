"""The files of the input: found, and recognized when a run goes on."""

import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

from raskrank.bulk.job import FORMATS, Format
from raskrank.errors import InputError
from raskrank.quoting import shown
from raskrank.reading import readable

SUFFIXES: dict[str, Format] = {
    ".parquet": "parquet",
    ".pq": "parquet",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".csv": "csv",
    ".tsv": "tsv",
}
# Of a large file as many pieces are read, of so many bytes each, evenly spread from its beginning to its end.
PIECES, PIECE = 16, 1 << 16


@dataclass(frozen=True, kw_only=True)
class Source:
    """A file of the input.

    name: for messages and the journal: below the folder that was named, or its own.
    folder: of its parts, below the output: as its own below the folder that was named.
    size: bytes. sample: SHA-256, in hexadecimal, of the file, or of pieces of it if it is large.
    """

    path: Path
    name: str
    folder: str
    format: Format
    size: int
    sample: str

    def identity(self) -> dict[str, object]:
        """For JSON: equal for a copy of the file elsewhere, other for a file that was changed."""
        return {"name": self.name, "size": self.size, "sample": self.sample}


def find(inputs: Sequence[Path], output: Path, asked: Format | None) -> list[Source]:
    """The files in the order in which they were named, those of a folder by their paths. Raises InputError.

    Of a folder all files count, at any depth, whose names say what they are (with `asked` all), unless the name of the file or
    of a folder on the way begins with "." or "_".
    """
    found = []
    for path in inputs:
        with readable(shown(path)):
            if path.is_dir():
                _refuse_nested(path, output)
                files = sorted(_files(path, anything=asked is not None))
                if not files:
                    raise InputError(f"{shown(path)}: no file in it ends in {', '.join(SUFFIXES)}")
                found += [_source(file, PurePath(file.relative_to(path)), asked) for file in files]
            else:
                found.append(_source(path, PurePath(path.name), asked))
    return found


def _files(folder: Path, *, anything: bool) -> Iterator[Path]:
    for path in folder.rglob("*"):
        hidden = any(part.startswith((".", "_")) for part in path.relative_to(folder).parts)
        if not hidden and (anything or path.suffix.lower() in SUFFIXES) and path.is_file():
            yield path


def _source(path: Path, name: PurePath, asked: Format | None) -> Source:
    format = asked or SUFFIXES.get(path.suffix.lower())
    if format is None:
        raise InputError(f"{shown(path)}: its name does not say what it is; say --format {', '.join(FORMATS)}")
    size = path.stat().st_size
    return Source(path=path, name=str(name), folder=str(name.parent), format=format, size=size, sample=_sample(path, size))


def _refuse_nested(folder: Path, output: Path) -> None:
    inner, outer = Path(os.path.realpath(output)), Path(os.path.realpath(folder))
    if inner == outer or outer in inner.parents:
        raise InputError(f"{shown(output)}: OUTPUT lies in the folder of the input, {shown(folder)}; choose another place")


def _sample(path: Path, size: int) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        if size <= PIECES * PIECE:
            digest.update(file.read())
        else:
            for piece in range(PIECES):
                file.seek((size - PIECE) * piece // (PIECES - 1))
                digest.update(file.read(PIECE))
    return digest.hexdigest()
