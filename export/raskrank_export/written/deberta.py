"""DeBERTa-v2's graph: disentangled attention without tracing, right for every length.

The score of two tokens i and j has three parts: q_i . k_j, q_i . K_d and k_j . Q_d, where d = i - j, and K_d and Q_d are what
the layer's projections make of the distance's embedding: constants of the checkpoint, found when the graph is written. Of L
tokens there are 2L - 1 distances. So q @ K over all of them is (L, 2L - 1), in which row i has its L scores side by side from
column L - 1 - i on: read as rows that are one shorter, each begins where the one before did, and the L scores are a block.
"""

import math
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from raskrank.backend import INPUT_IDS
from raskrank.checkpoint import Checkpoint
from raskrank_export.written.writer import GraphWriter

PARTS = 3  # of a score; their sum is scaled as one of so many times the width


def write(writer: GraphWriter, checkpoint: Checkpoint) -> str:
    """Add all nodes from the ids to the logits, (B, 1), and return those."""
    config = checkpoint.config
    epsilon: Any = config["layer_norm_eps"]
    state = writer.norm(
        writer.embedding("deberta.embeddings.word_embeddings", INPUT_IDS), "deberta.embeddings.LayerNorm", epsilon
    )
    attention = _Attention(writer, checkpoint)
    for index in range(checkpoint.layers):
        layer = f"deberta.encoder.layer.{index}"
        rows = writer.first_row(state) if index == checkpoint.layers - 1 else state
        context = attention.context(f"{layer}.attention.self", state, rows)
        attended = writer.linear(context, f"{layer}.attention.output.dense")
        attended = writer.add_norm(attended, rows, f"{layer}.attention.output.LayerNorm", epsilon)
        inner = writer.active(writer.linear(attended, f"{layer}.intermediate.dense"), "gelu")
        state = writer.add_norm(writer.linear(inner, f"{layer}.output.dense"), attended, f"{layer}.output.LayerNorm", epsilon)
    pooled = writer.active(writer.dense(writer.first(state), "pooler.dense"), "gelu")
    return writer.logit(pooled, checkpoint.relevant)


def buckets(distances: npt.NDArray[np.int64], count: int, farthest: int) -> npt.NDArray[np.int64]:
    """The bucket of each distance, from -count to count: itself up to count / 2, then by its logarithm.

    In torch's float32, as transformers computes it: a logarithm rounded otherwise falls into the neighbour.
    """
    import torch

    middle = count // 2
    signed = torch.from_numpy(distances)
    near = (signed < middle) & (signed > -middle)
    magnitude = torch.where(near, torch.tensor(middle - 1), signed.abs())
    steps = torch.log(magnitude / middle) / torch.log(torch.tensor((farthest - 1) / middle)) * (middle - 1)
    far = (torch.ceil(steps) + middle) * torch.sign(signed)
    found: npt.NDArray[np.int64] = torch.where(magnitude <= middle, signed.to(far.dtype), far).to(torch.int64).numpy()
    return found


class _Distances(NamedTuple):
    """int64, of those of a run: falling (2L - 1) from L - 1, rising (2L - 1) from 1 - L, and of the first token (L)."""

    falling: str
    rising: str
    first_falling: str
    first_rising: str


