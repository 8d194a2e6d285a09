"""Check what callers pass: types, Unicode, limits. Messages carry positions and types, never texts."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

from raskrank.errors import InputError, LimitError


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Upper bounds on one call; a larger input raises LimitError before anything is computed.

    max_documents: documents or pairs in one call. The default keeps the result lists of a call under about 100 MB.
    max_text_chars: characters in one query or document. Longer than any text a cross-encoder reads; catches a whole file
        passed by mistake. Texts below it are truncated to the model's max_length in tokens.
    """

    max_documents: int = 1_000_000
    max_text_chars: int = 10_000_000

    def __post_init__(self) -> None:
        for name in ("max_documents", "max_text_chars"):
            positive(getattr(self, name), f"Limits.{name}")


def check_query(query: object, limits: Limits) -> str:
    """`query` as str, or InputError."""
    return _text(query, "query", limits)


def check_documents(documents: object, limits: Limits) -> list[str]:
    """A list of its own with the documents, so that later changes to the caller's list do not matter, or InputError."""
    items = _sequence(documents, "documents", limits)
    return [_text(item, f"document {index}", limits) for index, item in enumerate(items)]


def check_pairs(pairs: object, limits: Limits) -> list[tuple[str, str]]:
    """A list of (query, document) tuples of str, or InputError."""
    checked = []
    for index, pair in enumerate(_sequence(pairs, "pairs", limits)):
        if not isinstance(pair, tuple | list) or len(pair) != 2:
            got = f"{len(pair)} items" if isinstance(pair, tuple | list) else type(pair).__name__
            raise InputError(f"pair {index}: expected (query, document), got {got}")
        query, document = pair
        checked.append((_text(query, f"pair {index}, query", limits), _text(document, f"pair {index}, document", limits)))
    return checked


def positive(value: object, name: str) -> int:
    """`value` as an int of at least 1, or InputError. Takes NumPy integers; refuses bool."""
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise InputError(f"{name}: expected an int of at least 1, got {type(value).__name__}")
    number = int(cast(int, value))
    if number < 1:
        raise InputError(f"{name}: expected an int of at least 1, got {number}")
    return number


def _sequence(value: object, name: str, limits: Limits) -> Sequence[object]:
    if isinstance(value, str | bytes | bytearray | Mapping):
        raise InputError(f"{name}: expected a sequence such as a list, got {type(value).__name__}; put it in a list")
    if not isinstance(value, Sequence):
        hint = f"; pass list({name})" if isinstance(value, Iterable) else ""
        raise InputError(f"{name}: expected a sequence such as a list, got {type(value).__name__}{hint}")
    if len(value) > limits.max_documents:
        raise LimitError(f"{name}: {len(value)} items, more than max_documents={limits.max_documents}")
    return value


def _text(value: object, name: str, limits: Limits) -> str:
    if not isinstance(value, str):
        raise InputError(f"{name}: expected str, got {type(value).__name__}")
    if len(value) > limits.max_text_chars:
        raise LimitError(f"{name}: {len(value)} characters, more than max_text_chars={limits.max_text_chars}")
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError as error:
            # `from None`: the cause would carry the text itself.
            raise InputError(f"{name}: not valid Unicode, a lone surrogate at character {error.start}") from None
    return value
