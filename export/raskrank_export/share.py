"""One tensor where a graph has several equal ones: layers that share their weights, as ALBERT's, share them in a bundle too."""

from collections import defaultdict

import numpy as np
import onnx

from raskrank_export.passes.edit import GraphEditor


def share_weights(model: onnx.ModelProto) -> int:
    """Let every product of equal matrices read one of them. Returns how many tensors are gone."""
    graph = GraphEditor(model)
    alike: dict[tuple[tuple[int, ...], bytes], list[str]] = defaultdict(list)  # by shape and first row
    for name in dict.fromkeys(node.input[1] for node in graph.nodes("MatMul") if node.input[1] in graph.initializers):
        matrix = graph.constant(name)
        alike[matrix.shape, matrix[:1].tobytes()].append(name)
    same = dict[str, str]()
    for names in alike.values():
        kept = list[str]()
        for name in names:
            twin = next((other for other in kept if np.array_equal(graph.constant(name), graph.constant(other))), None)
            if twin is None:
                kept.append(name)
            else:
                same[name] = twin
    for node in graph.nodes("MatMul"):
        node.input[1] = same.get(node.input[1], node.input[1])
    graph.finish()
    return len(same)
