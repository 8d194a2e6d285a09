"""Products of which each block of a column's weights has a scale: MatMulNBits, in its own layout or packed for our kernels."""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import onnx

from raskrank.kernel_model import GROUP
from raskrank_export.integers import closest_rows
from raskrank_export.passes.edit import MICROSOFT, GraphEditor
from raskrank_export.products import Products
from raskrank_export.quantization import Floats, Quantization

# MatMulNBits' accuracy_level: what it multiplies in, fp32, which is as exact as the weights are, or int8.
FP32_PRODUCTS, INT8_PRODUCTS = 1, 4
OFFSET = 128  # added to weights, which are stored as uint8
PANEL, QUAD = 16, 4  # columns and channels that lie together when packed: what one instruction multiplies


class WeightProducts(Products):
    """int8 weights (N, K / block, block) with a scale for each block, products in fp32."""

    block, accuracy_level = 128, FP32_PRODUCTS

    def _write(self, source: str, values: Floats, name: str, bias: str, output: str) -> None:
        inner, columns = values.shape  # (K, N)
        integers, scales = rounded(values, block=self.block, limit=self.quantization.weight_max)
        weight = self.graph.add_initializer(f"{name}/blocks", integers.T.reshape(columns, -1, self.block))
        scale = self.graph.add_initializer(f"{name}/scales", scales.T.reshape(-1))
        self._multiply(source, weight, scale, bias, output, inner, columns)

    def _multiply(self, source: str, weight: str, scale: str, bias: str, output: str, inner: int, columns: int) -> None:
        product = f"{output}/product" if bias else output
        form = {"K": inner, "N": columns, "bits": 8, "block_size": self.block, "accuracy_level": self.accuracy_level}
        self.graph.append("MatMulNBits", [source, weight, scale], [product], domain=MICROSOFT, **form)
        if bias:
            self.graph.append("Add", [product, bias], [output])


class GroupProducts(WeightProducts):
    """The same, with activations in int8 too: each block of a row has a range of its own, found at run time."""

    block, accuracy_level = GROUP, INT8_PRODUCTS


class PackedProducts(GroupProducts):
    """The same integers in the order that our own kernels read them in; the graph brings them to that of MatMulNBits.

    onnxruntime does so once, when it loads. roles: the kernels' name of each product, by the name of its output.
    """

    def __init__(self, graph: GraphEditor, quantization: Quantization, roles: Mapping[str, str]) -> None:
        super().__init__(graph, quantization)
        self._roles = roles

    def _name(self, product: onnx.NodeProto) -> str:
        return self._roles[product.output[0]]

    def _write(self, source: str, values: Floats, name: str, bias: str, output: str) -> None:
        inner, columns = values.shape
        integers, scales = rounded(values, block=self.block, limit=self.quantization.weight_max)
        weight = self.graph.add_initializer(f"{name}/weight", packed(integers))
        scale = self.graph.add_initializer(f"{name}/scale", scales)
        added = self.graph.add_initializer(f"{name}/bias", self.graph.constant(bias))
        blocks = self.graph.add_initializer(f"blocks/{columns}", np.array([columns, -1, self.block], np.int64))
        flat = self.graph.add_initializer("blocks/flat", np.array([-1], np.int64))
        self.graph.append("Transpose", [weight], [f"{name}/columns"], perm=(0, 2, 1, 3))
        self.graph.append("Reshape", [f"{name}/columns", blocks], [f"{name}/blocks"])
        self.graph.append("Transpose", [scale], [f"{name}/scale/columns"], perm=(1, 0))
        self.graph.append("Reshape", [f"{name}/scale/columns", flat], [f"{name}/scales"])
        self._multiply(source, f"{name}/blocks", f"{name}/scales", added, output, inner, columns)


def rounded(values: Floats, *, block: int, limit: int) -> tuple[npt.NDArray[np.uint8], Floats]:
    """values (K, N) as uint8 (K', N), K' the next multiple of `block`, and scales float32 (K' / block, N)."""
    inner, columns = values.shape
    padded = np.pad(values, ((0, -inner % block), (0, 0)))
    blocks = padded.reshape(-1, block, columns).transpose(0, 2, 1).reshape(-1, block)  # a block of a column a row
    integers, scales = closest_rows(blocks, limit=limit)
    stored = (integers.astype(np.int16) + OFFSET).astype(np.uint8)
    return stored.reshape(-1, columns, block).transpose(0, 2, 1).reshape(-1, columns), scales.reshape(-1, columns)


def packed(integers: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """(K, N) as (N / 16, K / 4, 16, 4): [n // 16, k // 4, n % 16, k % 4] is [k, n]."""
    inner, columns = integers.shape
    return integers.reshape(inner // QUAD, QUAD, columns // PANEL, PANEL).transpose(2, 0, 3, 1)
