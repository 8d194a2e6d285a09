"""Move the choice of the first token above the last layer: the head reads one row, so that layer computes one."""

import numpy as np
import onnx

from raskrank_export.passes.edit import GraphEditor, attribute

# Each output row of these depends on the same row of their inputs alone (MatMul: by a constant).
ROW_WISE = {
    *("Add", "Sub", "Mul", "Div", "LayerNormalization", "MatMul"),
    *("Gelu", "FastGelu", "QuickGelu", "Relu", "LeakyRelu", "Clip", "Sigmoid", "Softplus", "Tanh", "Erf"),
}
QUERY_SLOT, KEY_VALUE_SLOTS, ATTENTION_BIAS_SLOT = 0, (1, 2), 5


def hoist_first_token(model: onnx.ModelProto) -> int:
    """Let the last layer's query, output and feed-forward products run on one row. Returns the layers changed: 1 or 0.

    The selection `x[:, 0]` (Gather on axis 1 with index 0) moves up through row-wise operators and through an attention's
    query until it meets a tensor that is needed whole; there it becomes a Slice that keeps the rank: (B, L, H) -> (B, 1, H).
    """
    graph = GraphEditor(model)
    for gather in graph.nodes("Gather"):
        if attribute(gather, "axis", 0) != 1 or not graph.is_constant(gather.input[1]):
            continue
        index = graph.constant(gather.input[1])
        if index.ndim != 0 or int(index) != 0 or graph.is_constant(gather.input[0]):
            continue
        whole = _needed_whole(graph, gather.input[0])
        selector = _Selector(graph, whole)
        selected = selector.select(gather.input[0])
        if selector.attentions == 0:
            graph.finish()  # takes back what was built for nothing
            continue
        gather.input[0] = selected
        graph.finish()
        return selector.attentions
    return 0


def _needed_whole(graph: GraphEditor, tensor: str) -> set[str]:
    """Tensors whose every row is read: all that the last attention's keys and values come from."""
    before = graph.ancestors(tensor)
    attentions = [node for node in graph.nodes("MultiHeadAttention") if node.output[0] in before]
    if not attentions:
        return set()
    last = max(attentions, key=lambda node: len(graph.ancestors(node.output[0])))
    return set().union(*(graph.ancestors(last.input[slot]) for slot in KEY_VALUE_SLOTS))


class _Selector:
    """Rebuilds the operators between an attention and the head for one row."""

    def __init__(self, graph: GraphEditor, whole: set[str]) -> None:
        self.graph, self.whole = graph, whole
        self.done: dict[str, str] = {}
        self.attentions = 0

    def select(self, tensor: str) -> str:
        """The name of a tensor that holds the first row of `tensor`."""
        if self.graph.is_constant(tensor):
            return tensor
        if tensor not in self.done:
            self.done[tensor] = self._rebuild(tensor)
        return self.done[tensor]

    def _rebuild(self, tensor: str) -> str:
        node, output = self.graph.producer(tensor), f"{tensor}/first"
        if node is None or tensor in self.whole or not self._passes(node):
            return self._first(tensor, output, axis=1)
        clone = onnx.NodeProto()
        clone.CopyFrom(node)
        clone.name, clone.output[0] = f"{node.name}/first", output
        if node.op_type == "MultiHeadAttention":
            self.attentions += 1
            clone.input[QUERY_SLOT] = self.select(node.input[QUERY_SLOT])
            if bias := node.input[ATTENTION_BIAS_SLOT:]:  # (B, N, L, L)
                clone.input[ATTENTION_BIAS_SLOT] = self._first(bias[0], f"{output}/bias", axis=2)
        else:
            for slot, name in enumerate(node.input):
                clone.input[slot] = self.select(name)
        self.graph.graph.node.append(clone)
        return output

    def _first(self, tensor: str, output: str, *, axis: int) -> str:
        bounds = [self.graph.add_initializer(f"first/{n}", np.array([n], np.int64)) for n in (0, 1, axis)]
        self.graph.append("Slice", [tensor, *bounds], [output])  # start 0, end 1
        return output

    def _passes(self, node: onnx.NodeProto) -> bool:
        if node.op_type == "MultiHeadAttention":
            return True
        if "" in node.input:  # an input left out, which cannot be selected from
            return False
        if node.op_type == "MatMul":
            return self.graph.is_constant(node.input[1])
        if node.op_type == "LayerNormalization":
            return attribute(node, "axis", -1) == -1
        return node.op_type in ROW_WISE
