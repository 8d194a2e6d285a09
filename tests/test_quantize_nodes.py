"""int8, node by node: what is rewritten and what is left."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from raskrank_export.columns import GELU_LEAST
from raskrank_export.integers import closest_rows, symmetric
from raskrank_export.quantization import PORTABLE, SEVEN_BIT, Levels, Quantization
from raskrank_export.quantize import EMBEDDING_MAX, quantize
from recipes import PRODUCT, RECIPES, ROW, TENSOR

Floats = npt.NDArray[np.float32]


# What is rewritten and what is left, node by node


def model_of(
    nodes: Sequence[onnx.NodeProto], tensors: dict[str, npt.NDArray[np.generic]], *, ids: bool = False, outputs: int = 1
) -> onnx.ModelProto:
    """x (B, 4) float, or ids (B,) int64 -> y, and y1, ... with more outputs."""
    source = helper.make_tensor_value_info("x", TensorProto.INT64 if ids else TensorProto.FLOAT, None)
    names = ["y", *(f"y{number}" for number in range(1, outputs))]
    results = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in names]
    initializers = [numpy_helper.from_array(value, name) for name, value in tensors.items()]
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("com.microsoft", 1)]
    made = helper.make_graph(list(nodes), "g", [source], results, initializers)
    return helper.make_model(made, opset_imports=opsets, ir_version=9)


def run(model: onnx.ModelProto, values: npt.NDArray[np.generic]) -> list[Floats]:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return [np.asarray(result) for result in session.run(None, {"x": values})]


def kinds(model: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in model.graph.node]


@pytest.fixture
def numbers() -> np.random.Generator:
    return np.random.default_rng(7)


def expected_product(
    x: Floats, weight: Floats, bias: Floats | float = 0.0, recipe: Quantization = ROW
) -> npt.NDArray[np.float64]:
    """Quantization as the scheme defines it, in float64."""
    limit = recipe.weight_max
    if recipe.scheme in ("weights", "group"):  # 4 channels are one block
        columns, steps = closest_rows(weight.T, limit=limit)
        step = np.abs(x).max(axis=-1, keepdims=True).astype(np.float64) / 127
        source = np.rint(x / step) * step if recipe.scheme == "group" else x
        return np.asarray(source @ (columns.T * steps.astype(np.float64)) + bias)
    if recipe.scheme == "row":
        ranges = np.maximum(np.abs(x).max(axis=-1, keepdims=True), 1e-30).astype(np.float64)
        step = ranges / recipe.levels.activation
        levels = np.rint(x / step)
    else:  # one uint8 range of the whole input, with zero inside
        low, high = min(float(x.min()), 0.0), max(float(x.max()), 0.0)
        step = np.float64((high - low) / 255)
        zero = round(-low / float(step))
        levels = np.clip(np.rint(x.astype(np.float64) / step) + zero, 0, 255) - zero
    integers, scales = symmetric(weight, axis=1, limit=limit)
    return np.asarray(levels @ integers.astype(np.float64) * step * scales + bias)


@RECIPES
@pytest.mark.parametrize("bias_first", [False, True])
def test_a_product_with_bias(numbers: np.random.Generator, bias_first: bool, recipe: Quantization) -> None:
    weight, bias = numbers.normal(size=(4, 6)).astype(np.float32), numbers.normal(size=6).astype(np.float32)
    add = ["b", "p"] if bias_first else ["p", "b"]
    nodes = [helper.make_node("MatMul", ["x", "w"], ["p"]), helper.make_node("Add", add, ["y"])]
    model = model_of(nodes, {"w": weight, "b": bias})
    assert quantize(model, recipe) == (1, 0)
    assert kinds(model).count(PRODUCT[recipe.scheme]) == 1
    assert "w" not in {tensor.name for tensor in model.graph.initializer}
    x = numbers.normal(size=(5, 4)).astype(np.float32)
    np.testing.assert_allclose(run(model, x)[0], expected_product(x, weight, bias, recipe), rtol=0, atol=1e-5)


def test_a_bias_is_folded_where_nothing_scales_the_product_afterwards(numbers: np.random.Generator) -> None:
    nodes = [helper.make_node("MatMul", ["x", "w"], ["p"]), helper.make_node("Add", ["p", "b"], ["y"])]
    model = model_of(nodes, {"w": np.ones((4, 6), np.float32), "b": np.ones(6, np.float32)})
    quantize(model, TENSOR)
    assert kinds(model) == ["DynamicQuantizeMatMul"]


@RECIPES
def test_a_product_that_two_nodes_read_keeps_its_sum_apart(numbers: np.random.Generator, recipe: Quantization) -> None:
    weight, bias = numbers.normal(size=(4, 6)).astype(np.float32), numbers.normal(size=6).astype(np.float32)
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["p"]),
        helper.make_node("Add", ["p", "b"], ["y"]),
        helper.make_node("Neg", ["p"], ["y1"]),
    ]
    model = model_of(nodes, {"w": weight, "b": bias}, outputs=2)
    assert quantize(model, recipe) == (1, 0)
    assert kinds(model).count(PRODUCT[recipe.scheme]) == 1
    x = numbers.normal(size=(5, 4)).astype(np.float32)
    y, negative = run(model, x)
    np.testing.assert_allclose(y, expected_product(x, weight, bias, recipe), rtol=0, atol=1e-5)
    np.testing.assert_allclose(negative, -expected_product(x, weight, recipe=recipe), rtol=0, atol=1e-5)


@RECIPES
def test_a_sum_with_a_table_or_an_activation_is_not_folded(numbers: np.random.Generator, recipe: Quantization) -> None:
    weight, table = numbers.normal(size=(4, 4)).astype(np.float32), numbers.normal(size=(1, 4)).astype(np.float32)
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["p"]),
        helper.make_node("Add", ["p", "t"], ["s"]),
        helper.make_node("MatMul", ["s", "w"], ["q"]),
        helper.make_node("Add", ["q", "x"], ["y"]),
    ]
    model = model_of(nodes, {"w": weight, "t": table})
    assert quantize(model, recipe) == (2, 0)
    assert kinds(model).count(PRODUCT[recipe.scheme]) == kinds(model).count("Add") == 2
    # A weight that two products share is stored once.
    large = [tensor.name for tensor in model.graph.initializer if tensor.dims[:1] == [4]]
    assert len([name for name in large if name.startswith("w/") and not name.endswith(("scale", "scales"))]) == 1
    x = numbers.normal(size=(5, 4)).astype(np.float32)
    middle = (expected_product(x, weight, recipe=recipe) + table).astype(np.float32)
    np.testing.assert_allclose(run(model, x)[0], expected_product(middle, weight, recipe=recipe) + x, rtol=0, atol=0.05)


# Row ranges


@pytest.fixture
def rows(numbers: np.random.Generator) -> tuple[onnx.ModelProto, Floats]:
    """A product with row ranges, and its weight (4, 6)."""
    weight = numbers.normal(size=(4, 6)).astype(np.float32)
    model = model_of([helper.make_node("MatMul", ["x", "w"], ["y"])], {"w": weight})
    quantize(model, ROW)
    return model, weight


def test_an_outlier_costs_its_own_row_alone(rows: tuple[onnx.ModelProto, Floats], numbers: np.random.Generator) -> None:
    model, weight = rows
    x = numbers.normal(size=(3, 5, 4)).astype(np.float32)
    (quiet,) = run(model, x)
    x[1, 2, 3] = 1000
    (loud,) = run(model, x)
    same = np.delete(quiet.reshape(15, 6), 7, axis=0), np.delete(loud.reshape(15, 6), 7, axis=0)
    np.testing.assert_array_equal(*same)
    for row in range(3):
        np.testing.assert_array_equal(run(model, x[[row]])[0], loud[[row]])
    # The control: with one range over all of x it costs every row.
    control = model_of([helper.make_node("MatMul", ["x", "w"], ["y"])], {"w": weight})
    quantize(control, TENSOR)
    error = np.abs(run(control, x)[0][0] - x[0] @ weight).max()
    assert error > 20 * np.abs(loud[0] - x[0] @ weight).max()


@pytest.mark.parametrize("value", [0.0, -0.0, 1e-45, 1e-38, -1e-38])
def test_a_row_of_nothing_gives_nothing_and_disturbs_nobody(rows: tuple[onnx.ModelProto, Floats], value: float) -> None:
    model, weight = rows
    x = np.array([[[1, 2, 3, 4], [value] * 4, [-4, 3, -2, 1]]], np.float32)
    (y,) = run(model, x)
    np.testing.assert_allclose(y[0, 1], 0, rtol=0, atol=1e-29)
    np.testing.assert_allclose(y, expected_product(x, weight), rtol=0, atol=1e-5)


@pytest.mark.parametrize("value", [1e30, -1e30, 1e-25])
def test_rows_of_any_size_keep_their_digits(rows: tuple[onnx.ModelProto, Floats], value: float) -> None:
    model, weight = rows
    x = np.array([[[1, -0.5, 0.25, 0.125]]], np.float32) * np.float32(value)
    np.testing.assert_allclose(run(model, x)[0], expected_product(x, weight), rtol=1e-4, atol=0)


def test_the_least_of_gelu_is_above_its_bound() -> None:
    x = np.linspace(-20, 20, 4_000_001, dtype=np.float32)
    nodes = [helper.make_node("Gelu", ["x"], ["y"], domain="com.microsoft")]
    (y,) = run(model_of(nodes, {}), x)
    assert -GELU_LEAST < y.min() < -0.1699
    assert x[np.argmin(y)] == pytest.approx(-0.7518, abs=2e-3)


def test_a_row_that_gelu_leaves_negative_is_in_range(numbers: np.random.Generator) -> None:
    weight = numbers.normal(size=(4, 6)).astype(np.float32)
    nodes = [
        helper.make_node("Gelu", ["x"], ["g"], domain="com.microsoft"),
        helper.make_node("MatMul", ["g", "w"], ["y"]),
    ]
    model, exact = model_of(nodes, {"w": weight}), model_of(nodes, {"w": weight})
    quantize(model, ROW)
    assert "ReduceMin" not in kinds(model)  # what the bound saves
    x = np.array([[[-0.7518] * 4, [-3, -2, -1, -0.5], [5, -0.7, 0, 1]]], np.float32)
    # Half a level of activations and of weights, four times.
    np.testing.assert_allclose(run(model, x)[0], run(exact, x)[0], rtol=0, atol=4 * 5 * 4 / 90)
    np.testing.assert_allclose(run(model, x)[0][0, :2], run(exact, x)[0][0, :2], rtol=0, atol=4 * 0.17 * 4 / 90)


def test_smoothing_takes_an_outlier_out_of_the_range(numbers: np.random.Generator) -> None:
    weight = numbers.normal(size=(4, 6)).astype(np.float32)
    weight[2] /= 64
    divisors = np.array([1, 1, 64, 1], np.float32)
    x = numbers.normal(size=(2, 5, 4)).astype(np.float32) * divisors
    errors = []
    for recipe in (ROW, Quantization(smoothing={"x": divisors})):
        model = model_of([helper.make_node("MatMul", ["x", "w"], ["y"])], {"w": weight})
        quantize(model, recipe)
        errors.append(np.abs(run(model, x)[0] - x @ weight).max())
    assert errors[1] < errors[0] / 10
    # But for int8 it is exact: powers of two.
    np.testing.assert_allclose((x / divisors) @ (weight * divisors[:, None]), x @ weight, rtol=0, atol=1e-5)


@pytest.mark.parametrize("levels", [PORTABLE, SEVEN_BIT])
@pytest.mark.parametrize("factor", [1.2, 3, -1.2, -3])
def test_what_is_beyond_a_constant_range_cannot_saturate(levels: Levels, factor: float) -> None:
    model = model_of([helper.make_node("MatMul", ["x", "w"], ["y"])], {"w": np.ones((64, 8), np.float32)})
    quantize(model, Quantization(scheme="constant", levels=levels, smoothing={"x": np.ones(64, np.float32)}))
    (within, beyond) = run(model, np.array([[[1] * 64, [factor] * 64]], np.float32))[0][0]
    # uint8 has one level more on one side of SEVEN_BIT's.
    np.testing.assert_allclose(within, 64, rtol=1e-6)
    np.testing.assert_allclose(beyond, np.sign(factor) * within, rtol=1.01 / 127)


# What is left as it is


@pytest.mark.parametrize("shape", [(4,), (2, 4, 4)])
def test_weights_of_other_ranks_are_left(shape: tuple[int, ...], numbers: np.random.Generator) -> None:
    weight = numbers.normal(size=shape).astype(np.float32)
    model = model_of([helper.make_node("MatMul", ["x", "w"], ["y"])], {"w": weight})
    assert quantize(model, ROW) == (0, 0)
    assert kinds(model) == ["MatMul"]


def test_products_of_two_activations_and_other_types_are_left() -> None:
    nodes = [
        helper.make_node("Transpose", ["x"], ["t"]),
        helper.make_node("MatMul", ["x", "t"], ["y"]),
        helper.make_node("Cast", ["x"], ["d"], to=TensorProto.DOUBLE),
        helper.make_node("MatMul", ["d", "w"], ["e"]),
        helper.make_node("Cast", ["e"], ["y1"], to=TensorProto.FLOAT),
    ]
    model = model_of(nodes, {"w": np.eye(4)}, outputs=2)
    assert quantize(model, ROW) == (0, 0)
    assert kinds(model).count("MatMul") == 2


def test_an_embedding_is_looked_up_in_int8(numbers: np.random.Generator) -> None:
    table = numbers.normal(size=(7, 5)).astype(np.float32)
    table[3] = 0
    table[5] *= 1000
    model = model_of([helper.make_node("Gather", ["w", "x"], ["y"], axis=0)], {"w": table}, ids=True)
    assert quantize(model, ROW) == (0, 1)
    assert "w" not in {tensor.name for tensor in model.graph.initializer}
    integers, scales = symmetric(table, axis=0, limit=EMBEDDING_MAX)
    ids = np.array([[0, 3, 5], [6, 5, 1]], np.int64)
    np.testing.assert_array_equal(run(model, ids)[0], (integers.astype(np.float32) * scales[:, None])[ids])


def test_look_ups_that_are_no_embedding_are_left() -> None:
    nodes = [
        helper.make_node("Gather", ["w", "x"], ["a"], axis=1),
        helper.make_node("Gather", ["v", "x"], ["y"], axis=0),
        helper.make_node("Gather", ["i", "x"], ["b"], axis=0),
        helper.make_node("Cast", ["b"], ["y1"], to=TensorProto.FLOAT),
        helper.make_node("Neg", ["a"], ["y2"]),
    ]
    tensors: dict[str, npt.NDArray[np.generic]] = {
        "w": np.ones((3, 3), np.float32),
        "v": np.ones(3, np.float32),
        "i": np.ones((3, 3), np.int64),
    }
    model = model_of(nodes, tensors, ids=True, outputs=3)
    assert quantize(model, ROW) == (0, 0)
    assert kinds(model).count("Gather") == 3


def test_a_table_that_something_else_reads_is_kept_for_it() -> None:
    table = np.array([[1, 2], [3, 4]], np.float32)
    nodes = [helper.make_node("Gather", ["w", "x"], ["y"], axis=0), helper.make_node("Neg", ["w"], ["y1"])]
    model = model_of(nodes, {"w": table}, ids=True, outputs=2)
    assert quantize(model, ROW) == (0, 1)
    np.testing.assert_array_equal(run(model, np.array([1], np.int64))[1], -table)
