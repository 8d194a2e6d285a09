"""How far the channels of activations reach, measured on sample pairs."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper

from raskrank import cpu
from raskrank.backend import INPUT_IDS, TOKEN_TYPE_IDS
from raskrank.encoding import EncodedPair
from raskrank.manifest import MODEL
from raskrank.onnx_backend import make_session, session_options
from raskrank_export.passes.edit import GraphEditor
from raskrank_export.products import constant_products
from raskrank_export.progress import Progress
from raskrank_export.quantization import Floats


def channel_magnitudes(folder: Path, encoded: Sequence[EncodedPair], progress: Progress) -> dict[str, Floats]:
    """float32 (K) for every tensor (B, L, K) that a product reads: the largest magnitude of each channel over all pairs.

    folder: of the fp32 graph, whose weights stay where they are.
    """
    model = onnx.load(str(folder / MODEL), load_external_data=False)
    graph = GraphEditor(model)
    axes = graph.add_initializer("calibrate/axes", np.array([0, 1], np.int64))
    sources = list(dict.fromkeys(product.input[0] for product in constant_products(graph)))
    outputs = [f"{source}/largest" for source in sources]
    for source, output in zip(sources, outputs, strict=True):
        graph.append("Abs", [source], [f"{source}/magnitude"])
        graph.append("ReduceMax", [f"{source}/magnitude", axes], [output], keepdims=0)
        model.graph.output.append(helper.make_tensor_value_info(output, TensorProto.FLOAT, [None]))
    graph.finish()
    session = make_session(model.SerializeToString(), session_options(folder, threads=cpu.usable_cpus()))
    inputs = {item.name for item in session.get_inputs()}
    largest: dict[str, Floats] = {}
    for pair in encoded:
        feeds = {INPUT_IDS: pair.input_ids[None], TOKEN_TYPE_IDS: pair.token_type_ids[None]}
        found = session.run(outputs, {name: value for name, value in feeds.items() if name in inputs})
        for source, value in zip(sources, found, strict=True):
            largest[source] = np.maximum(largest.get(source, 0), value)
        progress.advance(1)
    return largest