class _Attention:
    """Attention of every layer: they share the distances and their embedding."""

    def __init__(self, writer: GraphWriter, checkpoint: Checkpoint) -> None:
        self.writer, self.heads, self.hidden = writer, checkpoint.heads, checkpoint.hidden_size
        self.width = self.hidden // self.heads
        self.scale = 1 / math.sqrt(self.width * PARTS)
        config: Any = checkpoint.config
        self.span: int = config["position_buckets"]
        self.embedding = self._normalized("deberta.encoder", config["layer_norm_eps"])  # (2S, H)
        self.distances = self._distances(checkpoint.max_length, config["max_relative_positions"])
        self.block = self._block()

    def context(self, module: str, state: str, rows: str) -> str:
        """What `rows`, all of (B, L, H) or the first alone (B, 1, H), find in `state`: (B, L or 1, H)."""
        writer = self.writer
        names = ("query_proj", "key_proj", "value_proj")
        weights = [writer.array(f"{module}.{name}.weight") for name in names]  # (H, H) each
        biases = [writer.array(f"{module}.{name}.bias") for name in names]
        # Distances first: their projections are not scaled, as the query's are, so that nothing else has to be.
        keys = self._of_distances(f"{module}/K", weights[1], biases[1], 1.0)
        queries = self._of_distances(f"{module}/Q", weights[0], biases[0], self.scale)
        weights[0], biases[0] = weights[0] * np.float32(self.scale), biases[0] * np.float32(self.scale)
        parts = writer.projections(module, weights, biases, state, rows)
        q, k, v = map(self._in_heads, parts)  # (B, N, L or 1, D), (B, N, L, D) twice
        scores = writer.node("MatMul", [q, self._turned(k)], f"{module}/content")  # (B, N, L or 1, L)
        bias = self._pairwise if rows == state else self._of_first
        scores = bias(module, scores, q, k, keys, queries)
        shares = writer.node("Softmax", [scores], f"{module}/shares", axis=-1)
        context = writer.node("MatMul", [shares, v], f"{module}/heads")  # (B, N, L or 1, D)
        context = writer.node("Transpose", [context], f"{module}/tokens", perm=[0, 2, 1, 3])
        return writer.node("Reshape", [context, writer.integers(0, 0, self.hidden)], f"{module}/context")

    def _pairwise(self, module: str, scores: str, q: str, k: str, keys: str, queries: str) -> str:
        """scores (B, N, L, L) with the parts of every pair's distance."""
        writer = self.writer
        chosen = writer.node("Gather", [keys, self.distances.falling], f"{module}/K/chosen", axis=1)  # (N, 2L - 1, D)
        of_queries = self._blocks(writer.node("MatMul", [q, self._turned(chosen, 3)], f"{module}/c2p"))  # (B, N, i, j)
        chosen = writer.node("Gather", [queries, self.distances.rising], f"{module}/Q/chosen", axis=1)
        of_keys = self._blocks(writer.node("MatMul", [k, self._turned(chosen, 3)], f"{module}/p2c"))  # (B, N, j, i)
        scores = writer.node("Add", [scores, of_queries], f"{module}/scores/c2p")
        return writer.node("Add", [scores, self._turned(of_keys)], f"{module}/scores")

    def _of_first(self, module: str, scores: str, q: str, k: str, keys: str, queries: str) -> str:
        """scores (B, N, 1, L) with the parts of the first token's distances."""
        writer = self.writer
        chosen = writer.node("Gather", [keys, self.distances.first_falling], f"{module}/K/chosen", axis=1)  # (N, L, D)
        of_query = writer.node("MatMul", [q, self._turned(chosen, 3)], f"{module}/c2p")  # (B, N, 1, L)
        chosen = writer.node("Gather", [queries, self.distances.first_rising], f"{module}/Q/chosen", axis=1)
        products = writer.node("Mul", [k, chosen], f"{module}/p2c/products")  # (B, N, L, D)
        of_keys = writer.node("ReduceSum", [products, writer.integers(-1)], f"{module}/p2c", keepdims=1)  # (B, N, L, 1)
        scores = writer.node("Add", [scores, of_query], f"{module}/scores/c2p")
        return writer.node("Add", [scores, self._turned(of_keys)], f"{module}/scores")

    def _in_heads(self, source: str) -> str:
        """(B, L, H) -> (B, N, L, D)"""
        shape = self.writer.integers(0, 0, self.heads, self.width)
        split = self.writer.node("Reshape", [source, shape], f"{source}/split")
        return self.writer.node("Transpose", [split], f"{source}/heads", perm=[0, 2, 1, 3])

    def _turned(self, source: str, rank: int = 4) -> str:
        """The last two axes exchanged."""
        return self.writer.node("Transpose", [source], f"{source}/turned", perm=[*range(rank - 2), rank - 1, rank - 2])

    def _blocks(self, source: str) -> str:
        """(B, N, L, 2L - 1) -> (B, N, L, L): of row i the L columns from L - 1 - i on."""
        writer, (start, end, shape) = self.writer, self.block
        flat = writer.node("Reshape", [source, writer.integers(0, 0, -1)], f"{source}/flat")
        kept = writer.node("Slice", [flat, start, end, writer.integers(2)], f"{source}/kept")
        rows = writer.node("Reshape", [kept, shape], f"{source}/rows")  # (B, N, L, 2L - 2)
        return writer.node("Slice", [rows, writer.integers(0), writer.length(), writer.integers(3)], f"{source}/block")

    def _block(self) -> tuple[str, str, str]:
        """Where `_blocks` cuts, int64 (1) each, and the shape of its rows, int64 (4)."""
        writer, length = self.writer, self.writer.length()
        start = writer.node("Sub", [length, writer.integers(1)], "block/start")
        width = writer.node("Add", [start, start], "block/width")  # 2L - 2
        values = writer.node("Mul", [length, width], "block/values")
        end = writer.node("Add", [start, values], "block/end")
        shape = writer.node("Concat", [writer.integers(0, 0), length, width], "block/shape", axis=0)
        return start, end, shape

    def _distances(self, longest: int, farthest: int) -> _Distances:
        """Rows of the embedding, for every length: a window of those of the longest."""
        writer, length = self.writer, self.writer.length()
        rising = np.arange(1 - longest, longest)  # d
        of_keys = np.clip(buckets(rising[::-1].copy(), self.span, farthest) + self.span, 0, 2 * self.span - 1)
        of_queries = np.clip(self.span - buckets(-rising, self.span, farthest), 0, 2 * self.span - 1)
        most = writer.integers(longest)
        start = writer.node("Sub", [most, length], "distances/start")
        end = writer.node("Sub", [writer.node("Add", [most, length], "distances/past"), writer.integers(1)], "distances/end")

        def window(name: str, values: npt.NDArray[np.int64]) -> str:
            table = writer.constant(f"distances/{name}/all", values)
            return writer.node("Slice", [table, start, end, writer.integers(0)], f"distances/{name}")

        def first(name: str, values: npt.NDArray[np.int64]) -> str:  # of distances 0, -1, -2, ...
            table = writer.constant(f"distances/{name}/all", values)
            return writer.node("Slice", [table, writer.integers(0), length, writer.integers(0)], f"distances/{name}")

        return _Distances(
            falling=window("falling", of_keys),
            rising=window("rising", of_queries),
            first_falling=first("first/falling", of_keys[longest - 1 :]),
            first_rising=first("first/rising", of_queries[longest - 1 :: -1]),
        )

    def _of_distances(self, name: str, weight: npt.NDArray[np.float32], bias: npt.NDArray[np.float32], scale: float) -> str:
        """A projection of the embedding in heads: (N, 2S, D)."""
        projected = (self.embedding @ weight.T + bias) * np.float32(scale)
        heads = projected.reshape(len(projected), self.heads, self.width).transpose(1, 0, 2)
        return self.writer.constant(name, heads)

    def _normalized(self, module: str, epsilon: float) -> npt.NDArray[np.float32]:
        table = self.writer.array(f"{module}.rel_embeddings.weight")[: 2 * self.span].astype(np.float64)
        centred = table - table.mean(axis=-1, keepdims=True)
        unit = centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + epsilon)
        weight, bias = self.writer.array(f"{module}.LayerNorm.weight"), self.writer.array(f"{module}.LayerNorm.bias")
        normalized: npt.NDArray[np.float32] = (unit * weight + bias).astype(np.float32)
        return normalized
