"""int8: where the ranges of activations come from, how many levels they and the weights have, and the graph for it."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto

from raskrank_export.passes.edit import MICROSOFT, GraphEditor, attribute

Floats = npt.NDArray[np.float32]
ActivationScheme = Literal["constant", "row"]
# "tensor" is what others ship; benchmarks/studies/schemes.py shows what it loses.
Scheme = ActivationScheme | Literal["tensor", "blocks", "weights"]

BLOCK_ROWS = 8192  # of an embedding, quantized together: some tens of megabytes
EMBEDDING_MAX = 127  # looked up, never multiplied in int8: all levels are safe
GELU_LEAST = 0.17  # Gelu has its minimum of -0.16997 at -0.7518
SMALLEST_RANGE = 1e-30  # of a row of zeros, whose reciprocal must stay finite


class Levels(NamedTuple):
    """Integers that stand for the largest magnitude of an activation and of a weight; 127 at most, symmetric around 0."""

    activation: int
    weight: int


# On x86 without VNNI two products u8 x s8 are added in 16 bits, silently saturating. An activation a is stored as a + its
# level, so that 2 * (2 * 90) * 91 = 32760 holds. Both get about the same share of what fits, which gave the smallest error.
PORTABLE = Levels(90, 91)
SEVEN_BIT = Levels(127, 64)  # fits as well, 2 * (2 * 127) * 64 = 32512: coarser weights for finer activations
EXACT = Levels(127, 127)  # for CPUs that add in 32 bits: VNNI, AMX, ARM
# DynamicQuantizeMatMul uses all of 0..255 for an activation: 2 * 255 * 64 = 32640.
TENSOR_WEIGHT_MAX = 64
# MatMulNBits, accuracy_level 1 and 4: what it multiplies in, fp32, which is as exact as the weights are, or int8.
FP32_PRODUCTS, INT8_PRODUCTS = 1, 4


@dataclass(frozen=True, kw_only=True)
class Quantization:
    """How products are quantized.

    scheme: "constant" has constant ranges, which `smoothing` brings to [-1, 1]. "row" gives each row (token) of an activation
        a range of its own at run time. With both, pairs of equal length may share a run and no neighbour changes a score.
        "tensor" takes one range over all of a run, which must therefore hold one pair.
        "blocks" gives each 64 channels of a token a range, and as many weights of a column: exact on every CPU, since no sum
        overflows, and half as slow again as "row".
        "weights" stores weights in int8 and multiplies in fp32: for size, not for speed.
    levels: of activations and weights. For "tensor" those of activations are always 0..255, and EXACT weights have 127.
        "weights" has no levels of activations.
    excluded: products, by the name of their output, that stay in fp32.
    smoothing: by the tensor that products read, a divisor of each channel, float32 (K), which the weights' rows are
        multiplied with. "constant" needs one for every such tensor.
    """

    scheme: Scheme = "row"
    levels: Levels = PORTABLE
    excluded: frozenset[str] = frozenset()
    smoothing: Mapping[str, Floats] = field(default_factory=dict)

    @property
    def groups(self) -> bool:
        """Whether pairs of equal length may share a run."""
        return self.scheme not in ("tensor", "blocks", "weights")  # MatMulNBits multiplies a single row in another order

    @property
    def weight_max(self) -> int:
        return TENSOR_WEIGHT_MAX if self.scheme == "tensor" and self.levels != EXACT else self.levels.weight


def quantize(model: onnx.ModelProto, quantization: Quantization) -> tuple[int, int]:
    """Rewrite the graph's constant products and embeddings to int8, in place. Returns (products, embeddings) rewritten.

    A product `x @ W (+ b)` has int8 weights W (K, N) with a scale for each column. An embedding `table[ids]` becomes
    `int8 table[ids] * scales[ids]`.
    """
    graph = GraphEditor(model)
    products = quantize_products(graph, quantization)
    embeddings = sum(_quantize_embedding(graph, node) for node in graph.nodes("Gather"))
    graph.finish()
    return products, embeddings


def quantize_products(graph: GraphEditor, quantization: Quantization) -> int:
    """The products alone. Returns how many; `graph.finish` is left to the caller."""
    writer = _WRITERS[quantization.scheme](graph, quantization)
    products = [product for product in constant_products(graph) if product.output[0] not in quantization.excluded]
    for product in products:
        writer.write(product)
    return len(products)


def constant_products(graph: GraphEditor) -> list[onnx.NodeProto]:
    """The products of an activation with a float matrix of the graph: what can be quantized, in the graph's order."""
    return [
        node
        for node in graph.nodes("MatMul")
        if (weight := graph.initializers.get(node.input[1])) is not None
        and weight.data_type == TensorProto.FLOAT
        and len(weight.dims) == 2
    ]


