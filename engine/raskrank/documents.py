"""Documents from a file or standard input: one a line, or JSON Lines."""

import io
import json
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from raskrank.errors import InputError, LimitError
from raskrank.texts import Limits

READ_BYTES = 1 << 16  # of standard input at once, what a pipe holds


@dataclass(frozen=True, kw_only=True)
class Document:
    """A document of the input. line: counted from 1. extra: {"id": ...} if its JSON object had one."""

    text: str
    line: int
    extra: dict[str, Any]


def read_documents(file: str | None) -> tuple[str, list[Document]]:
    """What to call the input, and its documents."""
    stdin = sys.stdin if file in (None, "-") else None
    if file in (None, "-") and (stdin is None or (file is None and stdin.isatty())):
        raise InputError("no documents: name a FILE that has one a line, or pipe them in; - reads what you type")
    if stdin is None:
        return str(file), list(stream_documents(Path(str(file))))
    with _reading("standard input"):
        return "standard input", list(_documents(io.BytesIO(_read_all(stdin.buffer)), "standard input"))


def stream_documents(file: Path) -> Iterator[Document]:
    """The documents of a file, which may be larger than memory. Raises InputError at the line that is none."""
    with _reading(str(file)), file.open("rb") as stream:
        yield from _documents(stream, str(file))


@contextmanager
def _reading(name: str) -> Iterator[None]:
    try:
        yield
    except InputError:
        raise
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        raise InputError(f"{name}: cannot be read: {getattr(error, 'strerror', None) or error}") from error


def _documents(lines: Iterable[bytes], name: str) -> Iterator[Document]:
    limit = Limits().max_text_chars
    as_json: bool | None = True if name.lower().endswith(".jsonl") else None  # None: the first document says
    for number, line in enumerate(_decoded(lines, name), 1):
        if not line.strip():
            continue
        if as_json is None:
            as_json = _is_document(line)
        where = f"{name}, line {number}"
        document = _parse_line(line, number, where) if as_json else Document(text=line, line=number, extra={})
        if len(document.text) > limit:
            raise LimitError(f"{where}: {len(document.text)} characters, more than {limit}")
        yield document


def _decoded(lines: Iterable[bytes], name: str) -> Iterator[str]:
    """Lines without their ends."""
    start = 0
    for line in lines:
        try:
            text = line.decode("utf-8" if start else "utf-8-sig")
        except UnicodeDecodeError as error:
            raise InputError(f"{name}: not UTF-8 text at byte {start + error.start}") from None
        yield text.removesuffix("\n").removesuffix("\r")
        start += len(line)


def _read_all(stream: Any) -> bytes:
    """In parts: within one long read Python may miss a Ctrl-C."""
    return b"".join(iter(lambda: stream.read1(READ_BYTES), b""))


def _is_document(line: str) -> bool:
    """Whether a first line says that the input is JSON Lines."""
    try:
        data = json.loads(line)
    except (ValueError, RecursionError):
        return False
    return isinstance(data, dict) and "text" in data


def _parse_line(line: str, number: int, where: str) -> Document:
    """Messages name the line and never quote it."""
    try:
        data = json.loads(line)
    except json.JSONDecodeError as error:
        raise InputError(f"{where}: not JSON: {error.msg} at character {error.pos}") from None
    except (ValueError, RecursionError):
        raise InputError(f"{where}: JSON with numbers that are too long, or nested too deeply") from None
    if not isinstance(data, dict) or not isinstance(data.get("text"), str):
        raise InputError(f'{where}: expected a JSON object with "text", a string')
    try:
        data["text"].encode()
    except UnicodeEncodeError as error:
        raise InputError(f"{where}: not valid Unicode, a lone surrogate at character {error.start} of the text") from None
    return Document(text=data["text"], line=number, extra={"id": data["id"]} if "id" in data else {})
