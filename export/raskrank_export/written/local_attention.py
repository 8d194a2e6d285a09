"""Local attention in blocks: a block of queries against the keys of its window, and not every query against every key.

A pair's tokens are cut into blocks as long as half a window, and each block's queries meet the keys from one block before it to
one after: O(L) and no longer O(L^2). Short pairs are one block. Exact: the keys that are left out would have no weight.
"""

from typing import Any

import numpy as np

from raskrank.backend import INPUT_IDS
from raskrank_export.written.writer import GraphWriter

NAME = "local_attention"  # in the recipe: of the layers that are in blocks
# A smaller block would have more keys for each query than its window is wide, and a small product for each.
LEAST_BLOCK = 16
# A pair of up to so many blocks' tokens is one block: measured to be quicker (`benchmarks.studies.local --whole-blocks 0`).
WHOLE_BLOCKS = 4
_ADDED = {"seen": 0.0, "unseen": np.finfo(np.float32).min}  # to the score of a key


class LocalAttention:
    """Attention of every layer whose tokens see those at most `half` tokens away: they share the blocks.

    With B pairs of L tokens: N blocks of S queries, each with W keys. Places beyond the text are those of its ends, masked.
    """

    def __init__(self, writer: GraphWriter, half: int, *, heads: int, hidden: int) -> None:
        self.writer, self.heads, self.hidden = writer, heads, hidden
        node, length, block = self._node, writer.length(), max(half, LEAST_BLOCK)
        zero, one, side = (writer.integers(value) for value in (0, 1, half))
        short = node("short", "LessOrEqual", length, writer.integers(WHOLE_BLOCKS * block))
        size = node("size", "Where", short, length, writer.integers(block))  # S
        reach = node("reach", "Where", short, zero, side)  # of keys to each side of a block
        width = node("width", "Add", size, node("sides", "Add", reach, reach))  # W
        last = node("last", "Sub", length, one)
        count = node("count", "Div", node("rounded", "Add", last, size), size)  # N
        within = self._counted("within", size)  # (S): places behind the first of a block
        around = node("around", "Sub", self._counted("across", width), reach)  # (W): the same of its keys
        starts = self._column("starts", node("first", "Mul", self._counted("blocks", count), size))  # (N, 1)
        keys = node("keys", "Add", starts, around)
        self.keys = node("keys/inside", "Min", node("keys/begun", "Max", keys, zero), last)  # (N, W)
        self.queries = node("queries/inside", "Min", node("queries", "Add", starts, within), last)  # (N, S)
        self.key_shape, self.query_shape = self._shape("keys/shape", width), self._shape("queries/shape", size)
        self.joined_shape = self._shape("joined/shape", node("rows", "Mul", count, size))
        distance = node("distance", "Abs", node("difference", "Sub", self._column("column", within), around))
        near = node("near", "LessOrEqual", distance, side)  # (S, W)
        inside = self._column("inside", node("unmoved", "Equal", keys, self.keys))  # (N, 1, W)
        self.mask = self._masks(node("seen", "And", near, inside))

    def attend(self, query: str, key: str, value: str, output: str) -> str:
        """What each query finds around it, (B, L, H), as the three are."""
        writer = self.writer
        query = self._blocks(query, self.queries, self.query_shape)
        key, value = (self._blocks(part, self.keys, self.key_shape) for part in (key, value))
        found = writer.attention(query, key, value, f"{output}/blocks", heads=self.heads, bias=self.mask)  # (B N, S, H)
        joined = writer.node("Reshape", [found, self.joined_shape], f"{output}/joined")  # (B, N S, H)
        writer.layers[NAME] += 1
        return writer.node("Slice", [joined, writer.integers(0), writer.length(), writer.integers(1)], output)

    def _blocks(self, source: str, places: str, shape: str) -> str:
        """(B, L, H) -> (B N, S or W, H)"""
        apart = self.writer.node("Gather", [source, places], f"{source}/apart", axis=1)  # (B, N, S or W, H)
        return self.writer.node("Reshape", [apart, shape], f"{source}/blocks")

    def _masks(self, seen: str) -> str:
        """What is added to the scores, (B N, 1, S, W). seen: of one pair, (N, S, W)."""
        values = (self.writer.constant(f"local/{name}/score", np.array(value, np.float32)) for name, value in _ADDED.items())
        mask = self._column("mask", self._node("added", "Where", seen, *values))  # (N, 1, S, W)
        pairs = self.writer.node("Shape", [INPUT_IDS], "local/pairs", start=0, end=1)
        each = self._node("each", "Concat", pairs, self.writer.integers(1, 1, 1), axis=0)
        return self._node("masks", "Tile", mask, each)

    def _shape(self, name: str, rows: str) -> str:
        """(as many as there are, rows, H)"""
        return self._node(name, "Concat", self.writer.integers(-1), rows, self.writer.integers(self.hidden), axis=0)

    def _counted(self, name: str, count: str) -> str:
        """0, 1, ... below count, which is (1)."""
        first, step = (self.writer.constant(f"int64/number/{value}", np.array(value, np.int64)) for value in (0, 1))
        return self._node(name, "Range", first, self._node(f"{name}/count", "Squeeze", count), step)

    def _column(self, name: str, source: str) -> str:
        """Another axis behind the first."""
        return self._node(name, "Unsqueeze", source, self.writer.integers(1))

    def _node(self, name: str, op_type: str, *inputs: str, **attributes: Any) -> str:
        return self.writer.node(op_type, inputs, f"local/{name}", **attributes)
