"""A plain export: a checkpoint as others would export it, written as a bundle, so that the engine can run it beside one.

It is in fp32, without any of our passes and fusions; onnxruntime optimizes it as it loads, as it does every graph. Two things
are added, neither of which costs time: a mask of ones is made of the ids' shape, since the engine pads nothing and so passes no
mask; and of two labels the logits' difference is taken, as the bundle's one logit is.
"""

import gc
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx
from onnx import helper, numpy_helper

from raskrank import bundle
from raskrank.backend import INPUT_IDS, LOGITS
from raskrank.checkpoint import Checkpoint
from raskrank.checkpoint.labels import Relevant
from raskrank.encoding import PairEncoder
from raskrank.manifest import FILES, MANIFEST, TOKENIZER, SelfTest
from raskrank.onnx_backend import MAX_LENGTH
from raskrank.reference import checkpoint_of
from raskrank.torch_backend import load_model
from raskrank_export.describe import SELF_TEST_PAIR, SELF_TEST_TOLERANCE, make_recipe
from raskrank_export.graph import save
from raskrank_export.passes.drop_mask import MASK_INPUT
from raskrank_export.progress import Silent
from raskrank_export.scoring import graph_logits
from raskrank_export.tensors import read_light
from raskrank_export.tokenizer import read_tokenizer
from raskrank_export.tracing import export_plain
from raskrank_export.write import bundle_folder


class Made(NamedTuple):
    """by: who made the graph, of what: "optimum-onnx 0.1.0". checkpoint: the folder that the weights are from."""

    by: str
    checkpoint: Path


def plain_export(of: Path, output: Path, *, checkpoint: Path | None = None) -> Made:
    """Write the plain export of the checkpoint that the bundle `of` was made from to the new folder `output`.

    It reads as many tokens as that bundle. checkpoint: its folder. Default: where the bundle's manifest says.

    Raises BundleError for what is no bundle, CheckpointError where the checkpoint is not to be had, Incompatible for another
    one, and ExportError where the exporter fails or nothing can be written.
    """
    manifest, _ = bundle.read_manifest(of)
    described = checkpoint_of(manifest, None if checkpoint is None else str(checkpoint))
    with bundle_folder(output) as folder:
        scratch = folder / "scratch"
        file, by = export_plain(load_model(described, attention="own choice"), described, scratch)
        inputs = _write_graph(file, folder, described)
        gc.collect()  # the tracing leaves the model, and so all of its weights, in cycles
        shutil.rmtree(scratch)
        data, tokenizer = read_tokenizer(described)
        (folder / TOKENIZER).write_bytes(data)
        query, document = SELF_TEST_PAIR
        pair = PairEncoder(tokenizer, manifest.max_length).encode([(query, document)])
        logit = float(graph_logits(folder, inputs, pair, Silent())[0])
        plain = replace(
            manifest,
            parameters=described.parameters,
            vocab_size=described.vocab_size,
            inputs=inputs,
            precision="fp32",
            recipe=make_recipe(None, "portable", {}),
            encoder=None,
            files={name: bundle.record(folder / name) for name in FILES},
            self_test=SelfTest(query=query, document=document, logit=logit, tolerance=SELF_TEST_TOLERANCE["fp32"]),
            parity={},
            vocabulary=None,
        )
        (folder / MANIFEST).write_bytes(plain.to_json().encode())
    return Made(by, described.folder)


def _write_graph(file: Path, folder: Path, checkpoint: Checkpoint) -> tuple[str, ...]:
    """The graph of `file` as that of a bundle in `folder`. Returns its inputs."""
    model = read_light(file)
    graph = model.graph
    inputs = [entry for entry in graph.input if entry.name != MASK_INPUT]
    if len(inputs) < len(graph.input):
        _put(graph, [*_ones(), *graph.node])
        del graph.input[:]
        graph.input.extend(inputs)
    if checkpoint.relevant is not None:
        _take_difference(graph, checkpoint.relevant)
    helper.set_model_props(model, {MAX_LENGTH: str(checkpoint.max_length)})
    save(model, folder)
    return tuple(entry.name for entry in inputs)


def _ones() -> list[onnx.NodeProto]:
    """A mask that hides nothing."""
    shape, one = f"{MASK_INPUT}/shape", numpy_helper.from_array(np.ones(1, np.int64))
    return [
        helper.make_node("Shape", [INPUT_IDS], [shape], shape),
        helper.make_node("ConstantOfShape", [shape], [MASK_INPUT], MASK_INPUT, value=one),
    ]


def _take_difference(graph: onnx.GraphProto, relevant: Relevant) -> None:
    """(B, 2) -> (B, 1)"""
    both, signs = f"{LOGITS}/both", np.full((2, 1), -1, np.float32)
    signs[relevant.place] = 1
    for node in graph.node:
        for names in (node.input, node.output):
            for index, name in enumerate(names):
                names[index] = both if name == LOGITS else name
    graph.initializer.append(numpy_helper.from_array(signs, f"{LOGITS}/signs"))
    _put(graph, [*graph.node, helper.make_node("MatMul", [both, f"{LOGITS}/signs"], [LOGITS], LOGITS)])
    batch = graph.output[0].type.tensor_type.shape.dim[0].dim_param
    graph.output[0].CopyFrom(helper.make_tensor_value_info(LOGITS, onnx.TensorProto.FLOAT, [batch, 1]))


def _put(graph: onnx.GraphProto, nodes: Sequence[onnx.NodeProto]) -> None:
    """Let the graph have these nodes, in this order."""
    del graph.node[:]
    graph.node.extend(nodes)
