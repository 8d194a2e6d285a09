"""Attention that is spelled out becomes one operator where it is exactly that, and stays where it is not."""

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from raskrank_export.fuse_attention import fuse_attention
from raskrank_export.passes.edit import GraphEditor
from raskrank_export.passes.hoist_first_token import hoist_first_token
from raskrank_export.unpadded import Unpadded

HIDDEN, HEADS = 32, 4
WIDTH = HIDDEN // HEADS


def attention(*, bias: str = "", mask: str = "", divided: str = "scores", turned: str = "at once") -> onnx.ModelProto:
    """x (B, L, H) -> softmax(q k^T / sqrt(D) + bias, where the mask is 1) v, of the first token: (B, H).

    bias, mask: "" for none; "before" the division or "after" it, "where" or "added". divided: what the root divides.
    """
    rng = np.random.default_rng(0)
    nodes = list[onnx.NodeProto]()
    constants = dict[str, TensorProto]()

    def constant(name: str, value: object, dtype: type = np.float32) -> str:
        constants[name] = numpy_helper.from_array(np.asarray(value, dtype), name)
        return name

    def node(op_type: str, *inputs: str, **attributes: Any) -> str:
        name = f"{op_type}_{len(nodes)}"
        nodes.append(helper.make_node(op_type, inputs, [name], name, **attributes))
        return name

    def projected(name: str) -> str:
        weight = constant(f"{name}/weight", rng.standard_normal((HIDDEN, HIDDEN)) / np.sqrt(HIDDEN))
        return node("Add", constant(f"{name}/bias", rng.standard_normal(HIDDEN) / 4), node("MatMul", "x", weight))

    def split(name: str) -> str:
        return node("Reshape", projected(name), constant("split", [0, 0, HEADS, WIDTH], np.int64))

    root = constant("root", np.sqrt(WIDTH))
    query = node("Transpose", split("q"), perm=[0, 2, 1, 3])
    if divided == "query":
        query = node("Div", query, root)
    if turned == "at once":
        key = node("Transpose", split("k"), perm=[0, 2, 3, 1])
    else:
        key = node("Transpose", node("Transpose", split("k"), perm=[0, 2, 1, 3]), perm=[0, 1, 3, 2])
    scores = node("MatMul", query, key)
    distances = constant("distances", rng.standard_normal((1, HEADS, 5, 5)))
    if bias == "before":
        scores = node("Add", scores, distances)
    if divided == "scores":
        scores = node("Div", scores, root)
    if bias == "after":
        scores = node("Add", distances, scores)
    ones = node("Unsqueeze", "attention_mask", constant("axes", [1, 2], np.int64))
    lowest = constant("lowest", np.finfo(np.float32).min)
    if mask == "where":
        scores = node("Where", node("Equal", ones, constant("zero", 0, np.int64)), lowest, scores)
    if mask == "added":
        padded = node("Sub", constant("one", 1.0), node("Cast", ones, to=TensorProto.FLOAT))
        scores = node("Add", scores, node("Mul", padded, lowest))
    if mask == "unknown":
        scores = node("Add", scores, node("Cast", ones, to=TensorProto.FLOAT))
    heads = node("MatMul", node("Softmax", scores, axis=-1), node("Transpose", split("v"), perm=[0, 2, 1, 3]))
    merged = node("Transpose", heads, perm=[0, 2, 1, 3])
    context = node("Reshape", merged, constant("merge", [0, 0, HIDDEN], np.int64))
    first = node("Gather", context, constant("first", 0, np.int64), axis=1)
    graph = helper.make_graph(
        nodes,
        "attention",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, ("B", "L", HIDDEN)),
            helper.make_tensor_value_info("attention_mask", TensorProto.INT64, ("B", "L")),
        ],
        [helper.make_tensor_value_info(first, TensorProto.FLOAT, ("B", HIDDEN))],
        list(constants.values()),
    )
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


