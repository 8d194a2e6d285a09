"""The plain fp32 graph of a ModernBERT, put together from its weights: nothing is traced, whatever version made the model.

Plain: query, key and value are products of their own, every token is computed in every layer, and local attention is full
attention with a mask. What is quicker and the same is the passes' work.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from raskrank.backend import INPUT_IDS, LOGITS
from raskrank.checkpoint import Checkpoint
from raskrank.checkpoint.modules import NORM_EPSILON, Dense
from raskrank_export.passes.edit import MICROSOFT
from raskrank_export.tensors import MIN_EXTERNAL_BYTES, external

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module

OPSET, IR_VERSION = 18, 10
MASKED = float(np.finfo(np.float32).min)  # added to the score of a key that a query does not see
_SLOTS = "", ""  # MultiHeadAttention's bias and key_padding_mask, before attention_bias

Weights = Mapping[str, "Tensor"]


def write_graph(model: "Module", checkpoint: Checkpoint, folder: Path) -> Path:
    """Write the graph of `model`, which was loaded from `checkpoint`, into `folder`. Returns the path of the ONNX file.

    It computes what the model does of rows without padding: logits (B, 1) of input_ids (B, L).
    """
    folder.mkdir(parents=True, exist_ok=True)
    file, weights = folder / "model.onnx", folder / "model.onnx.data"
    with weights.open("wb") as stream:
        graph = _Graph(stream, weights.name)
        _Encoder(graph, model.state_dict(), checkpoint).logits()
        file.write_bytes(graph.model().SerializeToString(deterministic=True))
    return file


class _Graph:
    """Nodes in the order in which they run, and tensors; each node is named after its output."""

    def __init__(self, stream: BinaryIO, location: str) -> None:
        self._nodes, self._tensors = list[onnx.NodeProto](), dict[str, onnx.TensorProto]()
        self._stream, self._location = stream, location

    def add(self, name: str, op_type: str, inputs: Sequence[str], *, domain: str = "", **attributes: Any) -> str:
        """Add a node with one output. Returns that, `name`."""
        self._nodes.append(helper.make_node(op_type, inputs, [name], name, None, domain, None, **attributes))
        return name

    def halves(self, name: str, tensor: str, size: int) -> tuple[str, str]:
        """(..., 2 size) -> two of (..., size)."""
        first, second = f"{name}/0", f"{name}/1"
        sizes = self.constant(f"halves/{size}", [size, size], np.int64)
        self._nodes.append(helper.make_node("Split", [tensor, sizes], [first, second], name, axis=-1))
        return first, second

    def constant(self, name: str, value: npt.ArrayLike, dtype: type[np.generic] = np.float32) -> str:
        array = np.asarray(value, dtype)
        if name not in self._tensors:
            large = array.nbytes >= MIN_EXTERNAL_BYTES
            self._tensors[name] = (
                external(name, array, self._stream, self._location) if large else numpy_helper.from_array(array, name)
            )
        return name

    def model(self) -> onnx.ModelProto:
        """The graph whose last node gives the logits."""
        self._nodes[-1].output[0] = LOGITS
        graph = helper.make_graph(
            self._nodes,
            "main_graph",
            [helper.make_tensor_value_info(INPUT_IDS, TensorProto.INT64, ["batch_size", "sequence_length"])],
            [helper.make_tensor_value_info(LOGITS, TensorProto.FLOAT, ["batch_size", 1])],
            list(self._tensors.values()),
        )
        opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid(MICROSOFT, 1)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION, producer_name="raskrank")


class _Encoder:
    """From the ids to the logits: a step of the model a method, each of which returns the name of its output."""

    def __init__(self, graph: _Graph, weights: Weights, checkpoint: Checkpoint) -> None:
        self.graph, self.weights, self.checkpoint = graph, weights, checkpoint
        self.config: Mapping[str, Any] = checkpoint.config
        self.base = "model." if checkpoint.head is None else "encoder."
        self.tables = {local: self.turns(local=local) for local in (False, True)}
        self.mask = self.window()

    def logits(self) -> str:
        table = self.tensor(f"{self.base}embeddings.tok_embeddings.weight")
        state = self.graph.add("embeddings", "Gather", [table, INPUT_IDS], axis=0)  # (B, L, H)
        state = self.norm("embeddings/norm", f"{self.base}embeddings.norm", state)
        for index in range(self.checkpoint.layers):
            state = self.layer(index, state)
        state = self.norm("final_norm", f"{self.base}final_norm", state)
        return self.classifier(state) if self.checkpoint.head is None else self.modules(state)

    def layer(self, index: int, state: str) -> str:
        name, weights = f"layers/{index}", f"{self.base}layers.{index}"
        # The first layer's input is normalized already.
        normal = self.norm(f"{name}/attn_norm", f"{weights}.attn_norm", state) if index else state
        attended = self.attention(f"{name}/attn", f"{weights}.attn", normal, index)
        state = self.graph.add(f"{name}/attended", "Add", [state, attended])
        normal = self.norm(f"{name}/mlp_norm", f"{weights}.mlp_norm", state)
        both = self.linear(f"{name}/mlp/Wi", f"{weights}.mlp.Wi", normal)
        inner, gate = self.graph.halves(f"{name}/mlp/halves", both, self.config["intermediate_size"])
        active = self.activation(f"{name}/mlp/act", self.checkpoint.hidden_act, inner)
        gated = self.graph.add(f"{name}/mlp/gated", "Mul", [active, gate])
        return self.graph.add(f"{name}/state", "Add", [state, self.linear(f"{name}/mlp/Wo", f"{weights}.mlp.Wo", gated)])

    def attention(self, name: str, weights: str, state: str, index: int) -> str:
        local = index % self.config["global_attn_every_n_layers"] != 0
        parts = []
        for part, letter in enumerate("qkv"):
            rows = slice(part * self.checkpoint.hidden_size, (part + 1) * self.checkpoint.hidden_size)
            product = self.linear(f"{name}/{letter}", f"{weights}.Wqkv", state, rows)
            parts.append(product if letter == "v" else self.turned(f"{name}/{letter}/turned", product, local=local))
        inputs = [*parts, *_SLOTS, self.mask] if local else parts
        name = self.graph.add(f"{name}/heads", "MultiHeadAttention", inputs, domain=MICROSOFT, num_heads=self.checkpoint.heads)
        return self.linear(f"{name}/Wo", f"{weights}.Wo", name)

    def turned(self, name: str, tensor: str, *, local: bool) -> str:
        """Each head's pairs of values turned by the token's position."""
        first = self.graph.constant("positions/first", [0], np.int64)
        return self.graph.add(name, "RotaryEmbedding", [tensor, first, *self.tables[local]], domain=MICROSOFT)

    def turns(self, *, local: bool) -> tuple[str, str]:
        """Cosine and sine of each position's angles, float32 (positions, width of a head / 2), with PyTorch's roundings."""
        import torch

        theta = self.config["local_rope_theta" if local else "global_rope_theta"]
        width = self.checkpoint.hidden_size // self.checkpoint.heads
        frequencies = 1.0 / (theta ** (torch.arange(0, width, 2, dtype=torch.int64).to(torch.float) / width))
        # For as many positions as the checkpoint allows, so that one graph serves every max_length.
        angles = torch.outer(torch.arange(self.checkpoint.max_length, dtype=torch.float), frequencies)
        cos, sin = (
            self.graph.constant(f"positions/{name}/{theta:g}", table.numpy())
            for name, table in (("cos", angles.cos()), ("sin", angles.sin()))
        )
        return cos, sin

    def window(self) -> str:
        """What local attention adds to the scores, (1, 1, L, L): 0 for keys at most half a window away, else MASKED."""
        graph = self.graph
        numbers = {name: graph.constant(f"window/{name}", value, np.int64) for name, value in (("0", 0), ("1", 1))}
        length = graph.add("window/length", "Gather", [graph.add("window/shape", "Shape", [INPUT_IDS]), numbers["1"]], axis=0)
        columns = graph.add("window/columns", "Range", [numbers["0"], length, numbers["1"]])  # (L)
        axis = graph.constant("window/axis", [1], np.int64)
        rows = graph.add("window/rows", "Unsqueeze", [columns, axis])  # (L, 1)
        distance = graph.add("window/distance", "Abs", [graph.add("window/difference", "Sub", [rows, columns])])
        half = graph.constant("window/half", self.config["local_attention"] // 2, np.int64)
        near = graph.add("window/near", "LessOrEqual", [distance, half])  # (L, L)
        values = [graph.constant(f"window/{name}", value) for name, value in (("seen", 0.0), ("masked", MASKED))]
        mask = graph.add("window/mask", "Where", [near, *values])
        return graph.add("window", "Unsqueeze", [mask, graph.constant("window/axes", [0, 1], np.int64)])

    def classifier(self, state: str) -> str:
        """transformers' own head."""
        dense = self.dense("head/dense", "head.dense", self.pooled(state, self.config["classifier_pooling"]))
        active = self.activation("head/act", str(self.config["classifier_activation"]), dense)
        return self.logit(self.norm("head/norm", "head.norm", active))

    def modules(self, state: str) -> str:
        """The head of sentence-transformers' modules; PyTorch counts an activation behind each Dense."""
        assert self.checkpoint.head is not None
        value, place = self.pooled(state, self.checkpoint.head.pooling), 0
        for module in self.checkpoint.head.modules:
            name, weights = f"head/{module.folder}", f"head.{place}"
            if isinstance(module, Dense):
                value = self.activation(f"{name}/act", module.activation, self.dense(name, weights, value))
                place += 2
            else:
                value = self.norm(name, weights, value, NORM_EPSILON)
                place += 1
        return value

    def pooled(self, state: str, pooling: str) -> str:
        """(B, L, H) -> (B, H)."""
        if pooling == "cls":
            return self.graph.add("pooled", "Gather", [state, self.graph.constant("pooled/first", 0, np.int64)], axis=1)
        # As a product, whose sums do not depend on how many pairs there are; those of onnxruntime's ReduceMean do.
        graph = self.graph
        axis, end = graph.constant("pooled/axis", [1], np.int64), graph.constant("pooled/end", [2], np.int64)
        length = graph.add("pooled/length", "Slice", [graph.add("pooled/shape", "Shape", [INPUT_IDS]), axis, end])
        ones = graph.add("pooled/ones", "Expand", [graph.constant("pooled/one", [[1.0]]), length])  # (1, L)
        total = graph.add("pooled/total", "Squeeze", [graph.add("pooled/sum", "MatMul", [ones, state]), axis])
        return graph.add("pooled", "Div", [total, graph.add("pooled/count", "Cast", [length], to=TensorProto.FLOAT)])

    def norm(self, name: str, weights: str, tensor: str, epsilon: float | None = None) -> str:
        inputs = [tensor, self.tensor(f"{weights}.weight")]
        if f"{weights}.bias" in self.weights:
            inputs.append(self.tensor(f"{weights}.bias"))
        epsilon = self.config["norm_eps"] if epsilon is None else epsilon
        return self.graph.add(name, "LayerNormalization", inputs, axis=-1, epsilon=epsilon)

    def linear(self, name: str, weights: str, tensor: str, rows: slice = slice(None)) -> str:
        """Of every token: a product of its own, which int8 and the passes find, and the bias if there is one. rows: of the
        weight, all by default."""
        matrix = self.weights[f"{weights}.weight"][rows].detach().numpy().T  # (out, in) -> (in, out)
        product = self.graph.add(f"{name}/product", "MatMul", [tensor, self.graph.constant(f"{name}/weight", matrix)])
        if (bias := self.weights.get(f"{weights}.bias")) is None:
            return product
        return self.graph.add(f"{name}/sum", "Add", [product, self.graph.constant(f"{name}/bias", bias[rows].detach().numpy())])

    def dense(self, name: str, weights: str, tensor: str) -> str:
        """Of one row a pair, (B, in) -> (B, out)."""
        inputs = [tensor, self.tensor(f"{weights}.weight")]
        if f"{weights}.bias" in self.weights:
            inputs.append(self.tensor(f"{weights}.bias"))
        return self.graph.add(name, "Gemm", inputs, transB=1)

    def logit(self, tensor: str) -> str:
        """(B, H) -> (B, 1): of two labels, the difference is the logit."""
        if (relevant := self.checkpoint.relevant) is None:
            return self.dense("classifier", "classifier", tensor)
        inputs = [tensor]
        for part in ("weight", "bias"):
            both = self.weights[f"classifier.{part}"].detach().numpy()
            one = both[[relevant.place]] - both[[relevant.other]]
            inputs.append(self.graph.constant(f"classifier/{part}", one))
        return self.graph.add("classifier", "Gemm", inputs, transB=1)

    def activation(self, name: str, activation: str, tensor: str) -> str:
        return _ACTIVATIONS[activation](self.graph, name, tensor)

    def tensor(self, name: str) -> str:
        return self.graph.constant(name, self.weights[name].detach().numpy())


def _fused(op_type: str, **attributes: Any) -> "Callable[[_Graph, str, str], str]":
    return lambda graph, name, tensor: graph.add(name, op_type, [tensor], domain=MICROSOFT, **attributes)


def _plain(op_type: str) -> "Callable[[_Graph, str, str], str]":
    return lambda graph, name, tensor: graph.add(name, op_type, [tensor])


# fmt: off
_ACTIVATIONS: Mapping[str, Callable[[_Graph, str, str], str]] = {
    "identity": lambda _graph, _name, tensor: tensor,
    **dict.fromkeys(("gelu", "gelu_python"), _fused("Gelu")),
    **dict.fromkeys(("gelu_accurate", "gelu_fast", "gelu_new", "gelu_pytorch_tanh"), _fused("FastGelu")),
    "quick_gelu": _fused("QuickGelu", alpha=1.702),
    **dict.fromkeys(("silu", "swish"), _fused("QuickGelu", alpha=1.0)),
    "relu": _plain("Relu"),
    "sigmoid": _plain("Sigmoid"),
    "tanh": _plain("Tanh"),
}
# fmt: on
