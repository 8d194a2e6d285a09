"""Documents from a file or standard input: lines of text, JSON Lines, a JSON array, CSV, TSV."""

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from raskrank.errors import InputError, LimitError
from raskrank.quoting import kind_of, shown, shown_keys
from raskrank.reading import array_inside, check_text, read_lines, readable
from raskrank.rows import UNITS, Format, Row, format_of, rows_of
from raskrank.texts import Limits

TEXT_FIELDS = ("text", "contents", "content", "passage", "body", "document")
ID_FIELDS = ("id", "_id", "docid", "doc_id")
TITLE_FIELD = "title"
MAX_ID_DEPTH = 10  # of arrays and objects in one another; JSON of any depth cannot be written again
AS_TEXT = "it begins as JSON does; --format text takes each line as it stands"
TO_CHOOSE = 'say which one with --field NAME, or call it "text"'


@dataclass(frozen=True, kw_only=True)
class Form:
    """How documents stand in a file, as far as that was said.

    format: "text", "jsonl", "json", "csv" or "tsv". Default: by the file's name, else by how its content begins.
    field: the field with the text. Default: the one of text, contents, content, passage, body and document that the first
        object, or a CSV's header, has.
    title_field: a field to put in front of the text, with a space between. Default: none.
    """

    format: Format | None = None
    field: str | None = None
    title_field: str | None = None


@dataclass(frozen=True, kw_only=True)
class Document:
    """A document of the input. number: of its line, row or item (unit), from 1. extra: {"id": ...} if it has one.

    untold_title: a title stands beside the text and is no part of it.
    """

    text: str
    unit: str
    number: int
    extra: dict[str, Any]
    untold_title: bool = False


def read_documents(file: str | None, form: Form | None = None) -> tuple[str, list[Document]]:
    """What to call the input, and its documents. file: "-" or nothing is standard input. Raises InputError."""
    stdin = sys.stdin if file in (None, "-") else None
    if file in (None, "-") and (stdin is None or (file is None and stdin.isatty())):
        raise InputError("no documents: name a FILE that has one a line, or pipe them in; - reads what you type")
    if stdin is None:
        return shown(str(file)), _at_most(stream_documents(Path(str(file)), form), shown(str(file)))
    with readable("standard input"):
        return "standard input", _at_most(_documents(stdin.buffer, "", "standard input", form), "standard input")


def stream_documents(file: Path, form: Form | None = None) -> Iterator[Document]:
    """The documents of a file, which may be larger than memory unless it is a JSON array. Raises InputError at the first line,
    row or item that is none."""
    name = shown(file)
    with readable(name), file.open("rb") as stream:
        yield from _documents(stream, file.name, name, form)


def _at_most(documents: Iterator[Document], name: str) -> list[Document]:
    """A list of them, if a call would take so many."""
    limit = Limits().max_documents
    kept: list[Document] = []
    for document in documents:
        if len(kept) == limit:
            raise LimitError(f"{name}: more than {limit} documents")
        kept.append(document)
    return kept


def _documents(stream: BinaryIO, file_name: str, name: str, form: Form | None) -> Iterator[Document]:
    form = Form() if form is None else form
    format, guessed, lines = format_of(file_name, read_lines(stream, name), form.format)
    if format == "text":
        if form.field is not None or form.title_field is not None:
            option = "--field" if form.field is not None else "--title-field"
            raise InputError(f"{name}: read as lines of text, which have no fields: leave out {option}, or say --format")
        wanted = frozenset[str]()
    else:
        wanted = frozenset(TEXT_FIELDS if form.field is None else (form.field.lower(),))
    try:
        rows = rows_of(format, lines, name, wanted)
        if format in ("csv", "tsv"):
            yield from _of_table(rows, name, form)
        else:
            yield from _of_rows(rows, UNITS[format], name, form)
    except InputError as error:
        if not guessed or isinstance(error, LimitError):
            raise
        raise InputError(f"{error}; {AS_TEXT}") from None


