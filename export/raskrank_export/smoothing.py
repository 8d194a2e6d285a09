"""Channels with outliers: what to divide them by, so that the range of a row leaves levels for the other channels."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx

from raskrank.manifest import MODEL
from raskrank_export.passes.edit import GraphEditor
from raskrank_export.products import constant_products
from raskrank_export.quantization import Floats
from raskrank_export.tensors import take_in

# A channel whose largest magnitude is so many times that of the median channel. Without training a channel reaches 3 to 4
# times, in trained XLM-R a few of nearly every layer 20 to 60 times. One smoothed for nothing costs a little time.
OUTLIER = 5.0
ALPHA = 0.8  # between 0.5 and 1 the error differs little; 0.8 had the smallest on the architecture of MiniLM
LEAST = 1e-5  # of the magnitude of a channel or of a row, so that no divisor is extreme


def find_smoothing(folder: Path, magnitudes: Mapping[str, Floats]) -> dict[str, Floats]:
    """For every tensor with outliers that products read, a divisor of each channel, float32 (K); 1 but for the outliers.

    folder: of the fp32 graph. magnitudes: as `channel_magnitudes` finds them. The divisor shares the outlier between the
    activation and the weights' rows it is multiplied with, in equal parts (SmoothQuant, Xiao et al. 2023, alpha 0.5), and is
    rounded to a power of two, so that only exponents change.
    """
    graph = GraphEditor(onnx.load(str(folder / MODEL), load_external_data=False))
    readers, found = _readers(graph), {}
    for source, largest in magnitudes.items():
        outliers = largest > OUTLIER * np.median(largest)
        if outliers.any():
            rows = np.max([_row_magnitudes(graph, weight, folder) for weight in readers[source]], axis=0)  # (K)
            excess = _excess(largest) / _excess(rows)
            exponents = np.where(outliers, np.rint(np.log2(excess) / 2), 0)
            found[source] = np.exp2(np.maximum(exponents, 0)).astype(np.float32)
    return found


def unit_divisors(folder: Path, magnitudes: Mapping[str, Floats]) -> dict[str, Floats]:
    """For every tensor that products read, the divisor of each channel, float32 (K), that brings it to [-1, 1].

    folder, magnitudes: as above. Most of a channel's range moves into the weights' rows, but for what those rows' own
    magnitudes call for (SmoothQuant, equation 4, alpha ALPHA); the tensor's range is then one constant.
    """
    graph = GraphEditor(onnx.load(str(folder / MODEL), load_external_data=False))
    divisors = {}
    for source, largest in magnitudes.items():
        rows = np.max([_row_magnitudes(graph, weight, folder) for weight in _readers(graph)[source]], axis=0)  # (K)
        activation, weight = np.maximum(largest, LEAST), np.maximum(rows, LEAST)
        spread = activation**ALPHA / weight ** (1 - ALPHA)
        divisors[source] = (spread * (activation / spread).max()).astype(np.float32)
    return divisors


def _readers(graph: GraphEditor) -> dict[str, list[str]]:
    """By tensor, the weights of the products that read it."""
    readers: dict[str, list[str]] = {}
    for product in constant_products(graph):
        readers.setdefault(product.input[0], []).append(product.input[1])
    return readers


def _row_magnitudes(graph: GraphEditor, weight: str, folder: Path) -> Floats:
    take_in(graph.initializers[weight], folder)
    largest: Floats = np.abs(graph.constant(weight).astype(np.float32)).max(axis=1)  # (K, N) -> (K)
    return largest


def _excess(magnitudes: Floats) -> Floats:
    """How many times the median channel's magnitude each one has."""
    least = np.finfo(np.float32).tiny  # of a channel of zeros
    excess: Floats = np.maximum(magnitudes, least) / np.maximum(np.median(magnitudes), least)
    return excess
