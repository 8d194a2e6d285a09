"""The graph of mGTE's encoder, whose query and key are turned by their positions."""

from typing import Any

import numpy as np

from raskrank.checkpoint import Checkpoint
from raskrank.reimplemented.gte import rotations
from raskrank_export.passes.edit import MICROSOFT
from raskrank_export.written.writer import GraphWriter


def write(writer: GraphWriter, checkpoint: Checkpoint) -> str:
    """Add all nodes from the ids to the logits, (B, 1), and return those."""
    config: Any = checkpoint.config
    hidden, heads, epsilon = checkpoint.hidden_size, checkpoint.heads, checkpoint.epsilon
    angles = rotations(checkpoint.max_length, hidden // heads, config["rope_theta"], config["rope_factor"])
    tables = [writer.constant(f"rotation/{name}", table.numpy()) for name, table in zip(("cos", "sin"), angles, strict=True)]

    def turned(source: str) -> str:
        """By the angle of each position, from that of the first on: a lone first row is not turned, as it should be."""
        inputs = [source, writer.integers(0), *tables]
        return writer.node("RotaryEmbedding", inputs, f"{source}/turned", domain=MICROSOFT, num_heads=heads, interleaved=0)

    state = writer.words_and_types("new.embeddings", checkpoint.type_vocab_size, epsilon)
    for index in range(checkpoint.layers):
        layer, last = f"new.encoder.layer.{index}", index == checkpoint.layers - 1
        rows = writer.first_row(state) if last else state
        packed = f"{layer}.attention.qkv_proj"
        weights, biases = (np.split(writer.array(f"{packed}.{part}"), 3) for part in ("weight", "bias"))
        query, key, value = writer.projections(packed, weights, biases, state, rows)
        context = writer.attention(turned(query), turned(key), value, f"{layer}.attention", heads=heads)
        attended = writer.linear(context, f"{layer}.attention.o_proj")
        attended = writer.add_norm(attended, rows, f"{layer}.attn_ln", epsilon)
        up, down = f"{layer}.mlp.up_gate_proj", f"{layer}.mlp.down_proj"
        gated = writer.gated(attended, up, down, inner=config["intermediate_size"], gate_first=False)
        state = writer.add_norm(gated, attended, f"{layer}.mlp_ln", epsilon)
    return writer.logit(writer.pooled(state, "new.pooler.dense"), checkpoint.relevant)
