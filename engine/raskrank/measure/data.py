"""The data of a comparison: passages, queries, and which passages are relevant to which query."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from reprlib import repr as short
from typing import Any, NamedTuple, TypeGuard

from raskrank.errors import InputError
from raskrank.quoting import kind_of, shown
from raskrank.reading import check_text, read_lines, read_objects, readable
from raskrank.samples import DEFAULT

FORMATS = (
    'a folder as BEIR has them, with corpus.jsonl and queries.jsonl ({"_id": ..., "text": ...} a line, with "title" and '
    '"language" if known) and qrels/test.tsv (query id, passage id and grade a line, tabs between), or with passages.jsonl, '
    'queries.jsonl and qrels.tsv; or a file with {"query": ..., "positives": [...], "negatives": [...]} a line, with '
    '"language" if known'
)
MIN_PASSAGES = 2
_GRADE = re.compile("-?[0-9]{1,4}")  # some TREC judgments are below 0; they count as irrelevant, as 0 does


class _Layout(NamedTuple):
    """The names of the files in a folder."""

    passages: str
    queries: str
    grades: str


LAYOUTS = (
    _Layout(passages="passages.jsonl", queries="queries.jsonl", grades="qrels.tsv"),
    _Layout(passages="corpus.jsonl", queries="queries.jsonl", grades="qrels/test.tsv"),
)


@dataclass(frozen=True, kw_only=True)
class Query:
    """A query, and the ids of its passages."""

    id: str
    text: str
    language: str | None
    grades: Mapping[str, int]  # of the relevant passages, 1 or more
    negatives: tuple[str, ...] | None  # what to rank beside them; None: whatever a search finds


@dataclass(frozen=True, kw_only=True)
class Data:
    """All passages, id to text, and the queries that have a relevant one. Both are in the order of their files."""

    passages: Mapping[str, str]
    queries: tuple[Query, ...]


def read_data(path: Path) -> Data:
    """Read one of the FORMATS, UTF-8; blank lines are skipped.

    A query without a language has that of its relevant passages, if it is one. Raises InputError, which names file and line
    and never quotes a text, and LimitError for a text that is longer than models are given.
    """
    with readable(shown(path), FORMATS):  # a name may be too long even to look
        folder = path.is_dir()
    data = _read_folder(path) if folder else _read_file(path)
    if not data.queries:
        raise InputError(f"{shown(path)}: no query has a relevant passage, so there is nothing to compare")
    if len(set(data.passages.values())) < MIN_PASSAGES:
        raise InputError(
            f"{shown(path)}: one passage alone cannot be ranked, at least {MIN_PASSAGES} different ones are needed"
        )
    return data


def read_samples() -> Data:
    """Our own samples: {"query": ..., "documents": [...], "relevant": [index, ...], "language": ...} a line.

    The documents of a query are those of its line, each text once.
    """
    lines = []
    for line in DEFAULT.read_text("utf-8").splitlines():
        item = json.loads(line)
        relevant = [item["documents"][index] for index in item["relevant"]]
        others = dict.fromkeys(text for text in item["documents"] if text not in relevant)
        lines.append((item["query"], relevant, list(others), item["language"]))
    return _from_lists(lines)


def _read_folder(folder: Path) -> Data:
    files = next((files for files in LAYOUTS if (folder / files.passages).is_file()), LAYOUTS[0])
    passages, queries = (_read_texts(folder / name) for name in (files.passages, files.queries))
    grades = _read_grades(folder / files.grades, queries, passages, files)
    found = []
    for name, (text, language) in queries.items():
        relevant = {passage: grade for passage, grade in grades[name].items() if grade > 0}
        if relevant:
            shared = {passages[passage][1] for passage in relevant}
            known = language or (shared.pop() if len(shared) == 1 else None)
            found.append(Query(id=name, text=text, language=known, grades=relevant, negatives=None))
    return Data(passages={name: text for name, (text, _) in passages.items()}, queries=tuple(found))


def _read_texts(file: Path) -> dict[str, tuple[str, str | None]]:
    """Text and language by id. A title is put in front of the text, as is usual with BEIR."""
    texts: dict[str, tuple[str, str | None]] = {}
    places: dict[str, str] = {}
    for where, item in _objects(file):
        name, text, title = item.get("id", item.get("_id")), item.get("text"), item.get("title") or ""
        if not isinstance(name, str) or not name or not isinstance(text, str) or not isinstance(title, str):
            raise InputError(
                f'{where}: expected {{"id": ..., "text": ...}}, perhaps with "title": strings, the id, or "_id", not empty'
            )
        if name in places:
            raise InputError(f"{where}: the id {short(name)} stands on {places[name]} already")
        places[name] = where.removeprefix(f"{shown(file)}, ")
        texts[name] = check_text(f"{title} {text}" if title else text, where), _language(item, where)
    if not texts:
        raise InputError(f'{shown(file)}: empty; expected {{"id": ..., "text": ...}} a line')
    return texts


def _read_grades(
    file: Path, queries: Mapping[str, object], passages: Mapping[str, object], files: "_Layout"
) -> dict[str, dict[str, int]]:
    """Grades by query and passage. If the grade on the first line is not a number, that line is the header."""
    grades: dict[str, dict[str, int]] = {name: {} for name in queries}
    for number, where, line in _lines(file):
        fields = line.split("\t")
        if len(fields) != 3 or not (number == 1 or _GRADE.fullmatch(fields[2])):
            raise InputError(f"{where}: expected query id, tab, passage id, tab, grade, a whole number from -9999 to 9999")
        query, passage, grade = fields
        if not _GRADE.fullmatch(grade):
            continue
        for name, known, other in ((query, queries, files.queries), (passage, passages, files.passages)):
            if name not in known:
                raise InputError(f"{where}: {other} has no id {short(name)}")
        if passage in grades[query]:
            raise InputError(f"{where}: query {short(query)} and passage {short(passage)} have a grade already")
        grades[query][passage] = int(grade)
    return grades


def _read_file(file: Path) -> Data:
    if file.suffix.lower() in (".csv", ".tsv"):
        raise InputError(f"{shown(file)}: {file.suffix[1:].upper()} is not read; expected {FORMATS}")
    lines = []
    for where, item in _objects(file):
        query, positives, negatives = (item.get(key) for key in ("query", "positives", "negatives"))
        if not isinstance(query, str) or not _are_texts(positives) or not _are_texts(negatives):
            raise InputError(
                f'{where}: expected {{"query": text, "positives": [text, ...], "negatives": [text, ...]}}, neither list empty'
            )
        if len({*positives, *negatives}) < len(positives) + len(negatives):
            raise InputError(f"{where}: a text stands twice in positives and negatives")
        for text in (query, *positives, *negatives):
            check_text(text, where)
        lines.append((query, positives, negatives, _language(item, where)))
    return _from_lists(lines)


def _from_lists(lines: Sequence[tuple[str, list[str], list[str], str | None]]) -> Data:
    """lines: query, positives, negatives and language of each."""
    passages: dict[str, str] = {}
    queries = []
    for number, (query, positives, negatives, language) in enumerate(lines, 1):
        texts = [*positives, *negatives]
        names = [f"{number}.{index}" for index in range(len(texts))]
        passages.update(zip(names, texts, strict=True))
        grades = dict.fromkeys(names[: len(positives)], 1)
        negative_names = tuple(names[len(positives) :])
        queries.append(Query(id=str(number), text=query, language=language, grades=grades, negatives=negative_names))
    return Data(passages=passages, queries=tuple(queries))


def _objects(file: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each JSON object, after its place for a message."""
    for _, where, item in read_objects(file, FORMATS):
        if not isinstance(item, dict):
            raise InputError(f"{where}: expected a JSON object, got {kind_of(item)}")
        yield where, item


def _lines(file: Path) -> Iterator[tuple[int, str, str]]:
    """The lines that are not blank: number from 1, place for a message, and text."""
    name = shown(file)
    with readable(name, FORMATS), file.open("rb") as stream:
        for number, line in read_lines(stream, name):
            if line.strip():
                yield number, f"{name}, line {number}", line.removesuffix("\n").removesuffix("\r")


def _language(item: Mapping[str, Any], where: str) -> str | None:
    language = item.get("language")
    if not isinstance(language, str | None):
        raise InputError(f'{where}: "language" must be a string, got {kind_of(language)}')
    return language


def _are_texts(value: object) -> TypeGuard[list[str]]:
    return isinstance(value, list) and bool(value) and all(isinstance(item, str) for item in value)