def symmetric(
    values: npt.NDArray[np.float32], *, axis: int, limit: int
) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.float32]]:
    """Round to integers in [-limit, limit] with one scale per slice along `axis`. Returns (int8, float32 scales)."""
    others = tuple(dim for dim in range(values.ndim) if dim != axis)
    largest = np.abs(values).max(axis=others, keepdims=True)
    scales = (largest / np.float32(limit)).astype(np.float32)
    scales[scales < np.finfo(np.float32).tiny] = 1  # all zero, or so near that a scale would lose its digits
    return np.clip(np.rint(values / scales), -limit, limit).astype(np.int8), scales.reshape(-1)


class _Products(ABC):
    """Writes one int8 product in place of a MatMul and, if there is one, the Add of its bias."""

    def __init__(self, graph: GraphEditor, quantization: Quantization) -> None:
        self.graph, self.quantization = graph, quantization
        self._smoothed: dict[str, str] = {}

    def write(self, product: onnx.NodeProto) -> None:
        source, weight = product.input
        values, name = self.graph.constant(weight).astype(np.float32, copy=False), weight
        if (divisors := self.quantization.smoothing.get(source)) is not None:
            values, name = values * divisors[:, None], f"{weight}/{source}"  # (K, N)
            source = self._smooth(source, divisors)
        bias, add = self._bias(product)
        self.graph.remove([product] if add is None else [product, add])
        self._write(source, values, name, bias, (add or product).output[0])

    @abstractmethod
    def _write(self, source: str, values: Floats, name: str, bias: str, output: str) -> None:
        """Add the nodes of `source @ values + bias`; values (K, N), bias "" where there is none."""

    def _smooth(self, source: str, divisors: Floats) -> str:
        if source not in self._smoothed:
            factors = self.graph.add_initializer(f"{source}/factors", 1 / divisors)
            self._smoothed[source] = f"{source}/smooth"
            self.graph.append("Mul", [source, factors], [self._smoothed[source]])
        return self._smoothed[source]

    def _bias(self, product: onnx.NodeProto) -> tuple[str, onnx.NodeProto | None]:
        """The vector that is added to the product and to nothing else's, and the Add; ("", None) without."""
        output = product.output[0]
        users = self.graph.consumers[output]
        if len(users) == 1 and users[0].op_type == "Add":
            other = next(item for item in users[0].input if item != output)
            if other in self.graph.initializers and len(self.graph.initializers[other].dims) == 1:
                return other, users[0]
        return "", None


class _ColumnProducts(_Products):
    """Weights with one scale for each column."""

    def _write(self, source: str, values: Floats, name: str, bias: str, output: str) -> None:
        integers, scales = symmetric(values, axis=1, limit=self.quantization.weight_max)
        names = self.graph.add_initializer(f"{name}/int8", integers), self.graph.add_initializer(f"{name}/scale", scales)
        self._append(source, *names, bias, output)

    @abstractmethod
    def _append(self, source: str, weight: str, scale: str, bias: str, output: str) -> None:
        """Add the nodes of `source @ weight * scale + bias`; bias is "" where there is none."""


class _TensorProducts(_ColumnProducts):
    """DynamicQuantizeMatMul: one uint8 range over all of x, found at run time."""

    def _append(self, source: str, weight: str, scale: str, bias: str, output: str) -> None:
        inputs = [source, weight, scale, "", bias]  # no zero point: symmetric
        self.graph.append("DynamicQuantizeMatMul", inputs if bias else inputs[:3], [output], domain=MICROSOFT)


class _IntegerProducts(_ColumnProducts):
    """x is brought to [-1, 1], rounded with one constant scale and multiplied: QuantizeLinear, MatMulIntegerToFloat."""

    def __init__(self, graph: GraphEditor, quantization: Quantization) -> None:
        super().__init__(graph, quantization)
        levels = quantization.levels.activation
        self.step = graph.add_initializer("int8/step", np.array(1 / levels, np.float32))
        self.zero = graph.add_initializer("int8/zero", np.array(levels, np.uint8))

    def round(self, unit: str, source: str) -> str:
        self.graph.append("QuantizeLinear", [unit, self.step, self.zero], [f"{source}/uint8"])
        return f"{source}/uint8"

    def multiply(self, integers: str, weight: str, scale: str, bias: str, output: str) -> None:
        inputs = [integers, weight, self.step, scale, self.zero, "", bias]
        self.graph.append("MatMulIntegerToFloat", inputs if bias else inputs[:5], [output], domain=MICROSOFT)


