"""One MultiHeadAttention where onnxruntime's own fusion leaves an attention spelled out, as of DistilBERT, MPNet and ALBERT.

    softmax(scale * query @ key^T + bias) @ value, each split into heads: (B, L, H) -> (B, N, L, H / N)

Only whole attentions are replaced; what is not exactly this stays as it is.
"""

import math
from typing import NamedTuple

import numpy as np
import onnx

from raskrank_export.passes.edit import MICROSOFT, GraphEditor, attribute
from raskrank_export.unpadded import Unpadded

SPLIT, SPLIT_TURNED, TURN = [0, 2, 1, 3], [0, 2, 3, 1], [0, 1, 3, 2]  # of (B, L, N, D): heads first; (B, N, D, L)
BIAS_SLOT, ATTENTION_BIAS_SLOT = 3, 5  # MultiHeadAttention: query, key, value, bias, key_padding_mask, attention_bias


class _Scores(NamedTuple):
    """scale * (query @ key^T) + bias, where bias is "" for none."""

    product: onnx.NodeProto
    scale: float
    bias: str


class _Heads(NamedTuple):
    """source (B, L, H) split into heads, times `scale`."""

    source: str
    heads: int
    scale: float


def fuse_attention(model: onnx.ModelProto) -> int:
    """Replace every attention that is spelled out. Exact for rows without padding. Returns how many there were."""
    graph = GraphEditor(model)
    unpadded, fused = Unpadded(graph), 0
    for softmax in graph.nodes("Softmax"):
        fused += _fuse(graph, unpadded, softmax)
    graph.finish()
    return fused


def _fuse(graph: GraphEditor, unpadded: Unpadded, softmax: onnx.NodeProto) -> bool:
    joined = _joined(graph, softmax)
    scores = _scores(graph, unpadded, softmax.input[0])
    if joined is None or scores is None or attribute(softmax, "axis", -1) not in (-1, 3):
        return False
    product, merge = joined
    query = _split(graph, scores.product.input[0], SPLIT)
    key = _split(graph, scores.product.input[1], SPLIT_TURNED)
    value = _split(graph, product.input[1], SPLIT)
    if query is None or key is None or value is None or not query.heads == key.heads == value.heads or value.scale != 1:
        return False
    name = merge.output[0]
    inputs = _inputs(graph, [query.source, key.source, value.source], name)
    if scores.bias:
        inputs += [""] * (ATTENTION_BIAS_SLOT - len(inputs)) + [scores.bias]
    node = onnx.helper.make_node(
        "MultiHeadAttention",
        inputs,
        [name],
        f"{name}/MultiHeadAttention",
        domain=MICROSOFT,
        num_heads=query.heads,
        scale=scores.scale * query.scale * key.scale,
    )
    graph.remove([merge])
    graph.graph.node.append(node)
    graph.index()
    return True


def _joined(graph: GraphEditor, softmax: onnx.NodeProto) -> tuple[onnx.NodeProto, onnx.NodeProto] | None:
    """The product of weights and values, and the Reshape that has put the heads together again."""
    product = _only(graph, softmax, "MatMul")
    transpose = product and _only(graph, product, "Transpose")
    merge = transpose and _only(graph, transpose, "Reshape", besides="Shape")
    if product is None or transpose is None or merge is None or product.input[0] != softmax.output[0]:
        return None
    sizes = _sizes(graph, merge.input[1])
    if _permutation(transpose) != SPLIT or len(sizes) not in (2, 3) or sizes[-1] is None:  # (B, L, -1); (first two, -1)
        return None
    return product, merge


def _only(graph: GraphEditor, node: onnx.NodeProto, op_type: str, besides: str = "") -> onnx.NodeProto | None:
    """What alone reads the node's output; of `besides`, what reads its shape does not count."""
    users = [user for user in graph.consumers[node.output[0]] if user.op_type != besides]
    return users[0] if len(users) == 1 and users[0].op_type == op_type else None


