"""Rounding a tensor to integers, symmetric around zero."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from raskrank_export.quantization import Floats

Integers = npt.NDArray[np.int8]

BLOCK_VALUES = 1 << 18  # of a table, rounded together: what a core's cache holds
# Times the scale that brings the largest magnitude to the largest integer. With the best of these, more of 64 weights fall near
# integers: an eighth less squared error of weights (docs/notebook.md), at no cost in a run.
SCALES = np.linspace(1.05, 0.95, 20, dtype=np.float32)


def symmetric(values: Floats, *, axis: int, limit: int) -> tuple[Integers, Floats]:
    """Round to integers in [-limit, limit] with one scale per slice along `axis`. Returns (int8, float32 scales)."""
    others = tuple(dim for dim in range(values.ndim) if dim != axis)
    largest = np.abs(values).max(axis=others, keepdims=True)
    scales = (largest / np.float32(limit)).astype(np.float32)
    scales[scales < np.finfo(np.float32).tiny] = 1  # all zero, or so near that a scale would lose its digits
    return np.clip(np.rint(values / scales), -limit, limit).astype(np.int8), scales.reshape(-1)


def symmetric_rows(table: npt.NDArray[np.generic], *, limit: int) -> tuple[Integers, Floats]:
    """`symmetric` for each row of a large table (R, K). Returns (int8 (R, K), float32 scales (R))."""
    return _in_blocks(table, lambda rows: symmetric(rows, axis=0, limit=limit))


def closest_rows(table: npt.NDArray[np.generic], *, limit: int) -> tuple[Integers, Floats]:
    """The same, with the scale of each row that has the smallest squared error."""
    return _in_blocks(table, lambda rows: _closest(rows, limit))


def _in_blocks(table: npt.NDArray[np.generic], rounder: Callable[[Floats], tuple[Integers, Floats]]) -> tuple[Integers, Floats]:
    """A block of rows at a time, so that no second float table is ever in memory."""
    rows = max(1, BLOCK_VALUES // table.shape[1])
    integers, scales = np.empty(table.shape, np.int8), np.empty(len(table), np.float32)
    for start in range(0, len(table), rows):
        block = slice(start, start + rows)
        integers[block], scales[block] = rounder(table[block].astype(np.float32))
    return integers, scales


def _closest(values: Floats, limit: int) -> tuple[Integers, Floats]:
    integers, scales = symmetric(values, axis=0, limit=limit)
    first, errors = scales.copy(), _squared_errors(values, integers, scales)
    for factor in SCALES:
        tried = first * factor
        rounded = np.clip(np.rint(values / tried[:, None]), -limit, limit).astype(np.int8)
        found = _squared_errors(values, rounded, tried)
        better = found < errors
        integers[better], scales[better], errors[better] = rounded[better], tried[better], found[better]
    return integers, scales


def _squared_errors(values: Floats, integers: Integers, scales: Floats) -> Floats:
    """Of each row."""
    off = integers * scales[:, None] - values
    sums: Floats = np.einsum("rk,rk->r", off, off)
    return sums
