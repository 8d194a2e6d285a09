"""The products of a graph, and what writes int8 in their place."""

from abc import ABC, abstractmethod

import numpy as np
import onnx
from onnx import TensorProto

from raskrank_export.passes.edit import GraphEditor
from raskrank_export.quantization import Floats, Quantization


def constant_products(graph: GraphEditor) -> list[onnx.NodeProto]:
    """The products of an activation with a float matrix of the graph: what can be quantized, in the graph's order."""
    return [
        node
        for node in graph.nodes("MatMul")
        if (weight := graph.initializers.get(node.input[1])) is not None
        and weight.data_type == TensorProto.FLOAT
        and len(weight.dims) == 2
    ]


class Products(ABC):
    """Writes one int8 product in place of a MatMul and, if there is one, the Add of its bias."""

    def __init__(self, graph: GraphEditor, quantization: Quantization) -> None:
        self.graph, self.quantization = graph, quantization
        self._smoothed: dict[str, str] = {}

    def write(self, product: onnx.NodeProto) -> None:
        source, weight = product.input
        values, name = self.graph.constant(weight).astype(np.float32, copy=False), self._name(product)
        if (divisors := self.quantization.smoothing.get(source)) is not None:
            values, name = values * divisors[:, None], f"{name}/{source}"  # (K, N)
            source = self._smooth(source, divisors)
        bias, add = self._bias(product)
        self.graph.remove([product] if add is None else [product, add])
        self._write(source, values, name, bias, (add or product).output[0])

    def _name(self, product: onnx.NodeProto) -> str:
        """What the names of the product's tensors start with."""
        return str(product.input[1])

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
