"""What a graph computes from its mask alone, where no row is padded: one number, the same everywhere."""

from collections.abc import Callable, Mapping

from raskrank_export.passes.drop_mask import MASK_INPUT
from raskrank_export.passes.edit import GraphEditor

_SAME = frozenset({"Unsqueeze", "Squeeze", "Reshape", "Expand", "Cast", "Identity", "Transpose", "Slice"})  # of the first input
_ARITHMETIC: Mapping[str, Callable[[float, float], float]] = {
    "Add": lambda one, other: one + other,
    "Sub": lambda one, other: one - other,
    "Mul": lambda one, other: one * other,
    "Equal": lambda one, other: float(one == other),
}


class Unpadded:
    """Values of tensors where every element of the attention mask is 1."""

    def __init__(self, graph: GraphEditor) -> None:
        self._graph = graph

    def value(self, tensor: str) -> float | None:
        """The number that every element of `tensor` is; None where they may differ, or it is not known. True is 1."""
        if tensor == MASK_INPUT:
            return 1.0
        if self._graph.is_constant(tensor):
            constant = self._graph.constant(tensor)
            return float(constant.reshape(-1)[0]) if constant.size == 1 else None
        node = self._graph.producer(tensor)
        if node is None:
            return None
        if node.op_type in _SAME:
            return self.value(node.input[0])
        if node.op_type == "Not":
            inner = self.value(node.input[0])
            return None if inner is None else float(not inner)
        if node.op_type in _ARITHMETIC:
            one, other = (self.value(name) for name in node.input)
            return None if one is None or other is None else _ARITHMETIC[node.op_type](one, other)
        return None