def run(model: onnx.ModelProto) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    """Of two rows of five tokens."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    x = np.random.default_rng(1).standard_normal((2, 5, HIDDEN)).astype(np.float32)
    feeds = {"x": x, "attention_mask": np.ones((2, 5), np.int64)}
    found: np.ndarray[tuple[int, ...], np.dtype[np.float32]] = session.run(
        None, {item.name: feeds[item.name] for item in session.get_inputs()}
    )[0]
    return found


@pytest.mark.parametrize("turned", ["at once", "twice"])
@pytest.mark.parametrize("divided", ["scores", "query"])
@pytest.mark.parametrize("mask", ["", "where", "added"])
@pytest.mark.parametrize("bias", ["", "after"])
def test_it_becomes_one_operator_with_the_same_result(bias: str, mask: str, divided: str, turned: str) -> None:
    model = attention(bias=bias, mask=mask, divided=divided, turned=turned)
    expected = run(model)
    assert fuse_attention(model) == 1
    kinds = [node.op_type for node in model.graph.node]
    assert kinds.count("MultiHeadAttention") == 1
    assert not {"Softmax", "Transpose", "Reshape", "Where"} & set(kinds)
    assert [item.name for item in model.graph.input] == ["x"]  # the mask is 1 everywhere
    np.testing.assert_allclose(run(model), expected, atol=1e-5)
    # The last layer's query is that of the first token, and of the bias its row.
    assert hoist_first_token(model) == 1
    np.testing.assert_allclose(run(model), expected, atol=1e-5)


def _other_order(model: onnx.ModelProto) -> None:
    next(node for node in model.graph.node if node.op_type == "Transpose").attribute[0].ints[:] = [0, 2, 3, 1]


def _other_axis(model: onnx.ModelProto) -> None:
    next(node for node in model.graph.node if node.op_type == "Softmax").attribute[0].i = 1


def _read_twice(model: onnx.ModelProto) -> None:
    weights = next(node.output[0] for node in model.graph.node if node.op_type == "Softmax")
    model.graph.node.append(helper.make_node("Identity", [weights], ["weights"]))
    model.graph.output.append(helper.make_tensor_value_info("weights", TensorProto.FLOAT, None))


def _other_heads(model: onnx.ModelProto) -> None:
    reshape = [node for node in model.graph.node if node.op_type == "Reshape"][1]
    model.graph.initializer.append(numpy_helper.from_array(np.array([0, 0, HEADS * 2, WIDTH // 2]), "other"))
    reshape.input[1] = "other"


@pytest.mark.parametrize("change", [_other_order, _other_axis, _read_twice, _other_heads])
def test_what_is_not_exactly_that_stays(change: Callable[[onnx.ModelProto], None]) -> None:
    model = attention(mask="added")
    change(model)
    assert fuse_attention(model) == 0
    assert "Softmax" in {node.op_type for node in model.graph.node}


def test_a_bias_that_is_divided_too_stays() -> None:
    model = attention(bias="before")
    expected = run(model)
    assert fuse_attention(model) == 0
    np.testing.assert_array_equal(run(model), expected)


def test_a_mask_that_changes_scores_where_nothing_is_padded_is_kept() -> None:
    # One row for all queries, which the operator would not take.
    model = attention(mask="unknown")
    expected = run(model)
    assert fuse_attention(model) == 0
    assert [item.name for item in model.graph.input] == ["x", "attention_mask"]
    np.testing.assert_array_equal(run(model), expected)


def test_what_a_mask_of_ones_makes_is_known_and_nothing_else_is() -> None:
    model = attention(mask="added")
    graph = GraphEditor(model)
    values = {node.op_type: Unpadded(graph).value(node.output[0]) for node in model.graph.node if node.op_type != "Add"}
    assert (values["Cast"], values["Sub"], values["Mul"]) == (1, 0, 0)
    assert values["Softmax"] is None
    assert Unpadded(graph).value("x") is None
    assert Unpadded(graph).value("distances") is None  # of many numbers
