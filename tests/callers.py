"""What callers pass as texts, collections and counts, right and wrong."""

import collections
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from builders import ENGLISH, NORWEGIAN, SENTENCES

SECRET = "fødselsnummer 01019012345"


class Text(str):
    """A subclass, as many libraries have one."""


class Named(NamedTuple):
    query: str
    document: str


class Printed:
    """Not a str, though it prints as one."""

    def __repr__(self) -> str:
        return SECRET

    __str__ = __repr__


class Column:
    """As a pandas column or a polars Series: a length, an order and a dimension, but no Sequence."""

    ndim = 1

    def __init__(self, items: list[Any]) -> None:
        self.items = items

    def __len__(self) -> int:
        return len(self.items)

    def __iter__(self) -> Iterator[Any]:
        return iter(self.items)


class Table(Column):
    """As a pandas DataFrame: iterated by column names, counted by rows."""

    ndim = 2

    def __iter__(self) -> Iterator[Any]:
        return iter(["text", "id"])


COLLECTIONS: dict[str, Callable[[list[Any]], Any]] = {
    "list": list,
    "tuple": tuple,
    "deque": collections.deque,
    "UserList": collections.UserList,
    "ndarray": np.array,
    "ndarray of objects": lambda items: np.array(items, object),
    "ndarray backwards": lambda items: np.array(items[::-1])[::-1],
    "dict keys": lambda items: {item: index for index, item in enumerate(items)}.keys(),
    "dict values": lambda items: dict(enumerate(items)).values(),
    "column": Column,
}


class Indexed:
    """Has the method of an int, and what it raises is not a TypeError."""

    def __index__(self) -> int:
        raise RuntimeError(SECRET)


BAD_COUNTS = [
    (0, "got 0"),
    (-1, "got -1"),
    (True, "got bool"),
    (1.5, "got float"),
    ("2", "got str"),
    (float("nan"), "got float"),
    (np.bool_(True), "got bool"),
    (np.array(True), "got ndarray"),
    (np.array([1, 2]), "got ndarray"),
    (np.array([2.0]), "got ndarray"),
    (np.array([], int), "got ndarray"),
    (np.float32(2), "got float32"),
    (np.int64(0), "got 0"),
    (int, "got type"),
    (Indexed(), "got Indexed"),
]

QUERY = "Hvem kan lære bort Python?"
DOCUMENTS = [*NORWEGIAN[4:16], *ENGLISH[4:10], "", "Python", " ".join(SENTENCES)]
