"""ModernBERT's graph: rotary positions, gated inner layers, and attention that is local in most layers.

Its head is transformers' own, or lies in modules of sentence-transformers.
"""

from functools import cached_property
from typing import Any

import numpy as np
from onnx import TensorProto

from raskrank.backend import INPUT_IDS
from raskrank.checkpoint import Checkpoint
from raskrank.checkpoint.modules import NORM_EPSILON, Dense, Head
from raskrank_export.written.local_attention import LocalAttention
from raskrank_export.written.rotary import Rotation
from raskrank_export.written.writer import GraphWriter


def write(writer: GraphWriter, checkpoint: Checkpoint) -> str:
    """Add all nodes from the ids to the logits, (B, 1), and return those."""
    config: Any = checkpoint.config
    head, epsilon = checkpoint.head, checkpoint.epsilon
    base = "model" if head is None else "encoder"
    pooling: str = config["classifier_pooling"] if head is None else head.pooling
    attention = _Attention(writer, checkpoint)
    state = writer.embedding(f"{base}.embeddings.tok_embeddings", INPUT_IDS)
    state = writer.norm(state, f"{base}.embeddings.norm", epsilon)
    for index in range(checkpoint.layers):
        layer, alone = f"{base}.layers.{index}", pooling == "cls" and index == checkpoint.layers - 1
        if alone and attention.is_local(index):
            state = attention.seen_by_first(state)
        normal = writer.norm(state, f"{layer}.attn_norm", epsilon) if index else state  # the embeddings are normalized already
        rows = writer.first_row(normal) if alone else normal
        if alone:
            state = writer.first_row(state) if index else rows
        attended = writer.linear(attention.context(index, f"{layer}.attn", normal, rows), f"{layer}.attn.Wo")
        state = writer.node("Add", [state, attended], f"{layer}/attended")
        normal, inner = writer.norm(state, f"{layer}.mlp_norm", epsilon), config["intermediate_size"]
        up, down = f"{layer}.mlp.Wi", f"{layer}.mlp.Wo"
        gated = writer.gated(normal, up, down, inner=inner, gate_first=True, activation=checkpoint.hidden_act)
        state = writer.node("Add", [state, gated], layer)
    state = writer.norm(state, f"{base}.final_norm", epsilon)
    pooled = writer.first(state) if pooling == "cls" else _mean(writer, state)
    if head is not None:
        return _modules(writer, head, pooled)
    active = writer.active(writer.dense(pooled, "head.dense"), config["classifier_activation"])
    return writer.logit(writer.norm(active, "head.norm", epsilon), checkpoint.relevant)


class _Attention:
    """Attention of every layer: they share the angles of their kind, and the blocks."""

    def __init__(self, writer: GraphWriter, checkpoint: Checkpoint) -> None:
        config: Any = checkpoint.config
        self.writer, self.heads, self.hidden = writer, checkpoint.heads, checkpoint.hidden_size
        self.half: int = config["local_attention"] // 2  # how far a token sees in a local layer
        self.every: int = config["global_attn_every_n_layers"]
        thetas = {False: config["global_rope_theta"], True: config["local_rope_theta"]}
        self.rotations = {local: Rotation(writer, checkpoint, theta) for local, theta in thetas.items()}

    @cached_property
    def blocks(self) -> LocalAttention:
        """Written where the first layer asks for them."""
        return LocalAttention(self.writer, self.half, heads=self.heads, hidden=self.hidden)

    def is_local(self, index: int) -> bool:
        return index % self.every != 0

    def seen_by_first(self, state: str) -> str:
        """The rows that the first token sees in a local layer, (B, at most L, H)."""
        bounds = (self.writer.integers(value) for value in (0, self.half + 1, 1))
        return self.writer.node("Slice", [state, *bounds], f"{state}/seen")

    def context(self, index: int, layer: str, state: str, rows: str) -> str:
        """What `rows`, all of (B, L, H) or the first alone (B, 1, H), find in `state`: (B, L or 1, H)."""
        writer, local = self.writer, self.is_local(index)
        query, key, value = writer.packed_projections(f"{layer}.Wqkv", state, rows)
        query, key = (self.rotations[local].turned(part) for part in (query, key))
        if local and rows == state:
            return self.blocks.attend(query, key, value, layer)
        # Everything is seen: in a global layer, and of what `seen_by_first` left of a local one.
        return writer.attention(query, key, value, layer, heads=self.heads)


def _mean(writer: GraphWriter, state: str) -> str:
    """(B, L, H) -> (B, H)"""
    # A product, whose sums do not depend on how many pairs there are; those of onnxruntime's ReduceMean do.
    ones = writer.node("Expand", [writer.constant("mean/one", np.ones((1, 1), np.float32)), writer.length()], "mean/ones")
    total = writer.node("Squeeze", [writer.node("MatMul", [ones, state], "mean/sum"), writer.integers(1)], "mean/total")
    return writer.node("Div", [total, writer.node("Cast", [writer.length()], "mean/count", to=TensorProto.FLOAT)], "mean")


def _modules(writer: GraphWriter, head: Head, value: str) -> str:
    """(B, H) -> (B, 1)."""
    place = 0  # PyTorch counts an activation behind each Dense
    for module in head.modules:
        name = f"head.{place}"
        if isinstance(module, Dense):
            value, place = writer.active(writer.dense(value, name), module.activation), place + 2
        else:
            value, place = writer.norm(value, name, NORM_EPSILON), place + 1
    return value
