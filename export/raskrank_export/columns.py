"""int8 products whose weights have a scale for each column: onnxruntime's fast ones."""

from abc import abstractmethod

import numpy as np

from raskrank_export.integers import symmetric
from raskrank_export.passes.edit import MICROSOFT, GraphEditor
from raskrank_export.products import Products
from raskrank_export.quantization import PORTABLE, Floats, Quantization

GELU_LEAST = 0.17  # Gelu has its minimum of -0.16997 at -0.7518
SMALLEST_RANGE = 1e-30  # of a row of zeros, whose reciprocal must stay finite


class _ColumnProducts(Products):
    """Weights with one scale for each column."""

    def _write(self, source: str, values: Floats, name: str, bias: str, output: str) -> None:
        integers, scales = symmetric(values, axis=1, limit=self.quantization.weight_max)
        names = self.graph.add_initializer(f"{name}/int8", integers), self.graph.add_initializer(f"{name}/scale", scales)
        self._append(source, *names, bias, output)

    @abstractmethod
    def _append(self, source: str, weight: str, scale: str, bias: str, output: str) -> None:
        """Add the nodes of `source @ weight * scale + bias`; bias is "" where there is none."""


class TensorProducts(_ColumnProducts):
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


class RowProducts(_IntegerProducts):
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


class ConstantProducts(_IntegerProducts):
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
