"""No mask where nothing is padded: an all-ones mask changes no attention score."""

import onnx

from raskrank_export.passes.edit import GraphEditor

MASK_INPUT, MASK_SLOT = "attention_mask", 4  # MultiHeadAttention: query, key, value, bias, key_padding_mask, ...


def drop_mask(model: onnx.ModelProto) -> int:
    """Take the key padding mask off every MultiHeadAttention. Returns the number of layers changed.

    Where nothing else reads `attention_mask`, that input goes too. Exact for rows without padding.
    """
    graph = GraphEditor(model)
    changed = 0
    for node in graph.nodes("MultiHeadAttention"):
        if len(node.input) > MASK_SLOT and node.input[MASK_SLOT]:
            node.input[MASK_SLOT] = ""
            changed += 1
        while node.input and not node.input[-1]:
            node.input.pop()
    graph.finish()
    return changed