def _of_rows(rows: Iterator[Row], unit: str, name: str, form: Form) -> Iterator[Document]:
    """Rows of text and JSON: all texts, or all objects, the first of which decides what the field of the text is called."""
    kind, field, titled = "", "", False
    for number, value in rows:
        where = f"{name}, {unit} {number}"
        if not kind:
            kind = kind_of(value)
            if isinstance(value, dict):
                field = _field_of_object(value, form, where)
            elif not isinstance(value, str):
                raise InputError(f"{where}: expected an object or a string, got {kind}")
            elif form.field is not None or form.title_field is not None:
                raise InputError(f"{where}: strings have no fields: leave out --field and --title-field")
        elif kind_of(value) != kind:
            raise InputError(f"{where}: expected {kind}, as the first is, got {kind_of(value)}")
        if isinstance(value, dict):
            titled = titled or form.title_field in value
            yield _document(value, field, form, unit, number, where)
        else:
            yield Document(text=check_text(str(value), where), unit=unit, number=number, extra={})
    if field and form.title_field is not None and not titled:
        raise InputError(f'{name}: no object has the field "{shown(form.title_field)}" of --title-field')


def _of_table(rows: Iterator[Row], name: str, form: Form) -> Iterator[Document]:
    """Rows of CSV. Without a header the first one holds texts, so no message quotes it."""
    field = ""
    for number, value in rows:
        where = f"{name}, row {number}"
        if isinstance(value, dict):
            yield _document(value, field, form, "row", number, where)
        elif isinstance(value, list):
            field = _choose(value, form, where, f"it has {len(value)} fields and must be the header")
            if form.title_field is not None and value.count(form.title_field) != 1:
                raise InputError(f'{where}: the header has no field "{shown(form.title_field)}", or several; see --title-field')


def _field_of_object(item: Mapping[str, Any], form: Form, where: str) -> str:
    """Of an object without --field only strings can be the text."""
    names = [key for key, value in item.items() if form.field is not None or isinstance(value, str)]
    return _choose(names, form, where, f"it has {shown_keys(item)}{array_inside(item)}")


def _choose(names: Sequence[str], form: Form, where: str, has: str) -> str:
    """The one field that has the text. has: what to say where there is none."""
    if form.field is not None:
        if names.count(form.field) != 1:
            raise InputError(f'{where}: no field "{shown(form.field)}", or several; {has}')
        return form.field
    found = [name for name in names if name.lower() in TEXT_FIELDS]
    if len(found) == 1:
        return found[0]
    if found:
        raise InputError(f"{where}: several fields could be the text, {', '.join(found[: len(TEXT_FIELDS)])}; {TO_CHOOSE}")
    raise InputError(f"{where}: no field with a text is called {', '.join(TEXT_FIELDS)}; {has}; {TO_CHOOSE}")


def _document(item: Mapping[str, Any], field: str, form: Form, unit: str, number: int, where: str) -> Document:
    text = _string(item, field, where)
    if text is None:
        known = f'"{shown(field)}": expected a string, got null' if field in item else f'no field "{shown(field)}"'
        raise InputError(f"{where}: {known}; it has {shown_keys(item)}")
    if form.title_field is not None and (title := _string(item, form.title_field, where)):
        text = f"{title} {text}"
    named = {key.lower(): key for key in item}
    ids = [item[named[name]] for name in ID_FIELDS if name in named and item[named[name]] not in (None, "")]
    if ids and _is_deep(ids[0], MAX_ID_DEPTH):
        raise InputError(f"{where}: its id is nested more than {MAX_ID_DEPTH} deep; leave it out, or use a string or a number")
    return Document(
        text=check_text(text, where),
        unit=unit,
        number=number,
        extra={"id": ids[0]} if ids else {},
        untold_title=form.field is None
        and form.title_field is None
        and TITLE_FIELD in named
        and bool(item[named[TITLE_FIELD]]),
    )


def _string(item: Mapping[str, Any], field: str, where: str) -> str | None:
    """The value of a field, None where it is null or not there."""
    value = item.get(field)
    if value is None or isinstance(value, str):
        return value
    raise InputError(f'{where}: "{shown(field)}": expected a string, got {kind_of(value)}')


def _is_deep(value: object, levels: int) -> bool:
    if not isinstance(value, dict | list):
        return False
    return not levels or any(_is_deep(item, levels - 1) for item in (value.values() if isinstance(value, dict) else value))
