"""Check what callers pass: types, Unicode, limits. Messages carry positions and types, never texts."""

import math
import operator
from collections.abc import Collection, Iterable, Mapping, MappingView, Set, Sized
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from typing import SupportsFloat, TypeGuard, cast

from raskrank.errors import InputError, LimitError

# A number with more digits is described and not printed: Python refuses to print the longest.
MOST_SHOWN = 10**18


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Upper bounds on one call; a larger input raises LimitError before anything is computed.

    max_documents: documents or pairs in one call. The default keeps the result lists of a call under about 100 MB.
    max_text_chars: characters in one query or document; catches a whole file passed by mistake. A text below it costs what
        is read of it: as much as holds the tokens that the model reads, and 100,000 characters at most (with a max_length
        above 3,100, 32 for each of its tokens). A megabyte of words takes 10 ms; any other text at most two thirds of a second
        and 0.14 GB, 1.4 kB for each character that is read, on one core of an AMD EPYC (max_length 8192, or 16 windows of 512:
        1.2 s and 0.35 GB). Lower it to refuse long texts.
    """

    max_documents: int = 1_000_000
    max_text_chars: int = 10_000_000

    def __post_init__(self) -> None:
        for name in ("max_documents", "max_text_chars"):
            object.__setattr__(self, name, positive(getattr(self, name), f"Limits.{name}"))


def check_query(query: object, limits: Limits) -> str:
    """`query` as str, or InputError."""
    return _text(query, "query", limits)


def check_documents(documents: object, limits: Limits) -> list[str]:
    """A list of its own with the documents, so that later changes to the caller's list do not matter, or InputError.

    documents: str in a list or tuple, NumPy array, pandas column, deque, view of a dict, or whatever else has a length and an
        order. The list has plain str for str of any subclass.
    """
    items = as_list(documents, "documents", limits)
    return [_text(item, f"document {index}", limits) for index, item in enumerate(items)]


def as_list(value: object, name: str, limits: Limits) -> list[object]:
    """A list of its own with what stands in `value`, as `check_documents` takes it but whatever it is, or InputError."""
    return _items(value, name, limits, dimensions=1)


def check_pairs(pairs: object, limits: Limits) -> list[tuple[str, str]]:
    """A list of (query, document) tuples of str, or InputError. pairs: as `check_documents`, or an array of two columns."""
    checked = []
    for index, pair in enumerate(_items(pairs, "pairs", limits, dimensions=2)):
        if not _ordered(pair) or getattr(pair, "ndim", 1) != 1 or len(halves := tuple(islice(pair, 3))) != 2:
            got = f"{len(pair)} items" if isinstance(pair, tuple | list) else type(pair).__name__
            raise InputError(f"pair {index}: expected (query, document), got {got}")
        query, document = halves
        checked.append((_text(query, f"pair {index}, query", limits), _text(document, f"pair {index}, document", limits)))
    return checked


def positive(value: object, name: str) -> int:
    """`value` as an int of at least 1, or InputError. Takes NumPy integers; refuses bool."""
    return _integer(value, name, least=1)


def whole(value: object, name: str) -> int:
    """`value` as an int of at least 0, or InputError. Takes NumPy integers; refuses bool."""
    return _integer(value, name, least=0)


def number(value: object, name: str) -> float:
    """`value` as a float that is no NaN, or InputError. Takes ints and NumPy's numbers; refuses bool."""
    found = math.nan
    if isinstance(value, SupportsFloat) and not isinstance(value, bool) and not getattr(value, "ndim", 0):
        with suppress(TypeError, ValueError, OverflowError, RuntimeError):  # an int may be too large
            found = float(value)
    if math.isnan(found):
        raise InputError(f"{name}: expected a number, got {'NaN' if isinstance(value, float) else type(value).__name__}")
    return found


def seconds(value: object, name: str) -> float:
    """`value` as a float above 0, or InputError. Takes what `number` takes."""
    if (found := number(value, name)) <= 0:
        raise InputError(f"{name}: expected seconds above 0, got {found:g}")
    return found


def flag(value: object, name: str) -> bool:
    """`value` if it is True or False, or InputError."""
    if not isinstance(value, bool):
        raise InputError(f"{name}: expected True or False, got {type(value).__name__}")
    return value


def _integer(value: object, name: str, *, least: int) -> int:
    try:
        number = None if isinstance(value, bool) else operator.index(cast(int, value))
    except (TypeError, ValueError, RuntimeError):
        number = None  # NumPy's and PyTorch's arrays have the method of an int too, and raise there
    if number is None:
        raise InputError(f"{name}: expected an int of at least {least}, got {type(value).__name__}")
    if number < least:
        got = number if number > -MOST_SHOWN else "a number far below 0"
        raise InputError(f"{name}: expected an int of at least {least}, got {got}")
    return number


def _items(value: object, name: str, limits: Limits, *, dimensions: int) -> list[object]:
    """What stands in `value`, in order, or InputError with what to pass instead. dimensions: that an array may have."""
    if not _ordered(value):
        raise InputError(f"{name}: expected a sequence such as a list, got {type(value).__name__}{_hint(value, name)}")
    if not 1 <= (got := getattr(value, "ndim", 1)) <= dimensions:
        raise InputError(f"{name}: expected {'one dimension' if dimensions == 1 else 'two columns'}, got {got} dimensions")
    try:
        count = len(value)
    except OverflowError:
        raise LimitError(f"{name}: more items than max_documents={limits.max_documents}") from None
    if count > limits.max_documents:
        raise LimitError(f"{name}: {count} items, more than max_documents={limits.max_documents}")
    items = list(islice(value, count + 1))
    if len(items) != count:
        held = len(items) if len(items) < count else "more"
        raise InputError(f"{name}: its length is {count}, but it holds {held}; pass list({name})")
    return items


def _ordered(value: object) -> TypeGuard[Collection[object]]:
    """Whether `value` has a length and an order, and is not itself a text; a view of a dict has an order though it is a set."""
    if isinstance(value, str | bytes | bytearray | memoryview | Mapping):
        return False
    if isinstance(value, Set) and not isinstance(value, MappingView):
        return False
    return isinstance(value, Sized) and isinstance(value, Iterable)


def _hint(value: object, name: str) -> str:
    if isinstance(value, str | bytes | bytearray | memoryview | Mapping):
        return "; put it in a list"
    if isinstance(value, Set):
        return f"; a set has no order, pass sorted({name})"
    return f"; pass list({name})" if isinstance(value, Iterable) else ""


def _text(value: object, name: str, limits: Limits) -> str:
    if not isinstance(value, str):
        raise InputError(f"{name}: expected str, got {type(value).__name__}")
    value = str.__str__(value)  # plain, whatever a subclass makes of its methods
    if len(value) > limits.max_text_chars:
        raise LimitError(f"{name}: {len(value)} characters, more than max_text_chars={limits.max_text_chars}")
    if (place := lone_surrogate(value)) is not None:
        raise InputError(f"{name}: not valid Unicode, a lone surrogate at character {place}")
    return value


def lone_surrogate(text: str) -> int | None:
    """Where the first character stands that is no valid Unicode; None if there is none."""
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError as error:  # not passed on as a cause: it carries the text itself
            return error.start
    return None
