"""int8: dynamic ranges for activations, one scale for each output channel of a weight, one for each row of an embedding."""

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto

from raskrank_export.passes.edit import MICROSOFT, GraphEditor, attribute

# 7-bit weights: on x86 without VNNI the u8 x s8 product adds two terms in 16 bits, which holds for 2 * 255 * 64 = 32640 and
# saturates silently for 8-bit weights. One bundle then scores right on every CPU.
WEIGHT_MAX = 64
BLOCK_ROWS = 8192  # of an embedding, quantised together: some tens of megabytes
EMBEDDING_MAX = 127  # looked up, never multiplied in int8: all 8 bits are safe


def quantize(model: onnx.ModelProto) -> tuple[int, int]:
    """Rewrite the graph's constant products and embeddings to int8, in place. Returns (products, embeddings) rewritten.

    A product `x @ W (+ b)` becomes DynamicQuantizeMatMul: x gets one uint8 range at run time, W (K, N) is int8 with scales (N).
    An embedding `table[ids]` becomes `int8 table[ids] * scales[ids]`.
    """
    graph = GraphEditor(model)
    products = sum(_quantize_product(graph, node) for node in graph.nodes("MatMul"))
    embeddings = sum(_quantize_embedding(graph, node) for node in graph.nodes("Gather"))
    graph.finish()
    return products, embeddings


def symmetric(
    values: npt.NDArray[np.float32], *, axis: int, limit: int
) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.float32]]:
    """Round to integers in [-limit, limit] with one scale per slice along `axis`. Returns (int8, float32 scales)."""
    others = tuple(dim for dim in range(values.ndim) if dim != axis)
    largest = np.abs(values).max(axis=others, keepdims=True)
    scales = (largest / np.float32(limit)).astype(np.float32)
    scales[scales < np.finfo(np.float32).tiny] = 1  # all zero, or so near that a scale would lose its digits
    return np.clip(np.rint(values / scales), -limit, limit).astype(np.int8), scales.reshape(-1)


def _symmetric_rows(table: npt.NDArray[np.generic]) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.float32]]:
    """`symmetric` for each row of a large table, a block at a time so that no second float table is ever in memory."""
    integers, scales = np.empty(table.shape, np.int8), np.empty(len(table), np.float32)
    for start in range(0, len(table), BLOCK_ROWS):
        block = slice(start, start + BLOCK_ROWS)
        integers[block], scales[block] = symmetric(table[block].astype(np.float32), axis=0, limit=EMBEDDING_MAX)
    return integers, scales


def _quantize_product(graph: GraphEditor, product: onnx.NodeProto) -> bool:
    name = product.input[1]
    if name not in graph.initializers or graph.initializers[name].data_type != TensorProto.FLOAT:
        return False
    weight = graph.constant(name).astype(np.float32, copy=False)  # (K, N)
    if weight.ndim != 2:
        return False
    integers, scales = symmetric(weight, axis=1, limit=WEIGHT_MAX)
    inputs = [
        product.input[0],
        graph.add_initializer(f"{name}/int8", integers),
        graph.add_initializer(f"{name}/scale", scales),
        "",  # no zero point: symmetric
    ]
    output, replaced = product.output[0], [product]
    users = graph.consumers[output]
    if len(users) == 1 and users[0].op_type == "Add":
        other = next(item for item in users[0].input if item != output)
        if other in graph.initializers and len(graph.initializers[other].dims) == 1:
            inputs.append(other)
            output = users[0].output[0]
            replaced.append(users[0])
    while not inputs[-1]:
        inputs.pop()
    graph.remove(replaced)
    graph.append("DynamicQuantizeMatMul", inputs, [output], domain=MICROSOFT)
    return True


def _quantize_embedding(graph: GraphEditor, gather: onnx.NodeProto) -> bool:
    table, ids = gather.input
    if table not in graph.initializers or attribute(gather, "axis", 0) != 0:
        return False
    tensor = graph.initializers[table]
    if tensor.data_type != TensorProto.FLOAT or len(tensor.dims) != 2:
        return False
    integers, scales = _symmetric_rows(graph.constant(table))
    rows, output = graph.add_initializer(f"{table}/int8", integers), gather.output[0]
    column = graph.add_initializer(f"{table}/scale", scales.reshape(-1, 1))  # (V, 1), to broadcast over the width
    graph.remove([gather])
    graph.append("Gather", [rows, ids], [f"{output}/int8"], axis=0)
    graph.append("Cast", [f"{output}/int8"], [f"{output}/float"], to=TensorProto.FLOAT)
    graph.append("Gather", [column, ids], [f"{output}/scale"], axis=0)
    graph.append("Mul", [f"{output}/float", f"{output}/scale"], [output])
    return True
