"""One product where an attention's query, key and value are products of the same input."""

from collections import defaultdict

import numpy as np
import onnx

from raskrank_export.passes.edit import GraphEditor

PROJECTION_SLOTS, BIAS_SLOT = (0, 1, 2), 3  # MultiHeadAttention: query, key, value, bias, ...


def merge_projections(model: onnx.ModelProto) -> int:
    """Merge the projections of each MultiHeadAttention that read one tensor. Returns the number of layers changed.

    (B, L, H) @ (H, 3H) + (3H) -> Split -> query, key, value: three dynamic quantizations of one input become one. The bias
    leaves the attention for an Add behind the product, which onnxruntime folds into the quantized product.
    """
    graph = GraphEditor(model)
    changed = 0
    for attention in graph.nodes("MultiHeadAttention"):
        groups: dict[str, list[int]] = defaultdict(list)
        for slot in PROJECTION_SLOTS:
            product = graph.producer(attention.input[slot], "MatMul")
            if product is None or not graph.is_constant(product.input[1]):
                break
            groups[product.input[0]].append(slot)
        else:
            _rewrite(graph, attention, groups)
            changed += 1
    graph.finish()
    return changed


def unmerged(model: onnx.ModelProto) -> list[str]:
    """Names of attentions whose key and value are products of their own."""
    graph = GraphEditor(model)
    return [node.name for node in graph.nodes("MultiHeadAttention") if graph.producer(node.input[1], "Split") is None]


def _rewrite(graph: GraphEditor, attention: onnx.NodeProto, groups: dict[str, list[int]]) -> None:
    weights = {
        slot: graph.constant(graph.producers[attention.input[slot]].input[1]) for slot in PROJECTION_SLOTS
    }  # (H_in, H_out) each
    bias = None
    if len(attention.input) > BIAS_SLOT and attention.input[BIAS_SLOT]:
        bias = np.split(graph.constant(attention.input[BIAS_SLOT]), len(PROJECTION_SLOTS))  # (3H) -> 3 x (H)
        attention.input[BIAS_SLOT] = ""
    while not attention.input[-1]:
        attention.input.pop()
    for source, slots in groups.items():
        stem = f"{attention.name}/{'_'.join('qkv'[slot] for slot in slots)}"
        merged = np.concatenate([weights[slot] for slot in slots], axis=1)
        graph.append("MatMul", [source, graph.add_initializer(f"{stem}/weight", merged)], [f"{stem}/product"])
        result = f"{stem}/product"
        if bias is not None:
            values = np.concatenate([bias[slot] for slot in slots])
            graph.append("Add", [result, graph.add_initializer(f"{stem}/bias", values)], [f"{stem}/sum"])
            result = f"{stem}/sum"
        if len(slots) == 1:
            attention.input[slots[0]] = result
            continue
        sizes = np.array([weights[slot].shape[1] for slot in slots], np.int64)
        outputs = [f"{stem}/{'qkv'[slot]}" for slot in slots]
        graph.append("Split", [result, graph.add_initializer(f"{stem}/sizes", sizes)], outputs, axis=-1)
        for slot, output in zip(slots, outputs, strict=True):
            attention.input[slot] = output
