"""The pairs on which an export is judged: our own set, or the caller's file."""

import importlib.resources
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from raskrank.errors import InputError
from raskrank.gate import MIN_RANKED
from raskrank.quoting import shown
from raskrank.reading import check_text, read_lines, read_objects, readable

DEFAULT = importlib.resources.files("raskrank") / "samples.jsonl"
FORMATS = '{"query": ..., "documents": [...]} a line, or a .tsv file with query, tab and document a line'


class Sample(NamedTuple):
    """A query and the documents that are ranked for it."""

    query: str
    documents: tuple[str, ...]


def read_samples(file: Path | None = None) -> list[Sample]:
    """The samples of a file, or the set that comes with Raskrank.

    JSON Lines, or a JSON array, of {"query": str, "documents": [str, ...]}; other keys are ignored. TSV (a name ending in
    .tsv): query and document a line, without a header; lines of one query form a sample. UTF-8. Raises InputError with file and
    line.
    """
    if file is None:
        name = "the default samples"
        samples = [_parse(json.loads(line), name) for line in DEFAULT.read_text("utf-8").splitlines()]
    else:
        name, suffix = shown(file), file.suffix.lower()
        if suffix == ".csv":
            raise InputError(f"{name}: CSV is not read as samples; expected {FORMATS}")
        if suffix == ".tsv":
            samples = _read_tsv(file, name)
        else:
            samples = [_parse(value, where) for _, where, value in read_objects(file, FORMATS)]
    documents = Counter(query for query, _ in as_pairs(samples))
    ranked = sum(count > 1 for count in documents.values())
    if ranked < MIN_RANKED:
        raise InputError(f"{name}: {ranked} queries with two or more documents, at least {MIN_RANKED} are needed")
    return samples


def as_pairs(samples: Sequence[Sample]) -> list[tuple[str, str]]:
    return [(sample.query, document) for sample in samples for document in sample.documents]


def _read_tsv(file: Path, name: str) -> list[Sample]:
    grouped: dict[str, list[str]] = {}
    with readable(name, FORMATS), file.open("rb") as stream:
        for number, line in read_lines(stream, name):
            query, tab, document = line.removesuffix("\n").rstrip("\r").partition("\t")
            if not line.strip():
                continue
            where = f"{name}, line {number}"
            if not tab or "\t" in document:
                raise InputError(f"{where}: expected query, tab, document")
            grouped.setdefault(check_text(query, where), []).append(check_text(document, where))
    return [Sample(query, tuple(documents)) for query, documents in grouped.items()]


def _parse(data: object, where: str) -> Sample:
    if not isinstance(data, dict) or not isinstance(data.get("query"), str):
        raise InputError(f'{where}: expected {{"query": text, "documents": [text, ...]}}')
    documents = data.get("documents")
    if not isinstance(documents, list) or not all(isinstance(document, str) for document in documents):
        raise InputError(f'{where}: "documents" must be a list of texts')
    for text in (data["query"], *documents):
        check_text(text, where)
    return Sample(data["query"], tuple(documents))
