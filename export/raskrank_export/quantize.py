"""int8 in a graph: its products and its embeddings, in the layout of our own kernels where those run it."""

from collections.abc import Mapping

import numpy as np
import onnx
from onnx import TensorProto

from raskrank.kernel_model import GROUP
from raskrank_export.blocks import GroupProducts, PackedProducts, WeightProducts
from raskrank_export.columns import ConstantProducts, RowProducts, TensorProducts
from raskrank_export.encoder import Parts
from raskrank_export.integers import closest_rows, symmetric_rows
from raskrank_export.passes.edit import GraphEditor, attribute
from raskrank_export.products import Products, constant_products
from raskrank_export.quantization import Quantization, Scheme

EMBEDDING_MAX = 127  # looked up, never multiplied in int8: all levels are safe
_WRITERS: Mapping[Scheme, type[Products]] = {
    "group": GroupProducts,
    "row": RowProducts,
    "constant": ConstantProducts,
    "tensor": TensorProducts,
    "weights": WeightProducts,
}


def quantize(model: onnx.ModelProto, quantization: Quantization, known: Parts | str | None = None) -> tuple[int, int]:
    """Rewrite the graph's constant products and embeddings to int8, in place. Returns (products, embeddings) rewritten.

    A product `x @ W (+ b)` has int8 weights W (K, N) with a scale for each column, or each block of one. An embedding
    `table[ids]` becomes `int8 table[ids] * scales[ids]`, with a scale for each row, or each 64 values of one.

    known: what our own kernels know of it, as LeanGraph.kernels. What they run gets their layout and names.
    """
    graph, parts = GraphEditor(model), kernel_parts(known, quantization)
    products = _quantize_products(graph, quantization, parts)
    tables = {} if parts is None else parts.tables
    embeddings = sum(_quantize_embedding(graph, node, tables.get(node.output[0])) for node in graph.nodes("Gather"))
    graph.index()
    for slot, name in ({} if parts is None else parts.tensors).items():
        node = graph.producers[slot.output]
        node.input[slot.number] = graph.add_initializer(name, graph.constant(node.input[slot.number]))
    graph.finish()
    return products, embeddings


def kernel_parts(known: Parts | str | None, quantization: Quantization | None) -> Parts | None:
    """The encoder in a graph, if its int8 form, or fp32 if None, is one that our own kernels run. known: as in `quantize`."""
    if quantization is None or quantization.scheme != "group" or quantization.excluded or quantization.smoothing:
        return None
    return known if isinstance(known, Parts) else None


def quantize_products(graph: GraphEditor, quantization: Quantization) -> int:
    """The products alone, in onnxruntime's layouts. Returns how many; `graph.finish` is left to the caller."""
    return _quantize_products(graph, quantization, None)


def _quantize_products(graph: GraphEditor, quantization: Quantization, parts: Parts | None) -> int:
    products = [product for product in constant_products(graph) if product.output[0] not in quantization.excluded]
    writer = (
        _WRITERS[quantization.scheme](graph, quantization)
        if parts is None
        else PackedProducts(graph, quantization, parts.products)
    )
    for product in products:
        writer.write(product)
    return len(products)


def _quantize_embedding(graph: GraphEditor, gather: onnx.NodeProto, role: str | None) -> bool:
    table, ids = gather.input
    if table not in graph.initializers or attribute(gather, "axis", 0) != 0:
        return False
    tensor = graph.initializers[table]
    if tensor.data_type != TensorProto.FLOAT or len(tensor.dims) != 2:
        return False
    values, output = graph.constant(table), gather.output[0]
    # The kernels' tables have a scale for each group of a row: what is looked up is (..., H / 64, 64), and flattened again.
    shape = values.shape if role is None else (len(values), -1, GROUP)
    rounder = symmetric_rows if role is None else closest_rows
    integers, scales = rounder(values.reshape(-1, shape[-1]), limit=EMBEDDING_MAX)
    rows = graph.add_initializer(f"{role or table}/int8", integers.reshape(shape))
    scale = graph.add_initializer(f"{role or table}/scale", scales.reshape(*shape[:-1], 1))
    product = output if role is None else f"{output}/groups"
    graph.remove([gather])
    graph.append("Gather", [rows, ids], [f"{output}/int8"], axis=0)
    graph.append("Cast", [f"{output}/int8"], [f"{output}/float"], to=TensorProto.FLOAT)
    graph.append("Gather", [scale, ids], [f"{output}/scale"], axis=0)
    graph.append("Mul", [f"{output}/float", f"{output}/scale"], [product])
    if role is not None:
        flat = graph.add_initializer("embeddings/flat", np.array([0, 0, values.shape[1]], np.int64))  # of ids (B, L)
        graph.append("Reshape", [product, flat], [output])
    return True
