"""Writes a graph node by node from a checkpoint's tensors: nothing is traced, so nothing depends on a traced length.

A tensor of the graph is (B, L, H): pairs, their tokens, width; with heads (B, N, L, D), N * D = H.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper

from raskrank.backend import INPUT_IDS, LOGITS, TOKEN_TYPE_IDS
from raskrank.checkpoint.labels import Relevant
from raskrank_export.passes.drop_mask import drop_mask
from raskrank_export.passes.edit import MICROSOFT
from raskrank_export.passes.hoist_first_token import hoist_first_token
from raskrank_export.passes.merge_projections import merge_projections
from raskrank_export.tensors import Spill

OPSET, IR_VERSION = 18, 10  # no operator here is newer; onnxruntime 1.23 reads both
# Operator, its domain and its attributes, by transformers' names of an activation.
_ACTIVATIONS: Mapping[str, tuple[str, str, Mapping[str, float]]] = {
    **dict.fromkeys(("gelu", "gelu_python"), ("Gelu", MICROSOFT, {})),
    **dict.fromkeys(("gelu_accurate", "gelu_fast", "gelu_new", "gelu_pytorch_tanh"), ("FastGelu", MICROSOFT, {})),
    "quick_gelu": ("QuickGelu", MICROSOFT, {"alpha": 1.702}),
    **dict.fromkeys(("silu", "swish"), ("QuickGelu", MICROSOFT, {"alpha": 1.0})),
    "relu": ("Relu", "", {}),
    "sigmoid": ("Sigmoid", "", {}),
    "tanh": ("Tanh", "", {}),
}
Array = npt.NDArray[np.generic]


class GraphWriter:
    """A graph in the making. Methods add nodes and return the name of what they compute.

    weights: the checkpoint's tensors by name, float32. spill: takes those that are large. layers: of how many what a pass does
    holds from the start, by its name.
    """

    def __init__(self, weights: Mapping[str, Any], spill: Spill) -> None:
        self.weights, self._spill = weights, spill
        self.layers = Counter[str]()
        self._nodes: list[onnx.NodeProto] = []
        self._tensors: dict[str, onnx.TensorProto] = {}
        self._length: str | None = None

    def array(self, name: str) -> npt.NDArray[np.float32]:
        """A tensor of the checkpoint."""
        found: npt.NDArray[np.float32] = self.weights[name].numpy()
        return found

    def bias(self, module: str) -> npt.NDArray[np.float32] | None:
        return self.array(f"{module}.bias") if f"{module}.bias" in self.weights else None

    def constant(self, name: str, value: Array) -> str:
        """A constant, which is stored once however often it is asked for."""
        if name not in self._tensors:
            self._tensors[name] = self._spill.tensor(name, value)
        return name

    def integers(self, *values: int) -> str:
        """int64 (n), such as a shape, axes or bounds."""
        return self.constant(f"int64/{','.join(map(str, values))}", np.array(values, np.int64))

    def node(self, op_type: str, inputs: Sequence[str], output: str, *, domain: str = "", **attributes: Any) -> str:
        self._nodes.append(helper.make_node(op_type, inputs, [output], output, None, domain, None, **attributes))
        return output

    def loop(self, inputs: Sequence[str], outputs: Sequence[str], body: onnx.GraphProto) -> None:
        self._nodes.append(helper.make_node("Loop", inputs, outputs, outputs[-1], body=body))

    def linear(self, source: str, module: str) -> str:
        """source @ weight + bias, of a module of the checkpoint; the bias may be missing. (B, L, K) -> (B, L, M)"""
        return self.product(source, module, self.array(f"{module}.weight"), self.bias(module))

    def product(self, source: str, name: str, weight: Array, bias: Array | None) -> str:
        """source @ weight.T + bias. weight: (M, K), as PyTorch keeps it."""
        matrix = self.constant(f"{name}.weight", weight.T)
        if bias is None:
            return self.node("MatMul", [source, matrix], name)
        product = self.node("MatMul", [source, matrix], f"{name}/product")
        return self.node("Add", [product, self.constant(f"{name}.bias", bias)], name)

    def split(self, source: str, sizes: Sequence[int], names: Sequence[str]) -> list[str]:
        """The last axis in parts."""
        self._nodes.append(helper.make_node("Split", [source, self.integers(*sizes)], names, f"{source}/split", axis=-1))
        return [*names]

    def norm(self, source: str, module: str, epsilon: float) -> str:
        """The bias may be missing."""
        names = [name for name in (f"{module}.weight", f"{module}.bias") if name in self.weights]
        inputs = [source, *(self.constant(name, self.array(name)) for name in names)]
        return self.node("LayerNormalization", inputs, module, axis=-1, epsilon=epsilon)

    def add_norm(self, source: str, residual: str, module: str, epsilon: float) -> str:
        return self.norm(self.node("Add", [source, residual], f"{module}/sum"), module, epsilon)

    def active(self, source: str, activation: str) -> str:
        """activation: transformers' name of one, or "identity"."""
        if activation == "identity":
            return source
        op_type, domain, attributes = _ACTIVATIONS[activation]
        return self.node(op_type, [source], f"{source}/{activation}", domain=domain, **attributes)

    def embedding(self, module: str, ids: str) -> str:
        """Rows of the module's table, (B, L) -> (B, L, H)."""
        table = self.constant(f"{module}.weight", self.array(f"{module}.weight"))
        return self.node("Gather", [table, ids], module, axis=0)

    def words_and_types(self, base: str, types: int, epsilon: float) -> str:
        """BERT's embeddings without positions, normalized. types: how many there are; of a lone one no id is read."""
        words = self.embedding(f"{base}.word_embeddings", INPUT_IDS)
        if types > 1:
            added = self.embedding(f"{base}.token_type_embeddings", TOKEN_TYPE_IDS)
        else:
            added = self.constant(f"{base}.token_type", self.array(f"{base}.token_type_embeddings.weight")[0])
        return self.add_norm(words, added, f"{base}.LayerNorm", epsilon)

    def projections(
        self, module: str, weights: Sequence[Array], biases: Sequence[Array] | None, state: str, rows: str
    ) -> tuple[str, str, str]:
        """Query of `rows`, key and value of `state`, (B, L or 1, H): of one product where those are the same.

        weights, biases: of the three, (H, H) and (H). Called once a layer.
        """
        names, alone = [f"{module}/{part}" for part in "qkv"], rows != state

        def product(source: str, name: str, parts: slice) -> str:
            bias = None if biases is None else np.concatenate(biases[parts])
            return self.product(source, name, np.concatenate(weights[parts]), bias)

        own = [product(rows, names[0], slice(1))] if alone else []
        rest = names[len(own) :]
        merged = product(state, f"{module}/{'kv' if alone else 'qkv'}", slice(len(own), 3))
        query, key, value = own + self.split(merged, [len(weights[0])] * len(rest), rest)
        self.layers.update({drop_mask.__name__: 1, merge_projections.__name__: 1, hoist_first_token.__name__: int(alone)})
        return query, key, value

    def packed_projections(self, module: str, state: str, rows: str) -> tuple[str, str, str]:
        """The same of a module that has the three in one, (3H, H); the bias may be missing."""
        weights, bias = np.split(self.array(f"{module}.weight"), 3), self.bias(module)
        return self.projections(module, weights, None if bias is None else np.split(bias, 3), state, rows)

    def attention(self, query: str, key: str, value: str, output: str, *, heads: int, bias: str = "") -> str:
        """softmax(query @ key / sqrt(D) + bias) @ value, (B, L or 1, H). bias: (B or 1, N or 1, L or 1, L), or
        nothing."""
        inputs = [query, key, value, "", "", bias] if bias else [query, key, value]
        return self.node("MultiHeadAttention", inputs, output, domain=MICROSOFT, num_heads=heads)

    def gated(self, source: str, up: str, down: str, *, inner: int, gate_first: bool, activation: str = "gelu") -> str:
        """down(activation(gate) * rest), gate and rest being the halves of `up`. (B, L, H) -> (B, L, H)"""
        halves = self.split(self.linear(source, up), [inner, inner], [f"{up}/first", f"{up}/second"])
        gate, rest = halves if gate_first else halves[::-1]
        return self.linear(self.node("Mul", [self.active(gate, activation), rest], f"{up}/gated"), down)

    def pooled(self, state: str, pooler: str) -> str:
        """BERT's pooler: dense and tanh of the first token. (B, L, H) -> (B, H)"""
        return self.active(self.dense(self.first(state), pooler), "tanh")

    def first_row(self, source: str) -> str:
        """(B, L, H) -> (B, 1, H): what a head reads that reads the first token alone."""
        return self.node("Slice", [source, self.integers(0), self.integers(1), self.integers(1)], f"{source}/first")

    def first(self, source: str) -> str:
        """(B, L, H) -> (B, H)"""
        return self.node("Gather", [source, self.constant("int64/zero", np.array(0, np.int64))], f"{source}/head", axis=1)

    def dense(self, source: str, module: str) -> str:
        """(B, K) -> (B, M), left in fp32 as every head is; the bias may be missing."""
        return self._gemm(source, module, self.array(f"{module}.weight"), self.bias(module))

    def logit(self, source: str, relevant: Relevant | None) -> str:
        """(B, H) -> (B, 1), by the checkpoint's "classifier". relevant: of two labels, whose difference is the logit."""
        weight, bias = self.array("classifier.weight"), self.array("classifier.bias")  # (labels, H), (labels)
        if relevant is not None:
            weight = weight[[relevant.place]] - weight[[relevant.other]]
            bias = bias[[relevant.place]] - bias[[relevant.other]]
        return self._gemm(source, "classifier", weight, bias)

    def _gemm(self, source: str, module: str, weight: Array, bias: Array | None) -> str:
        added = [] if bias is None else [self.constant(f"{module}.bias", bias)]
        return self.node("Gemm", [source, self.constant(f"{module}.weight", weight), *added], module, transB=1)

    def length(self) -> str:
        """int64 (1): L."""
        if self._length is None:
            self._length = self.node("Shape", [INPUT_IDS], "length", start=1, end=2)
        return self._length

    def finish(self, logits: str) -> onnx.ModelProto:
        """The model. Its inputs are those of the ids that a node reads. logits: (B, 1), of the last node."""
        self._nodes[-1].output[self._nodes[-1].output[:].index(logits)] = LOGITS
        read = {name for node in self._nodes for name in node.input}
        shape = ["batch", "length"]
        inputs = [
            helper.make_tensor_value_info(name, TensorProto.INT64, shape)
            for name in (INPUT_IDS, TOKEN_TYPE_IDS)
            if name in read
        ]
        outputs = [helper.make_tensor_value_info(LOGITS, TensorProto.FLOAT, ["batch", 1])]
        graph = helper.make_graph(self._nodes, "raskrank", inputs, outputs, [*self._tensors.values()])
        opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid(MICROSOFT, 1)]
        model: onnx.ModelProto = helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION)
        return model
