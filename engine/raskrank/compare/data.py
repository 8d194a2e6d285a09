"""What a comparison is made on: passages, queries, and which passages answer which query."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from reprlib import repr as short
from typing import Any, TypeGuard

from raskrank.errors import InputError, LimitError
from raskrank.samples import DEFAULT
from raskrank.texts import Limits

FORMATS = (
    'a folder with passages.jsonl and queries.jsonl ({"id": ..., "text": ...} a line, with "language" if known) and '
    'qrels.tsv (query id, passage id and grade a line, tabs between), or a file with {"query": ..., "positives": [...], '
    '"negatives": [...]} a line, with "language" if known'
)
MIN_PASSAGES = 2
_GRADE = re.compile("[0-9]{1,4}")


@dataclass(frozen=True, kw_only=True)
class Query:
    """A query, and what is known of the passages by their ids."""

    id: str
    text: str
    language: str | None
    grades: Mapping[str, int]  # of the relevant passages, 1 or more
    negatives: tuple[str, ...] | None  # what to rank beside them; None: whatever a search finds


@dataclass(frozen=True, kw_only=True)
class Data:
    """The texts of all passages by id, and the queries that have a relevant one, both in the order of their files."""

    passages: Mapping[str, str]
    queries: tuple[Query, ...]


def read_data(path: Path) -> Data:
    """Read either of the two FORMATS: UTF-8, blank lines do not count.

    A query's language is its own, else the one that its relevant passages share. Raises InputError, which names file and line
    and never quotes a text, and LimitError for a text that no model would take.
    """
    data = _read_folder(path) if path.is_dir() else _read_file(path)
    if not data.queries:
        raise InputError(f"{path}: no query has a relevant passage, so there is nothing to compare")
    if len(set(data.passages.values())) < MIN_PASSAGES:
        raise InputError(f"{path}: one passage alone cannot be ranked, at least {MIN_PASSAGES} different ones are needed")
    return data


def read_samples() -> Data:
    """Our own samples: {"query": ..., "documents": [...], "relevant": [index, ...], "language": ...} a line.

    A query ranks the documents of its line; a text that stands there twice is one of them.
    """
    lines = []
    for line in DEFAULT.read_text("utf-8").splitlines():
        item = json.loads(line)
        relevant = [item["documents"][index] for index in item["relevant"]]
        others = dict.fromkeys(text for text in item["documents"] if text not in relevant)
        lines.append((item["query"], relevant, list(others), item["language"]))
    return _from_lists(lines)


def _read_folder(folder: Path) -> Data:
    passages, queries = (_read_texts(folder / name) for name in ("passages.jsonl", "queries.jsonl"))
    grades = _read_grades(folder / "qrels.tsv", queries, passages)
    found = []
    for name, (text, language) in queries.items():
        relevant = {passage: grade for passage, grade in grades[name].items() if grade}
        if relevant:
            shared = {passages[passage][1] for passage in relevant}
            known = language or (shared.pop() if len(shared) == 1 else None)
            found.append(Query(id=name, text=text, language=known, grades=relevant, negatives=None))
    return Data(passages={name: text for name, (text, _) in passages.items()}, queries=tuple(found))


def _read_texts(file: Path) -> dict[str, tuple[str, str | None]]:
    """Text and language by id."""
    texts: dict[str, tuple[str, str | None]] = {}
    lines: dict[str, int] = {}
    for number, where, item in _objects(file):
        name = item.get("id")
        if not isinstance(name, str) or not name or not isinstance(item.get("text"), str):
            raise InputError(f'{where}: expected {{"id": ..., "text": ...}}, two strings, the id not empty')
        if name in lines:
            raise InputError(f"{where}: the id {short(name)} stands on line {lines[name]} already")
        lines[name] = number
        texts[name] = _text(item["text"], where), _language(item, where)
    if not texts:
        raise InputError(f'{file}: empty; expected {{"id": ..., "text": ...}} a line')
    return texts


def _read_grades(file: Path, queries: Mapping[str, object], passages: Mapping[str, object]) -> dict[str, dict[str, int]]:
    """Grades by query and passage. A first line whose grade is no number is the header."""
    grades: dict[str, dict[str, int]] = {name: {} for name in queries}
    for number, where, line in _lines(file):
        fields = line.split("\t")
        if len(fields) != 3 or not (number == 1 or _GRADE.fullmatch(fields[2])):
            raise InputError(f"{where}: expected query id, tab, passage id, tab, grade, a whole number from 0 to 9999")
        query, passage, grade = fields
        if not _GRADE.fullmatch(grade):
            continue
        for name, known, kind in ((query, queries, "queries"), (passage, passages, "passages")):
            if name not in known:
                raise InputError(f"{where}: {kind}.jsonl has no id {short(name)}")
        if passage in grades[query]:
            raise InputError(f"{where}: query {short(query)} and passage {short(passage)} have a grade already")
        grades[query][passage] = int(grade)
    return grades


def _read_file(file: Path) -> Data:
    lines = []
    for _, where, item in _objects(file):
        query, positives, negatives = (item.get(key) for key in ("query", "positives", "negatives"))
        if not isinstance(query, str) or not _are_texts(positives) or not _are_texts(negatives):
            raise InputError(
                f'{where}: expected {{"query": text, "positives": [text, ...], "negatives": [text, ...]}}, neither list empty'
            )
        if len({*positives, *negatives}) < len(positives) + len(negatives):
            raise InputError(f"{where}: a text stands twice in positives and negatives")
        for text in (query, *positives, *negatives):
            _text(text, where)
        lines.append((query, positives, negatives, _language(item, where)))
    return _from_lists(lines)


def _from_lists(lines: Sequence[tuple[str, list[str], list[str], str | None]]) -> Data:
    """Of query, positives, negatives and language."""
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


def _objects(file: Path) -> Iterator[tuple[int, str, dict[str, Any]]]:
    """Number, place for a message, and JSON object of each line."""
    for number, where, line in _lines(file):
        try:
            item = json.loads(line)
        except json.JSONDecodeError as error:
            raise InputError(f"{where}: not JSON: {error.msg} at character {error.pos}") from None
        except (ValueError, RecursionError):
            raise InputError(f"{where}: JSON with numbers that are too long, or nested too deeply") from None
        if not isinstance(item, dict):
            raise InputError(f"{where}: expected a JSON object, got {type(item).__name__}")
        yield number, where, item


def _lines(file: Path) -> Iterator[tuple[int, str, str]]:
    """Number from 1, place for a message, and text of each line that is not blank."""
    try:
        content = file.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{file}: not UTF-8 text at byte {error.start}") from None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{file}: cannot be read: {reason}; expected {FORMATS}") from error
    for number, line in enumerate(content.split("\n"), 1):
        if line.strip():
            yield number, f"{file}, line {number}", line.removesuffix("\r")


def _text(text: str, where: str) -> str:
    limit = Limits().max_text_chars
    if len(text) > limit:
        raise LimitError(f"{where}: a text of {len(text)} characters, more than {limit}")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InputError(f"{where}: not valid Unicode, a lone surrogate at character {error.start} of a text") from None
    return text


def _language(item: Mapping[str, Any], where: str) -> str | None:
    language = item.get("language")
    if not isinstance(language, str | None):
        raise InputError(f'{where}: "language" must be a string, got {type(language).__name__}')
    return language


def _are_texts(value: object) -> TypeGuard[list[str]]:
    return isinstance(value, list) and bool(value) and all(isinstance(item, str) for item in value)