class _RowProducts(_IntegerProducts):
    """Each row is divided by its largest magnitude, and its product multiplied by it.

    (B, L, K) / range (B, L, 1) -> integers (B, L, K) -> product (B, L, N) * range + bias
    """

    def __init__(self, graph: GraphEditor, quantization: Quantization) -> None:
        super().__init__(graph, quantization)
        self._rounded: dict[str, tuple[str, str]] = {}
        self._products: set[str] = set()

    def _append(self, source: str, weight: str, scale: str, bias: str, output: str) -> None:
        if source not in self._rounded:
            row_range = self._range(source)
            one = self.graph.add_initializer("int8/one", np.array(1, np.float32))
            self.graph.append("Div", [one, row_range], [f"{source}/reciprocal"])  # rounds the same on every CPU
            # Where a product reads a product, as with a linear activation, that one's own has the name.
            unit = f"{source}/unit" if f"{source}/unit" not in self._products else f"{source}/unit/input"
            self.graph.append("Mul", [source, f"{source}/reciprocal"], [unit])
            self._rounded[source] = self.round(unit, source), row_range
        integers, row_range = self._rounded[source]
        self._products.add(f"{output}/unit")
        self.multiply(integers, weight, scale, "", f"{output}/unit")
        scaled = f"{output}/scaled" if bias else output
        self.graph.append("Mul", [f"{output}/unit", row_range], [scaled])
        if bias:
            self.graph.append("Add", [scaled, bias], [output])

    def _range(self, source: str) -> str:
        axes = self.graph.add_initializer("int8/axes", np.array([-1], np.int64))
        largest, output = f"{source}/largest", f"{source}/range"
        self.graph.append("ReduceMax", [source, axes], [largest], keepdims=1)
        if self.graph.producer(source, "Gelu") is not None:  # one pass over the widest tensor of a layer less
            least = self.graph.add_initializer("int8/gelu", np.array([GELU_LEAST], np.float32))
            self.graph.append("Max", [largest, least], [output])
            return output
        self.graph.append("ReduceMin", [source, axes], [f"{source}/least"], keepdims=1)
        self.graph.append("Neg", [f"{source}/least"], [f"{source}/lowest"])
        floor = self.graph.add_initializer("int8/floor", np.array([SMALLEST_RANGE], np.float32))
        self.graph.append("Max", [largest, f"{source}/lowest", floor], [output])
        return output


class _ConstantProducts(_IntegerProducts):
    """x has been brought to [-1, 1] by its divisors: nothing is left to find at run time.

    (B, L, K) -> integers (B, L, K) -> product (B, L, N) + bias
    """

    def __init__(self, graph: GraphEditor, quantization: Quantization) -> None:
        super().__init__(graph, quantization)
        self._rounded: dict[str, str] = {}

    def _append(self, source: str, weight: str, scale: str, bias: str, output: str) -> None:
        if source not in self._rounded:
            self._rounded[source] = self._inside(self.round(source, source))
        self.multiply(self._rounded[source], weight, scale, bias, output)

    def _inside(self, integers: str) -> str:
        """QuantizeLinear stops at 0 and 255 alone: what is larger than any sample's could reach integers that saturate."""
        if self.quantization.levels != PORTABLE:  # the others have none
            return integers
        most = self.graph.add_initializer("int8/most", np.array(2 * PORTABLE.activation, np.uint8))
        self.graph.append("Clip", [integers, "", most], [f"{integers}/inside"])
        return f"{integers}/inside"


class _WeightProducts(_Products):
    """MatMulNBits: int8 weights (N, K / block, block) with a scale for each block, products in fp32."""

    block, accuracy_level = 128, FP32_PRODUCTS

    def _write(self, source: str, values: Floats, name: str, bias: str, output: str) -> None:
        inner, columns = values.shape  # (K, N)
        blocks = np.pad(values.T, ((0, 0), (0, -inner % self.block))).reshape(-1, self.block)  # (N * K / block, block)
        integers, scales = symmetric(blocks, axis=0, limit=self.quantization.weight_max)
        stored = (integers.astype(np.int16) + 128).astype(np.uint8).reshape(columns, -1, self.block)
        inputs = [
            source,
            self.graph.add_initializer(f"{name}/blocks", stored),
            self.graph.add_initializer(f"{name}/scales", scales),
        ]
        product = f"{output}/product" if bias else output
        form = {"K": inner, "N": columns, "bits": 8, "block_size": self.block, "accuracy_level": self.accuracy_level}
        self.graph.append("MatMulNBits", inputs, [product], domain=MICROSOFT, **form)
        if bias:
            self.graph.append("Add", [product, bias], [output])


class _BlockProducts(_WeightProducts):
    """The same, with activations in int8 too: each block of a row has a range of its own, found at run time."""

    block, accuracy_level = 64, INT8_PRODUCTS


_WRITERS: Mapping[Scheme, type[_Products]] = {
    "constant": _ConstantProducts,
    "row": _RowProducts,
    "tensor": _TensorProducts,
    "blocks": _BlockProducts,
    "weights": _WeightProducts,
}


def _symmetric_rows(table: npt.NDArray[np.generic]) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.float32]]:
    """`symmetric` for each row of a large table, a block at a time so that no second float table is ever in memory."""
    integers, scales = np.empty(table.shape, np.int8), np.empty(len(table), np.float32)
    for start in range(0, len(table), BLOCK_ROWS):
        block = slice(start, start + BLOCK_ROWS)
        integers[block], scales[block] = symmetric(table[block].astype(np.float32), axis=0, limit=EMBEDDING_MAX)
    return integers, scales


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
