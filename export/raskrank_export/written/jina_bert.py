"""JinaBERT's graph, whose scores fall with the distance of tokens."""

from typing import Any

import numpy as np
from onnx import TensorProto

from raskrank.checkpoint import Checkpoint
from raskrank.reimplemented.jina_bert import slopes
from raskrank_export.written.writer import GraphWriter


def write(writer: GraphWriter, checkpoint: Checkpoint) -> str:
    """Add all nodes from the ids to the logits, (B, 1), and return those."""
    config: Any = checkpoint.config
    heads, epsilon = checkpoint.heads, checkpoint.epsilon
    state = writer.words_and_types("bert.embeddings", checkpoint.type_vocab_size, epsilon)
    bias, of_first = _falling(writer, heads)
    for index in range(checkpoint.layers):
        layer, last = f"bert.encoder.layer.{index}", index == checkpoint.layers - 1
        rows = writer.first_row(state) if last else state
        module = f"{layer}.attention.self"
        weights, biases = (
            [writer.array(f"{module}.{part}.{kind}") for part in ("query", "key", "value")] for kind in ("weight", "bias")
        )
        parts = writer.projections(module, weights, biases, state, rows)
        context = writer.attention(*parts, f"{layer}.attention", heads=heads, bias=of_first if last else bias)
        attended = writer.linear(context, f"{layer}.attention.output.dense")
        attended = writer.add_norm(attended, rows, f"{layer}.attention.output.LayerNorm", epsilon)
        up, down = f"{layer}.mlp.gated_layers", f"{layer}.mlp.wo"
        gated = writer.gated(attended, up, down, inner=config["intermediate_size"], gate_first=True)
        state = writer.add_norm(gated, attended, f"{layer}.mlp.layernorm", epsilon)
    return writer.logit(writer.pooled(state, "bert.pooler.dense"), checkpoint.relevant)


def _falling(writer: GraphWriter, heads: int) -> tuple[str, str]:
    """What is added to the scores: of all tokens, (1, N, L, L), and of the first with all, (1, N, 1, L)."""
    zero, one = (writer.constant(f"int64/number/{value}", np.array(value, np.int64)) for value in (0, 1))
    steps = writer.constant("slopes", -np.array(slopes(heads), np.float32).reshape(1, heads, 1, 1))
    length = writer.node("Squeeze", [writer.length()], "length/number")
    counted = writer.node("Range", [zero, length, one], "places/counted")
    places = writer.node("Cast", [counted], "places", to=TensorProto.FLOAT)  # (L)
    column = writer.node("Unsqueeze", [places, writer.integers(1)], "places/column")  # (L, 1)
    distances = writer.node("Abs", [writer.node("Sub", [column, places], "places/apart")], "distances")  # (L, L)
    return writer.node("Mul", [steps, distances], "bias"), writer.node("Mul", [steps, places], "bias/first")
