"""Rounding a tensor to integers, symmetric around zero."""

import numpy as np
import numpy.typing as npt

from raskrank_export.quantization import Floats

Integers = npt.NDArray[np.int8]

BLOCK_ROWS = 8192  # of a table, rounded together: some tens of megabytes


def symmetric(values: Floats, *, axis: int, limit: int) -> tuple[Integers, Floats]:
    """Round to integers in [-limit, limit] with one scale per slice along `axis`. Returns (int8, float32 scales)."""
    others = tuple(dim for dim in range(values.ndim) if dim != axis)
    largest = np.abs(values).max(axis=others, keepdims=True)
    scales = (largest / np.float32(limit)).astype(np.float32)
    scales[scales < np.finfo(np.float32).tiny] = 1  # all zero, or so near that a scale would lose its digits
    return np.clip(np.rint(values / scales), -limit, limit).astype(np.int8), scales.reshape(-1)


def symmetric_rows(table: npt.NDArray[np.generic], *, limit: int) -> tuple[Integers, Floats]:
    """`symmetric` for each row of a large table, a block at a time so that no second float table is ever in memory."""
    integers, scales = np.empty(table.shape, np.int8), np.empty(len(table), np.float32)
    for start in range(0, len(table), BLOCK_ROWS):
        block = slice(start, start + BLOCK_ROWS)
        integers[block], scales[block] = symmetric(table[block].astype(np.float32), axis=0, limit=limit)
    return integers, scales
