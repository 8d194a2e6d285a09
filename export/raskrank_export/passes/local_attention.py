"""Local attention in blocks: a block of queries against the keys of its window, and not every query against every key."""

import re
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import onnx

from raskrank_export.passes.edit import GraphEditor
from raskrank_export.spelling import spelled

MASK_SLOT = 5  # MultiHeadAttention: query, key, value, bias, key_padding_mask, attention_bias
# A smaller block would have more keys for each query than its window is wide, and a small product for each.
LEAST_BLOCK = 16
# A pair of up to so many blocks' tokens is one block: measured to be quicker (`benchmarks.studies.local --whole-blocks 0`).
WHOLE_BLOCKS = 4
_LENGTH = r"Gather\(Shape\(input_ids\), 1, axis=0\)"
_COLUMNS = rf"Range\(0, {_LENGTH}, 1\)"
_WINDOW = re.compile(
    rf"Unsqueeze\(Where\(LessOrEqual\(Abs\(Sub\(Unsqueeze\({_COLUMNS}, \[1\]\), {_COLUMNS}\)\), (\d+)\), "
    r"0\.0, (-3\.4028234663852886e\+38)\), \[0,1\]\)"
)


def local_attention(model: onnx.ModelProto, *, whole_blocks: int = WHOLE_BLOCKS) -> int:
    """Rewrite every MultiHeadAttention whose mask hides the keys more than a distance away. Returns the layers changed.

    A pair's tokens are cut into blocks as long as that distance, and each block's queries meet the keys from one block before
    it to one after: O(L) and no longer O(L^2). Short pairs are one block. Exact: the keys that are left out had no weight.

    whole_blocks: as WHOLE_BLOCKS says.
    """
    graph = GraphEditor(model)
    blocks = dict[int, _Blocks]()
    changed = 0
    for attention in graph.nodes("MultiHeadAttention"):
        if (half := window(graph, attention)) is None:
            continue
        if half not in blocks:
            blocks[half] = _Blocks(graph, half, attention.input[0], whole_blocks)
        blocks[half].rewrite(attention)
        changed += 1
    graph.finish()
    return changed


def window(graph: GraphEditor, attention: onnx.NodeProto) -> int | None:
    """How far from its query an attention's keys are at most; None where it is not local, or masked otherwise."""
    if len(attention.input) != MASK_SLOT + 1 or any(attention.input[slot] for slot in (3, 4)):
        return None
    match = _WINDOW.fullmatch(spelled(graph, attention.input[MASK_SLOT]))
    return None if match is None else int(match[1])


