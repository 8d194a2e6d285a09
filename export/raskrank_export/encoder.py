"""Whether a lean fp32 graph is an encoder that our own kernels run, and which of its nodes plays which part."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import onnx
from onnx import TensorProto, helper

from raskrank.kernel_model import GROUP
from raskrank.manifest import Encoder, HeadActivation
from raskrank_export.passes.edit import MICROSOFT, GraphEditor
from raskrank_export.positions import first_position
from raskrank_export.spelling import spelled

HEAD_WIDTH = 16  # of a head, whose width is a multiple of it, as the hidden and the intermediate size are of GROUP
# By operator and its domain.
_HEAD: Mapping[tuple[str, str], HeadActivation] = {("Tanh", ""): "tanh", ("Gelu", MICROSOFT): "gelu", ("Relu", ""): "relu"}
_NO_TYPES = re.compile(r"Expand\(Slice\(zeros, .*\)|GatherElements\(Expand\(zeros, .*\)")  # of whatever shape: each is 0


class Slot(NamedTuple):
    """An input of a node, which is named by its first output."""

    output: str
    number: int


@dataclass(frozen=True)
class Parts:
    """An encoder's parts by the kernels' names for them. Nodes are named by their first output.

    products: of each MatMul, all with an Add for their bias. tables: of each Gather of an embedding. tensors: of what stays
    in fp32.
    """

    encoder: Encoder
    products: dict[str, str]
    tables: dict[str, str]
    tensors: dict[Slot, str]


def find_encoder(model: onnx.ModelProto) -> Parts | str:
    """The parts of a lean fp32 graph; or, where our own kernels do not run it, why not, as a clause."""
    try:
        return _Walk(GraphEditor(model)).parts()
    except _UnknownGraph as reason:
        return str(reason)


class _UnknownGraph(Exception):
    pass


class _Walk:
    """From the logits up to the ids. Whatever is not exactly as expected ends it."""

    def __init__(self, graph: GraphEditor) -> None:
        self.graph = graph
        self.layers = len(graph.nodes("MultiHeadAttention"))
        self.products: dict[str, str] = {}
        self.tables: dict[str, str] = {}
        self.tensors: dict[Slot, str] = {}
        self.heads, self.widths, self.epsilons = set[int](), set[int](), set[float]()

    def parts(self) -> Parts:
        state, self.hidden, self.active = self.head()
        self.check_embedding()
        for index in reversed(range(self.layers)):
            state = self.layer(state, index)
        encoder = self.embeddings(state)
        return Parts(encoder, self.products, self.tables, self.tensors)

    def head(self) -> tuple[str, int, HeadActivation]:
        """Dense, activation, linear with one logit, of the first token. Returns the last state, its width, the activation."""
        logit = self.dense(self.graph.graph.output[0].name, "encoder/logit")
        active = self.graph.producer(logit.input[0])
        kind = ("", "") if active is None else (active.op_type, active.domain)
        if active is None or kind not in _HEAD:
            raise _UnknownGraph(f"its head has {kind[0] or 'no node'} where they have Tanh, Gelu or Relu ({logit.input[0]})")
        dense = self.dense(active.input[0], "encoder/head")
        first = self.node(dense.input[0], "Gather")
        if self.numbers(first) != {"axis": 1} or spelled(self.graph, first.input[1]) != "0":
            raise _UnknownGraph("its head reads another token than the first")
        outputs, hidden = self.shape(logit.input[1])
        if outputs != 1 or self.shape(dense.input[1]) != (hidden, hidden):
            raise _UnknownGraph("its head is not one dense layer of its own width and one logit")
        return first.input[0], hidden, _HEAD[kind]

    def layer(self, state: str, index: int) -> str:
        """The layer whose output is `state`. Returns its input."""
        stem, last = f"encoder/{index}", index == self.layers - 1
        attended, up = self.residual(state, f"{stem}/norm2", f"{stem}/down")
        gelu = self.node(up, "Gelu", MICROSOFT)
        source, columns = self.product(gelu.input[0], f"{stem}/up")
        self.expect(source == attended, gelu)
        self.widths.add(columns)
        rows, context = self.residual(attended, f"{stem}/norm1", f"{stem}/output")
        attention = self.node(context, "MultiHeadAttention", MICROSOFT)
        numbers = self.numbers(attention)
        heads, scale = int(numbers["num_heads"]), numbers.pop("scale", None)
        usual = scale is None or np.float32(scale) == np.float32((self.hidden / heads) ** -0.5)
        self.expect(usual and len(attention.input) == 3 and set(numbers) <= {"num_heads", "mask_filter_value"}, attention)
        self.heads.add(heads)
        whole = self.first_row(rows) if last else rows
        if last:
            query, _ = self.product(attention.input[0], f"{stem}/q")
            self.expect(query == rows, attention)
        role, inputs = ("kv", attention.input[1:]) if last else ("qkv", attention.input)
        split = self.node(inputs[0], "Split")
        sizes = self.graph.constant(split.input[1]) if len(split.input) == 2 else np.zeros(0)
        self.expect(list(split.output) == list(inputs) and self.numbers(split) == {"axis": -1}, split)
        self.expect(bool((sizes == self.hidden).all()) and len(sizes) == len(inputs), split)
        source, _ = self.product(split.input[0], f"{stem}/{role}")
        self.expect(source == whole, split)
        return whole

    def embeddings(self, state: str) -> Encoder:
        """Words, positions and types, where it has types, added and normalized."""
        total = self.node(self.norm(state, "encoder/norm"), "Add")
        gathers = list[str]()
        for name in total.input:
            two = self.graph.producer(name, "Add")
            gathers += [name] if two is None else two.input
        rows, roles, positions = {"types": 0}, list[str](), ""
        for name in gathers:
            gather = self.node(name, "Gather")
            ids = spelled(self.graph, gather.input[1])
            typed = ids == "token_type_ids" or _NO_TYPES.fullmatch(ids)
            role = "words" if ids == "input_ids" else "types" if typed else "positions"
            positions = ids if role == "positions" else positions
            rows[role], columns = self.shape(gather.input[0])
            self.expect(columns == self.hidden and self.numbers(gather).get("axis", 0) == 0, gather)
            self.tables[name] = f"encoder/{role}"
            roles.append(role)
        self.expect(sorted(roles) in (["positions", "words"], ["positions", "types", "words"]), total)
        if (first := first_position(positions)) is None:
            raise _UnknownGraph("its positions are found otherwise than BERT's and RoBERTa's")
        self.check_sizes()
        return Encoder(
            layers=self.layers,
            heads=self.heads.pop(),
            intermediate=self.widths.pop(),
            epsilon=self.epsilons.pop(),
            positions=rows["positions"],
            types=rows["types"],
            position_offset=first[0],
            skipped_id=first[1],
            head_activation=self.active,
        )

    def check_embedding(self) -> None:
        for node in self.graph.nodes("Gather"):
            if node.input[1] == "input_ids" and (width := self.shape(node.input[0])[1]) != self.hidden:
                raise _UnknownGraph(f"its embedding is {width} wide and its layers {self.hidden}")

    def check_sizes(self) -> None:
        for name, found in (("heads", self.heads), ("intermediate sizes", self.widths), ("epsilons", self.epsilons)):
            if len(found) != 1:
                raise _UnknownGraph(f"its layers have {len(found)} different {name}")
        (heads,), (intermediate,) = self.heads, self.widths
        for name, size in (("hidden size", self.hidden), ("intermediate size", intermediate)):
            if size % GROUP:
                raise _UnknownGraph(f"its {name}, {size}, is no multiple of {GROUP}")
        if self.hidden % heads or self.hidden // heads % HEAD_WIDTH:
            raise _UnknownGraph(f"its heads are {self.hidden / heads:g} wide, no multiple of {HEAD_WIDTH}")

    def residual(self, state: str, norm: str, role: str) -> tuple[str, str]:
        """norm(residual + product). Returns the residual and the product's input."""
        total = self.node(self.norm(state, norm), "Add")
        products = [name for name in total.input if self.is_product(name)]
        self.expect(len(products) == 1, total)
        source, columns = self.product(products[0], role)
        self.expect(columns == self.hidden, total)
        return next(str(name) for name in total.input if name != products[0]), source

    def norm(self, state: str, role: str) -> str:
        """Returns what is normalized."""
        node = self.node(state, "LayerNormalization")
        numbers = self.numbers(node)
        defaults = numbers.pop("axis", -1) == -1 and numbers.pop("stash_type", 1) == 1
        self.expect(len(node.input) == 3 and defaults and set(numbers) == {"epsilon"}, node)
        for index, name in ((1, "gamma"), (2, "beta")):
            self.expect(self.shape(node.input[index]) == (self.hidden,), node)
            self.tensors[Slot(state, index)] = f"{role}/{name}"
        self.epsilons.add(numbers["epsilon"])
        return str(node.input[0])

    def product(self, total: str, role: str) -> tuple[str, int]:
        """source @ weight + bias, which nothing else reads. Returns the source and how many columns there are."""
        node = self.node(total, "Add")
        self.expect(self.is_product(total), node)
        name = next(name for name in node.input if self.graph.producer(name, "MatMul") is not None)
        source, weight = self.graph.producers[name].input
        _, columns = self.shape(weight)
        self.products[name] = role
        return source, columns

    def is_product(self, total: str) -> bool:
        """Whether `total` is the sum of a constant product, which nothing else reads, and a constant vector."""
        node = self.graph.producer(total, "Add")
        if node is None:
            return False
        for name, other in (tuple(node.input), tuple(reversed(node.input))):
            product = self.graph.producer(name, "MatMul")
            if product is not None and product.input[1] in self.graph.initializers and other in self.graph.initializers:
                shape = self.shape(product.input[1])
                return len(shape) == 2 and self.shape(other) == shape[1:] and len(self.graph.consumers[name]) == 1
        return False

    def first_row(self, rows: str) -> str:
        node = self.node(rows, "Slice")
        bounds = [spelled(self.graph, name) for name in node.input[1:]]
        self.expect(bounds == ["[0]", "[1]", "[1]"], node)  # start, end, axis
        return str(node.input[0])

    def dense(self, tensor: str, role: str) -> onnx.NodeProto:
        node = self.node(tensor, "Gemm")
        numbers = {"alpha": 1.0, "beta": 1.0, "transA": 0} | self.numbers(node)
        self.expect(numbers == {"alpha": 1.0, "beta": 1.0, "transA": 0, "transB": 1} and len(node.input) == 3, node)
        self.expect(len(self.shape(node.input[1])) == 2 and self.shape(node.input[2]) == self.shape(node.input[1])[:1], node)
        for index, name in ((1, "weight"), (2, "bias")):
            self.tensors[Slot(tensor, index)] = f"{role}/{name}"
        return node

    def node(self, tensor: str, op_type: str, domain: str = "") -> onnx.NodeProto:
        node = self.graph.producer(tensor)
        if node is None or node.op_type != op_type or node.domain != domain:
            found = "an input or a constant" if node is None else node.op_type
            raise _UnknownGraph(f"it has {found} where they have {op_type} ({tensor})")
        return node

    def shape(self, tensor: str) -> tuple[int, ...]:
        """Of an fp32 tensor of the graph."""
        found = self.graph.initializers.get(tensor)
        if found is None or found.data_type != TensorProto.FLOAT:
            raise _UnknownGraph(f"{tensor} is no fp32 tensor of the graph")
        return tuple(found.dims)

    def numbers(self, node: onnx.NodeProto) -> dict[str, float]:
        return {item.name: helper.get_attribute_value(item) for item in node.attribute}

    def expect(self, as_expected: bool, node: onnx.NodeProto) -> None:
        if not as_expected:
            raise _UnknownGraph(f"its {node.op_type} is used otherwise than they know ({node.output[0]})")
