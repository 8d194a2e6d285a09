"""The graph of mGTE's encoder, whose query and key are turned by their positions."""

from typing import Any

from raskrank.checkpoint import Checkpoint
from raskrank_export.written.rotary import Rotation
from raskrank_export.written.writer import GraphWriter


def write(writer: GraphWriter, checkpoint: Checkpoint) -> str:
    """Add all nodes from the ids to the logits, (B, 1), and return those."""
    config: Any = checkpoint.config
    heads, epsilon = checkpoint.heads, checkpoint.epsilon
    rotation = Rotation(writer, checkpoint, config["rope_theta"], config["rope_factor"])
    state = writer.words_and_types("new.embeddings", checkpoint.type_vocab_size, epsilon)
    for index in range(checkpoint.layers):
        layer, last = f"new.encoder.layer.{index}", index == checkpoint.layers - 1
        rows = writer.first_row(state) if last else state
        query, key, value = writer.packed_projections(f"{layer}.attention.qkv_proj", state, rows)
        turned = rotation.turned(query), rotation.turned(key)
        context = writer.attention(*turned, value, f"{layer}.attention", heads=heads)
        attended = writer.linear(context, f"{layer}.attention.o_proj")
        attended = writer.add_norm(attended, rows, f"{layer}.attn_ln", epsilon)
        up, down = f"{layer}.mlp.up_gate_proj", f"{layer}.mlp.down_proj"
        gated = writer.gated(attended, up, down, inner=config["intermediate_size"], gate_first=False)
        state = writer.add_norm(gated, attended, f"{layer}.mlp_ln", epsilon)
    return writer.logit(writer.pooled(state, "new.pooler.dense"), checkpoint.relevant)
