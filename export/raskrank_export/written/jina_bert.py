"""JinaBERT's graph, whose scores fall with the distance of tokens.

What is added to the scores has as many values as they have: of 8,192 tokens 3 GB in 12 heads. So a long text's queries attend
in blocks of rows, each with its own part of it.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper

from raskrank.checkpoint import Checkpoint
from raskrank.reimplemented.jina_bert import slopes
from raskrank_export.passes.edit import MICROSOFT
from raskrank_export.written.writer import GraphWriter

MOST_ROWS = 512  # of a block: 0.2 GB each of scores and of what is added to them, for 8,192 tokens and 12 heads


def write(writer: GraphWriter, checkpoint: Checkpoint) -> str:
    """Add all nodes from the ids to the logits, (B, 1), and return those."""
    config: Any = checkpoint.config
    heads, epsilon = checkpoint.heads, checkpoint.epsilon
    state = writer.words_and_types("bert.embeddings", checkpoint.type_vocab_size, epsilon)
    attention = _Attention(writer, heads, checkpoint.hidden_size)
    for index in range(checkpoint.layers):
        layer, last = f"bert.encoder.layer.{index}", index == checkpoint.layers - 1
        rows = writer.first_row(state) if last else state
        module = f"{layer}.attention.self"
        weights, biases = (
            [writer.array(f"{module}.{part}.{kind}") for part in ("query", "key", "value")] for kind in ("weight", "bias")
        )
        parts = writer.projections(module, weights, biases, state, rows)
        context = (attention.of_first if last else attention.of_all)(*parts, f"{layer}.attention")
        attended = writer.linear(context, f"{layer}.attention.output.dense")
        attended = writer.add_norm(attended, rows, f"{layer}.attention.output.LayerNorm", epsilon)
        up, down = f"{layer}.mlp.gated_layers", f"{layer}.mlp.wo"
        gated = writer.gated(attended, up, down, inner=config["intermediate_size"], gate_first=True)
        state = writer.add_norm(gated, attended, f"{layer}.mlp.layernorm", epsilon)
    return writer.logit(writer.pooled(state, "bert.pooler.dense"), checkpoint.relevant)


class _Attention:
    """Attention of every layer: they share the blocks and the slopes."""

    def __init__(self, writer: GraphWriter, heads: int, hidden: int) -> None:
        self.writer, self.heads = writer, heads
        self.slopes = -np.array(slopes(heads), np.float32).reshape(1, heads, 1, 1)
        zero, one = self._number(0), self._number(1)
        length = writer.node("Squeeze", [writer.length()], "blocks/length")
        self.count = self._divided_up(length, self._number(MOST_ROWS), "blocks/count")
        self.size = self._divided_up(length, self.count, "blocks/size")  # rows of a block
        padded = writer.node("Mul", [self.count, self.size], "blocks/rows")
        self.rows = writer.node("Reshape", [padded, writer.integers(1)], "blocks/rows/list")
        more = writer.node("Sub", [self.rows, writer.length()], "blocks/more")  # than there are tokens: fewer than blocks
        self.pads = writer.node("Concat", [writer.integers(0, 0, 0, 0), more, writer.integers(0)], "blocks/pads", axis=0)
        self.shape = writer.node("Concat", [writer.integers(0), self.rows, writer.integers(hidden)], "blocks/shape", axis=0)
        places = writer.node("Range", [zero, length, one], "places/counted")
        self.places = writer.node("Cast", [places], "places", to=TensorProto.FLOAT)  # (L)
        self.truth = writer.constant("blocks/true", np.array(True))

    def of_first(self, query: str, key: str, value: str, output: str) -> str:
        """query: (B, 1, H), of the first token."""
        steps = self.writer.constant("slopes", self.slopes)
        bias = self.writer.node("Mul", [steps, self.places], f"{output}/bias")  # (1, N, 1, L)
        return self.writer.attention(query, key, value, output, heads=self.heads, bias=bias)

    def of_all(self, query: str, key: str, value: str, output: str) -> str:
        """query: (B, L, H)."""
        writer = self.writer
        padded = writer.node("Pad", [query, self.pads], f"{output}/padded")  # (B, T * R, H): T blocks of R rows
        inputs = [self.count, self.truth, padded, key, value, self.places, self.size]
        # What a turn only reads is carried through it, too, so that a pass sees all that the loop reads.
        carried = [f"{output}/{name}" for name in ("padded/same", "key/same", "value/same", "places/same", "size/same")]
        blocks = f"{output}/blocks"  # (T, B, R, H)
        writer.loop(inputs, [*carried, blocks], _turn(self.heads, self.slopes))
        joined = writer.node("Transpose", [blocks], f"{output}/joined", perm=[1, 0, 2, 3])
        whole = writer.node("Reshape", [joined, self.shape], f"{output}/whole")  # (B, T * R, H)
        return writer.node("Slice", [whole, writer.integers(0), writer.length(), writer.integers(1)], output)

    def _divided_up(self, number: str, by: str, output: str) -> str:
        """Rounded up."""
        writer = self.writer
        more = writer.node("Add", [number, writer.node("Sub", [by, self._number(1)], f"{output}/less")], f"{output}/sum")
        return writer.node("Div", [more, by], output)

    def _number(self, value: int) -> str:
        return self.writer.constant(f"int64/number/{value}", np.array(value, np.int64))


def _turn(heads: int, steps: npt.NDArray[np.float32]) -> onnx.GraphProto:
    """The loop's body: rows i * R to (i + 1) * R of the query attend to all."""
    made: list[onnx.NodeProto] = []

    def node(op_type: str, inputs: list[str], output: str, domain: str = "", **attributes: Any) -> str:
        made.append(helper.make_node(op_type, inputs, [output], f"turn/{output}", None, domain, None, **attributes))
        return output

    start = node("Mul", ["turn", "size"], "start")
    end = node("Add", [start, "size"], "end")
    bounds = [node("Reshape", [name, "one"], f"{name}/list") for name in (start, end)]
    query = node("Slice", ["query", *bounds, "one"], "block")  # (B, R, H)
    counted = node("Cast", [node("Range", [start, end, "single"], "counted")], "own", to=TensorProto.FLOAT)
    column = node("Unsqueeze", [counted, "one"], "column")  # (R, 1)
    apart = node("Abs", [node("Sub", [column, "places"], "difference")], "apart")  # (R, L)
    bias = node("Mul", ["slopes", apart], "bias")  # (1, N, R, L)
    inputs = [query, "key", "value", "", "", bias]
    node("MultiHeadAttention", inputs, "context", MICROSOFT, num_heads=heads)
    carried = ("query", "key", "value", "places", "size")
    for name in ("going", *carried):
        node("Identity", [name], f"{name}/same")
    constants = [
        onnx.numpy_helper.from_array(np.array([1], np.int64), "one"),
        onnx.numpy_helper.from_array(np.array(1, np.int64), "single"),
        onnx.numpy_helper.from_array(steps, "slopes"),
    ]
    kinds = {"turn": TensorProto.INT64, "size": TensorProto.INT64, "going": TensorProto.BOOL}
    shapes: dict[str, list[str]] = {"places": ["length"], "turn": [], "going": [], "size": []}

    def described(name: str, like: str) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, kinds.get(like, TensorProto.FLOAT), shapes.get(like))

    return helper.make_graph(
        made,
        "turn",
        [described(name, name) for name in ("turn", "going", *carried)],
        [*(described(f"{name}/same", name) for name in ("going", *carried)), described("context", "context")],
        constants,
    )
