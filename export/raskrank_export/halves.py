"""The samples in two halves, so that what is chosen on one can be judged on the other."""

import unicodedata
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from raskrank.backend import Float32Array

# Of a half, with documents to put in order. One query fewer would make top-1 agreement a matter of 33% steps.
MIN_RANKED = 4


class Halves(NamedTuple):
    """Positions in the list of pairs."""

    chosen_on: tuple[int, ...]
    held_back: tuple[int, ...]


def halve(pairs: Sequence[tuple[str, str]], logits: Float32Array, rounding: float) -> Halves | None:
    """Every other query; None where a half would have fewer than MIN_RANKED whose logits, float32 (n), differ beyond rounding.

    Queries of the same words stay together, whatever their order, case, accents and punctuation.
    """
    groups: dict[tuple[str, ...], list[int]] = {}
    for index, (query, _) in enumerate(pairs):
        groups.setdefault(_words(query), []).append(index)
    halves, ranked = (list[int](), list[int]()), [0, 0]
    turns = {True: 0, False: 0}  # apart, so that each half gets as many queries that count
    for members in groups.values():
        counts = bool(np.ptp(logits[members]) > rounding)
        half = turns[counts]
        halves[half].extend(members)
        ranked[half] += counts
        turns[counts] = 1 - half
    return Halves(*(tuple(sorted(half)) for half in halves)) if min(ranked) >= MIN_RANKED else None


def _words(query: str) -> tuple[str, ...]:
    plain = "".join(char if char.isalnum() else " " for char in unicodedata.normalize("NFKD", query.casefold()) if _kept(char))
    return tuple(sorted(set(plain.split()))) or (query,)


def _kept(char: str) -> bool:
    return unicodedata.category(char) != "Mn"  # the accent of a letter
