"""Ways to get a graph wrong: each spoils what `lean_graph` gives for BERT, as a wrong export, fusion or pass would."""

from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper

Values = npt.NDArray[np.float32]
HEAD = 8  # channels of a head of the tiny models


def change(model: onnx.ModelProto, name: str, edit: Callable[[Values], Values]) -> None:
    """Give an initializer other values of the same shape."""
    (tensor,) = (entry for entry in model.graph.initializer if entry.name == name)
    values = edit(numpy_helper.to_array(tensor).copy())
    tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(values), name))


def nodes(model: onnx.ModelProto, kind: str, part: str = "") -> list[onnx.NodeProto]:
    return [node for node in model.graph.node if node.op_type == kind and part in node.output[0]]


def attention_output(model: onnx.ModelProto) -> str:
    return str(nodes(model, "MatMul", "layer.0/attention/output/dense")[0].input[1])


def swap_layers(model: onnx.ModelProto) -> None:
    constants = {tensor.name for tensor in model.graph.initializer}
    for kind in ("MatMul", "Add", "LayerNormalization"):
        for first, second in zip(nodes(model, kind, "layer.0/"), nodes(model, kind, "layer.1/"), strict=True):
            for place, (one, other) in enumerate(zip(list(first.input), list(second.input), strict=True)):
                if one in constants and other in constants:
                    first.input[place], second.input[place] = other, one


def leave_out_a_bias(model: onnx.ModelProto) -> None:
    change(model, "bert.encoder.layer.1.intermediate.dense.bias", np.zeros_like)


def tanh_for_erf(model: onnx.ModelProto) -> None:
    for node in nodes(model, "Gelu"):
        node.op_type = "FastGelu"  # the same function with tanh in place of erf


def exchange_rows_of_heads(model: onnx.ModelProto) -> None:
    change(model, attention_output(model), lambda values: np.roll(values, HEAD, axis=0))


def shift_positions(model: onnx.ModelProto) -> None:
    change(model, "bert.embeddings.position_embeddings.weight", lambda values: np.roll(values, 1, axis=0))


def set_epsilons(model: onnx.ModelProto, epsilon: float) -> None:
    for node in nodes(model, "LayerNormalization"):
        for item in node.attribute:
            if item.name == "epsilon":
                item.f = epsilon


def zero_token_types(model: onnx.ModelProto) -> None:
    change(model, "bert.embeddings.token_type_embeddings.weight", lambda values: np.stack([values[0], values[0]]))


def leave_out_a_norm(model: onnx.ModelProto) -> None:
    node = nodes(model, "LayerNormalization", "layer.0/output")[0]
    node.CopyFrom(onnx.helper.make_node("Identity", [node.input[0]], list(node.output)))


def exchange_query_and_key(model: onnx.ModelProto) -> None:
    node = nodes(model, "MultiHeadAttention")[0]
    node.input[0], node.input[1] = node.input[1], node.input[0]


def transpose_a_square_weight(model: onnx.ModelProto) -> None:
    change(model, attention_output(model), np.transpose)


BROKEN: Mapping[str, Callable[[onnx.ModelProto], None]] = {
    "a layer swapped": swap_layers,
    "a bias left out": leave_out_a_bias,
    "tanh for erf": tanh_for_erf,
    "rows of heads exchanged": exchange_rows_of_heads,
    "positions shifted by one": shift_positions,
    "a wrong epsilon": lambda model: set_epsilons(model, 1e-5),
    "token types zeroed": zero_token_types,
    "a norm left out": leave_out_a_norm,
    "query and key exchanged": exchange_query_and_key,
    "a square weight transposed": transpose_a_square_weight,
}
