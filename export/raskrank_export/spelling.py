"""Small sub-graphs as text, so that one can be told from every other."""

import numpy as np
import numpy.typing as npt
from onnx import helper

from raskrank_export.passes.edit import GraphEditor

MOST_SHOWN = 4  # of the values of a constant


def spelled(graph: GraphEditor, tensor: str) -> str:
    """How `tensor` comes about from the graph's inputs and constants: `Add(Shape(input_ids), 2)`, attributes after the inputs.

    Attributes are in the order of their names. A constant is spelled as its values; where those are many, as "zeros", or as
    "counting(n)" for 0 to n - 1, or "values".
    """
    if graph.is_constant(tensor):
        return _constant(graph.constant(tensor))
    node = graph.producer(tensor)
    if node is None:
        return tensor
    parts = [spelled(graph, name) for name in node.input]
    parts += [
        f"{item.name}={_attribute(helper.get_attribute_value(item))}"
        for item in sorted(node.attribute, key=lambda item: item.name)
    ]
    return f"{node.op_type}({', '.join(parts)})"


def _constant(values: npt.NDArray[np.generic]) -> str:
    if not values.any():
        return "zeros" if values.size > MOST_SHOWN else _shown(values)
    if values.size <= MOST_SHOWN:
        return _shown(values)
    counting = np.issubdtype(values.dtype, np.integer) and np.array_equal(values.reshape(-1), np.arange(values.size))
    return f"counting({values.size})" if counting else "values"


def _shown(values: npt.NDArray[np.generic]) -> str:
    return str(values.tolist()).replace(" ", "")


def _attribute(value: object) -> str:
    return str(value) if isinstance(value, int | float) else "values"