class _Blocks:
    """The tensors that all attentions of one window share: which tokens a block has, and what its queries do not see.

    With B pairs of L tokens: N blocks of S queries, each with W keys. Indices beyond the text are those of its ends, masked.
    """

    def __init__(self, graph: GraphEditor, half: int, state: str, whole_blocks: int) -> None:
        """state: any tensor (B, L, H) of the graph."""
        self.graph, self.name = graph, f"local/{half}"
        self.length = self.op("Gather", "length", [self.op("Shape", "ids", ["input_ids"]), self.numbers(1)], axis=0)
        block = max(half, LEAST_BLOCK)
        short = self.op("LessOrEqual", "short", [self.length, self.numbers(whole_blocks * block)])
        size = self.op("Where", "size", [short, self.length, self.numbers(block)])  # S
        reach = self.op("Where", "reach", [short, self.numbers(0), self.numbers(half)])
        width = self.op("Add", "width", [size, self.op("Add", "sides", [reach, reach])])  # W
        rounded = self.op("Sub", "rounded", [self.op("Add", "sum", [self.length, size]), self.numbers(1)])
        count = self.op("Div", "count", [rounded, size])  # N
        starts = self.column("starts", self.op("Mul", "first", [self.counted("blocks", count), size]))  # (N, 1)
        queries = self.op("Add", "queries", [starts, self.counted("within", size)])  # (N, S)
        ends = self.op("Sub", "ends", [starts, reach])
        keys = self.op("Add", "keys", [ends, self.counted("across", width)])  # (N, W)
        last = self.op("Sub", "last", [self.length, self.numbers(1)])
        self.queries = self.op("Min", "queries/inside", [queries, last])
        self.keys = self.op("Min", "keys/inside", [self.op("Max", "keys/after", [keys, self.numbers(0)]), last])
        shape = self.op("Shape", "shape", [state])
        pairs, hidden = (self.op("Slice", name, [shape, *bounds]) for name, bounds in self.ends().items())
        minus = self.numbers([-1])
        self.query_shape = self.joined("query_shape", [minus, self.column("S", size, axis=0), hidden])
        self.key_shape = self.joined("key_shape", [minus, self.column("W", width, axis=0), hidden])
        self.whole_shape = self.joined("whole_shape", [pairs, minus, hidden])
        self.end = self.column("L", self.length, axis=0)
        self.mask = self.masked(half, queries, keys, pairs, count)

    def ends(self) -> dict[str, list[str]]:
        """Bounds of the first and of the last dimension in a shape of three."""
        return {"pairs": [self.numbers([0]), self.numbers([1])], "hidden": [self.numbers([2]), self.numbers([3])]}

    def masked(self, half: int, queries: str, keys: str, pairs: str, count: str) -> str:
        """What is added to the scores, (B N, 1, S, W)."""
        rows = self.op("Unsqueeze", "rows", [queries, self.numbers([2])])  # (N, S, 1)
        columns = self.op("Unsqueeze", "columns", [keys, self.numbers([1])])  # (N, 1, W)
        distance = self.op("Abs", "distance", [self.op("Sub", "apart", [rows, columns])])
        near = self.op("LessOrEqual", "near", [distance, self.numbers(half)])
        begun = self.op("GreaterOrEqual", "begun", [columns, self.numbers(0)])
        inside = self.op("And", "inside", [begun, self.op("Less", "before_end", [columns, self.length])])
        seen = self.op("And", "seen", [near, inside])  # (N, S, W)
        added = {"seen": 0.0, "unseen": np.finfo(np.float32).min}
        values = [self.graph.add_initializer(f"local/{name}", np.array(value, np.float32)) for name, value in added.items()]
        mask = self.op("Unsqueeze", "mask", [self.op("Where", "added", [seen, *values]), self.numbers([0, 2])])
        each = self.joined("each", [pairs, self.column("N", count, axis=0), self.numbers([1, 1, 1])])
        spread = self.op("Expand", "spread", [mask, each])  # (B, N, 1, S, W)
        # Of the five dimensions the first two become one, which is told to Reshape by the last three.
        tail = self.op("Slice", "tail", [self.op("Shape", "spread/shape", [spread]), self.numbers([2]), self.numbers([5])])
        return self.op("Reshape", "masks", [spread, self.joined("masks/shape", [self.numbers([-1]), tail])])

    def rewrite(self, attention: onnx.NodeProto) -> None:
        stem, output = attention.name, attention.output[0]
        shapes = ((self.queries, self.query_shape), (self.keys, self.key_shape), (self.keys, self.key_shape))
        for slot, (index, shape) in enumerate(shapes):
            part = f"{stem}/{'qkv'[slot]}/blocks"
            self.graph.append("Gather", [attention.input[slot], index], [f"{part}/apart"], axis=1)  # (B, N, S or W, H)
            self.graph.append("Reshape", [f"{part}/apart", shape], [part])  # (B N, S or W, H)
            attention.input[slot] = part
        attention.input[MASK_SLOT] = self.mask
        attention.output[0] = f"{stem}/blocks"
        self.graph.append("Reshape", [f"{stem}/blocks", self.whole_shape], [f"{stem}/rounded"])  # (B, N S, H)
        start, one = self.numbers([0]), self.numbers([1])
        self.graph.append("Slice", [f"{stem}/rounded", start, self.end, one], [output])  # (B, L, H)

    def op(self, op_type: str, name: str, inputs: Sequence[str], **attributes: int | tuple[int, ...]) -> str:
        output = f"{self.name}/{name}"
        self.graph.append(op_type, inputs, [output], domain="", **attributes)
        return output

    def column(self, name: str, tensor: str, axis: int = 1) -> str:
        return self.op("Unsqueeze", name, [tensor, self.numbers([axis])])

    def counted(self, name: str, count: str) -> str:
        """0, 1, ... below count."""
        return self.op("Range", name, [self.numbers(0), count, self.numbers(1)])

    def joined(self, name: str, parts: Sequence[str]) -> str:
        return self.op("Concat", name, parts, axis=0)

    def numbers(self, value: int | list[int]) -> str:
        array: npt.NDArray[np.int64] = np.array(value, np.int64)
        return self.graph.add_initializer(f"local/{str(value).replace(' ', '')}", array)
