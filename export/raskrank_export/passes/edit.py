"""A small editable view of an ONNX graph, shared by the passes."""

from collections import defaultdict
from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

from raskrank_export.tensors import values

MICROSOFT = "com.microsoft"


class GraphEditor:
    """Look-ups and edits on one ModelProto, which it changes in place. Names are those of tensors."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.model = model
        self.graph = model.graph
        self.initializers = {tensor.name: tensor for tensor in self.graph.initializer}
        self.index()

    def index(self) -> None:
        """Read producers and consumers again after an edit."""
        self.producers = {output: node for node in self.graph.node for output in node.output if output}
        self.consumers: dict[str, list[onnx.NodeProto]] = defaultdict(list)
        for node in self.graph.node:
            for name in node.input:
                if name:
                    self.consumers[name].append(node)

    def producer(self, tensor: str, op_type: str | None = None) -> onnx.NodeProto | None:
        node = self.producers.get(tensor)
        return node if node is not None and op_type in (None, node.op_type) else None

    def nodes(self, op_type: str) -> list[onnx.NodeProto]:
        return [node for node in self.graph.node if node.op_type == op_type]

    def is_constant(self, tensor: str) -> bool:
        return tensor in self.initializers or self.producer(tensor, "Constant") is not None

    def constant(self, tensor: str) -> npt.NDArray[np.generic]:
        """The value of an initializer or a Constant node's output."""
        if tensor in self.initializers:
            return values(self.initializers[tensor])
        node = self.producers[tensor]
        return np.asarray(numpy_helper.to_array(helper.get_node_attr_value(node, "value")))

    def add_initializer(self, name: str, value: npt.NDArray[np.generic]) -> str:
        if name not in self.initializers:
            self.graph.initializer.append(numpy_helper.from_array(np.asarray(value, order="C"), name))
            self.initializers[name] = self.graph.initializer[-1]
        return name

    def append(
        self,
        op_type: str,
        inputs: Sequence[str],
        outputs: Sequence[str],
        *,
        domain: str = "",
        **attributes: int | tuple[int, ...],
    ) -> None:
        """Add a node at the end; `finish` puts the nodes in order. It is named after its first output."""
        self.graph.node.append(
            helper.make_node(op_type, inputs, outputs, f"{outputs[0]}/{op_type}", None, domain, None, **attributes)
        )

    def remove(self, nodes: Iterable[onnx.NodeProto]) -> None:
        gone = {id(node) for node in nodes}
        kept = [node for node in self.graph.node if id(node) not in gone]
        del self.graph.node[:]
        self.graph.node.extend(kept)

    def ancestors(self, tensor: str) -> set[str]:
        """Every tensor that `tensor` is computed from, itself included."""
        found: set[str] = set()
        stack = [tensor]
        while stack:
            name = stack.pop()
            if name and name not in found:
                found.add(name)
                if (node := self.producers.get(name)) is not None:
                    stack.extend(node.input)
        return found

    def finish(self) -> None:
        """Drop what no output needs, and put nodes in topological order."""
        self.index()
        needed: list[onnx.NodeProto] = []
        state: dict[str, bool] = {}  # node's first output -> done

        stack = [(self.producers[output.name], False) for output in self.graph.output]
        while stack:
            node, expanded = stack.pop()
            key = node.output[0]
            if expanded:
                if not state[key]:
                    state[key] = True
                    needed.append(node)
                continue
            if key in state:
                continue
            state[key] = False
            stack.append((node, True))
            stack.extend((self.producers[name], False) for name in node.input if name in self.producers)
        used = {name for node in needed for name in node.input}
        # Nodes and inputs are small and put anew; of tensors only the unused are deleted, since protobuf copies what it moves.
        kept_inputs = [value for value in self.graph.input if value.name in used]
        del self.graph.node[:]
        self.graph.node.extend(needed)
        del self.graph.input[:]
        self.graph.input.extend(kept_inputs)
        for index in reversed(range(len(self.graph.initializer))):
            if self.graph.initializer[index].name not in used:
                del self.graph.initializer[index]
        del self.graph.value_info[:]
        self.initializers = {tensor.name: tensor for tensor in self.graph.initializer}
        self.index()


def attribute(node: onnx.NodeProto, name: str, default: int) -> int:
    """An integer attribute of a node."""
    return next((int(item.i) for item in node.attribute if item.name == name), default)
