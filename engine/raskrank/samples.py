"""The pairs on which an export is judged: our own set, or the caller's file."""

import importlib.resources
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from raskrank.errors import InputError
from raskrank.gate import MIN_RANKED

DEFAULT = importlib.resources.files("raskrank") / "samples.jsonl"


class Sample(NamedTuple):
    """A query and the documents that are ranked for it."""

    query: str
    documents: tuple[str, ...]


def read_samples(file: Path | None = None) -> list[Sample]:
    """The samples of a file, or the set that comes with Raskrank.

    JSON Lines: {"query": str, "documents": [str, ...]} a line, other keys are ignored. TSV (a name ending in .tsv): query and
    document a line, without a header; lines of one query form a sample. UTF-8. Raises InputError with file and line.
    """
    name = "the default samples" if file is None else str(file)
    try:
        text = DEFAULT.read_text("utf-8") if file is None else file.read_text("utf-8-sig")
    except OSError as error:
        raise InputError(f"{name}: cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{name}: not UTF-8 text at byte {error.start}") from None
    lines = [(number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
    if file is not None and file.suffix == ".tsv":
        grouped: dict[str, list[str]] = {}
        for number, line in lines:
            query, tab, document = line.rstrip("\r").partition("\t")
            if not tab or "\t" in document:
                raise InputError(f"{name}, line {number}: expected query, tab, document")
            grouped.setdefault(query, []).append(document)
        samples = [Sample(query, tuple(documents)) for query, documents in grouped.items()]
    else:
        samples = [_parse(line, f"{name}, line {number}") for number, line in lines]
    documents = Counter(query for query, _ in as_pairs(samples))
    ranked = sum(count > 1 for count in documents.values())
    if ranked < MIN_RANKED:
        raise InputError(f"{name}: {ranked} queries with two or more documents, at least {MIN_RANKED} are needed")
    return samples


def as_pairs(samples: Sequence[Sample]) -> list[tuple[str, str]]:
    return [(sample.query, document) for sample in samples for document in sample.documents]


def _parse(line: str, where: str) -> Sample:
    try:
        data = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where}: not JSON: {getattr(error, 'msg', error)}") from None
    if not isinstance(data, dict) or not isinstance(data.get("query"), str):
        raise InputError(f'{where}: expected {{"query": text, "documents": [text, ...]}}')
    documents = data.get("documents")
    if not isinstance(documents, list) or not all(isinstance(document, str) for document in documents):
        raise InputError(f'{where}: "documents" must be a list of texts')
    for text in (data["query"], *documents):
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise InputError(f"{where}: not valid Unicode, a lone surrogate at character {error.start} of a text") from None
    return Sample(data["query"], tuple(documents))
