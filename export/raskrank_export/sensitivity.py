"""Which products lose most by int8."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx

from raskrank.encoding import EncodedPair
from raskrank.manifest import MODEL
from raskrank_export.passes.edit import GraphEditor
from raskrank_export.products import constant_products
from raskrank_export.progress import Progress
from raskrank_export.quantization import Quantization
from raskrank_export.quantize import quantize_products
from raskrank_export.scoring import graph_logits
from raskrank_export.tensors import take_in

# Of the shorter half of the samples, spread evenly over their lengths: one product's error shows on any text, and there may be
# a hundred products.
PAIRS = 32


def sensitivity_pairs(encoded: Sequence[EncodedPair]) -> list[EncodedPair]:
    """The pairs that sensitivity is measured on, at most `PAIRS`."""
    by_length = sorted(encoded, key=lambda pair: len(pair.input_ids))
    shorter = by_length[: max(PAIRS, len(by_length) // 2)]
    return [shorter[index * len(shorter) // PAIRS] for index in range(PAIRS)] if len(shorter) > PAIRS else shorter


def product_names(folder: Path) -> list[str]:
    """The products of the fp32 graph in `folder` that can be quantized, by the name of their output, in the graph's order."""
    graph = GraphEditor(onnx.load(str(folder / MODEL), load_external_data=False))
    return [product.output[0] for product in constant_products(graph)]


def sensitivity(
    folder: Path, inputs: tuple[str, ...], encoded: Sequence[EncodedPair], quantization: Quantization, progress: Progress
) -> dict[str, float]:
    """How far the logits move when a product alone is quantized, mean over the pairs; by product, the largest first.

    folder: of the fp32 graph. A product alone and not all but one: where several of them spoil the logits, to repair one of
    them shows nothing.
    """
    names = product_names(folder)
    exact = graph_logits(folder, inputs, encoded, progress)
    moved = {}
    for name in names:
        alone = replace(quantization, excluded=frozenset(names) - {name})
        logits = graph_logits(folder, inputs, encoded, progress, graph=_graph(folder, alone))
        moved[name] = float(np.abs(logits - exact).mean())
    return dict(sorted(moved.items(), key=lambda item: -item[1]))


def _graph(folder: Path, quantization: Quantization) -> bytes:
    """The graph with the products quantized; all else stays in the file of weights that is there."""
    model = onnx.load(str(folder / MODEL), load_external_data=False)
    graph = GraphEditor(model)
    for product in constant_products(graph):
        if product.output[0] not in quantization.excluded:
            take_in(graph.initializers[product.input[1]], folder)
    quantize_products(graph, quantization)
    graph.finish()
    serialized: bytes = model.SerializeToString()
    return serialized