def _scores(graph: GraphEditor, unpadded: Unpadded, tensor: str) -> _Scores | None:
    """What a tensor (B, N, L, L) is, if it is the scores of an attention."""
    node = graph.producer(tensor)
    if node is None:
        return None
    if node.op_type == "MatMul":
        return None if any(graph.is_constant(name) for name in node.input) else _Scores(node, 1.0, "")
    if node.op_type == "Where":
        return _scores(graph, unpadded, node.input[2]) if unpadded.value(node.input[0]) == 0 else None
    if node.op_type in ("Div", "Mul"):
        inner, factor = _scores(graph, unpadded, node.input[0]), _factor(graph, node)
        return inner._replace(scale=inner.scale * factor) if inner and factor and not inner.bias else None
    if node.op_type == "Add":
        for name, other in (tuple(node.input), tuple(reversed(node.input))):
            if (inner := _scores(graph, unpadded, name)) is not None:
                if unpadded.value(other) == 0:
                    return inner
                return None if inner.bias or not _is_whole(graph, other) else inner._replace(bias=other)
    return None


def _is_whole(graph: GraphEditor, bias: str) -> bool:
    """Whether a bias has a row for each query, as the operator wants it: one row for all of them is spread only by an Add."""
    if bias in graph.initializers:
        dims = graph.initializers[bias].dims
        return len(dims) == 4 and dims[2] == dims[3]
    return graph.producer(bias, "Expand") is not None


def _factor(graph: GraphEditor, node: onnx.NodeProto) -> float | None:
    """What a Mul or Div by one constant number multiplies by."""
    if not graph.is_constant(node.input[1]) or graph.constant(node.input[1]).size != 1:
        return None
    number = float(graph.constant(node.input[1]).reshape(-1)[0])
    factor = number if node.op_type == "Mul" else 1 / number if number else math.inf
    return factor if math.isfinite(factor) and factor else None


def _split(graph: GraphEditor, tensor: str, order: list[int]) -> _Heads | None:
    """What was split into heads, with the axes of the result in `order`."""
    node, scale = graph.producer(tensor), 1.0
    while node is not None and node.op_type in ("Div", "Mul") and (factor := _factor(graph, node)):
        scale, node = scale * factor, graph.producer(node.input[0])
    if node is None or node.op_type != "Transpose":
        return None
    found = _permutation(node)
    reshape = graph.producer(node.input[0])
    if found == TURN and reshape is not None and reshape.op_type == "Transpose":  # one after the other
        found, reshape = [_permutation(reshape)[axis] for axis in TURN], graph.producer(reshape.input[0])
    if found != order or reshape is None or reshape.op_type != "Reshape":
        return None
    sizes = _sizes(graph, reshape.input[1])
    if len(sizes) != 4 or not sizes[2] or sizes[2] < 1:
        return None
    return _Heads(reshape.input[0], sizes[2], scale)


def _sizes(graph: GraphEditor, shape: str) -> list[int | None]:
    """What a shape is made of; None for what is not constant."""
    if graph.is_constant(shape):
        return [int(size) for size in graph.constant(shape).reshape(-1)]
    concat = graph.producer(shape, "Concat")
    if concat is None:
        return []
    sizes: list[int | None] = []
    for name in concat.input:
        sizes += [int(size) for size in graph.constant(name).reshape(-1)] if graph.is_constant(name) else [None]
    return sizes


def _permutation(node: onnx.NodeProto) -> list[int]:
    return next((list(item.ints) for item in node.attribute if item.name == "perm"), [])


def _inputs(graph: GraphEditor, sources: list[str], stem: str) -> list[str]:
    """Query, key and value; and their biases as the attention's own where each is a constant product with one."""
    products, biases = list[str](), list[str]()
    for source in sources:
        add = graph.producer(source, "Add")
        for name, other in (tuple(add.input), tuple(reversed(add.input))) if add is not None else ():
            product = graph.producer(name, "MatMul")
            if product is not None and graph.is_constant(product.input[1]) and other in graph.initializers:
                products.append(name)
                biases.append(other)
    if len(products) != len(sources):
        return list(sources)
    bias = np.concatenate([graph.constant(name) for name in biases])
    return [*products, graph.add_initializer(f"{stem}/bias", bias)]
