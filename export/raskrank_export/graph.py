"""From a PyTorch model to the graph of a bundle: written, or traced, with onnxruntime's fusions and our passes."""

import gc
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx

from raskrank.checkpoint import Checkpoint
from raskrank.errors import ExportError, ParityError
from raskrank.gate import ADVICE
from raskrank.manifest import MODEL, WEIGHTS
from raskrank.onnx_backend import MAX_LENGTH
from raskrank.torch_backend import TorchBackend
from raskrank_export.encoder import Parts, find_encoder
from raskrank_export.fuse_attention import fuse_attention
from raskrank_export.passes import PASSES
from raskrank_export.passes.drop_mask import MASK_INPUT
from raskrank_export.passes.edit import MICROSOFT
from raskrank_export.passes.hoist_first_token import hoist_first_token
from raskrank_export.passes.merge_projections import merge_projections, unmerged
from raskrank_export.share import share_weights
from raskrank_export.tensors import read_light, write_model
from raskrank_export.tracing import export_model, quiet
from raskrank_export.written import WRITERS, write_graph

# What onnxruntime makes of activations that PyTorch's exporter spells out; the others are one or two operators as they are.
_FUSED = {
    **dict.fromkeys(("gelu", "gelu_10", "gelu_python"), "Gelu"),
    **dict.fromkeys(("gelu_accurate", "gelu_fast", "gelu_new", "gelu_python_tanh", "gelu_pytorch_tanh"), "FastGelu"),
    "quick_gelu": "QuickGelu",
}


class LeanGraph(NamedTuple):
    """passes: how many layers each pass changed, or, of a graph that is written, in how many the same holds. left: what a pass
    did not match, and left right but slower, by name. kernels: the parts that our own kernels know it by, or why they do not.
    """

    model: onnx.ModelProto
    passes: dict[str, int]
    left: tuple[str, ...]
    kernels: Parts | str

    @property
    def inputs(self) -> tuple[str, ...]:
        return tuple(value.name for value in self.model.graph.input)


def make_graph(backend: TorchBackend, checkpoint: Checkpoint, folder: Path) -> LeanGraph:
    """The lean fp32 graph of a checkpoint: written where its family has a writer, else traced. Closes `backend`.

    Its large tensors are read from `folder`, which must stay until the graph is saved.
    """
    if checkpoint.architecture not in WRITERS:
        file = export_model(backend.model, folder, checkpoint.relevant)
        backend.close()
        gc.collect()  # the tracing leaves the model, and so all of its weights, in cycles
        return lean_graph(file, checkpoint)
    model, layers = write_graph(backend.model, checkpoint, folder)
    backend.close()
    return _whole(model, checkpoint, layers, (), f"they do not know {checkpoint.architecture}")


def lean_graph(file: Path, checkpoint: Checkpoint) -> LeanGraph:
    """A graph that was traced, after every pass.

    Its large tensors are read from `file`'s folder, which must stay until the graph is saved. Raises ExportError if
    onnxruntime did not fuse every attention and norm.
    """
    model = _fuse(file, checkpoint)
    kinds = Counter(node.op_type for node in model.graph.node)
    passes = {transform.__name__: transform(model) for transform in PASSES}
    share_weights(model)
    if any(entry.name == MASK_INPUT for entry in model.graph.input):
        raise ExportError(
            f"{checkpoint.architecture}: the graph reads {MASK_INPUT} elsewhere than in attention, which is not known"
        )
    activation = checkpoint.hidden_act
    left = []
    if kinds[_FUSED.get(activation, "")] < checkpoint.layers and activation in _FUSED:
        left.append(f"fusion of {activation}: several operators in some layers")
    left += [f"{merge_projections.__name__}: {name}" for name in unmerged(model)]
    return _whole(model, checkpoint, passes, left, find_encoder(model))


def _whole(
    model: onnx.ModelProto, checkpoint: Checkpoint, passes: dict[str, int], left: Sequence[str], kernels: Parts | str
) -> LeanGraph:
    if not passes[hoist_first_token.__name__]:
        left = *left, f"{hoist_first_token.__name__}: no choice of the first token above an attention"
    onnx.helper.set_model_props(model, {MAX_LENGTH: str(checkpoint.max_length)})
    return LeanGraph(model, passes, tuple(left), kernels)


def check_epsilons(model: onnx.ModelProto, checkpoint: Checkpoint) -> None:
    """Raises ParityError unless every layer normalization adds the checkpoint's epsilon: in logits it may drown in rounding."""
    expected = {np.float32(epsilon) for epsilon in checkpoint.epsilons}
    for node in model.graph.node:
        if node.op_type == "LayerNormalization":
            found = next((item.f for item in node.attribute if item.name == "epsilon"), 1e-5)
            if np.float32(found) not in expected:
                own = " and ".join(f"{epsilon:.3g}" for epsilon in sorted(checkpoint.epsilons))
                raise ParityError(
                    f"{node.output[0]} in the ONNX graph has the epsilon {found:.3g}, the checkpoint {own}. Nothing was "
                    f"written; {ADVICE['fp32']}"
                )


def save(model: onnx.ModelProto, folder: Path) -> None:
    """Write a bundle's model.onnx and model.onnx.data anew."""
    write_model(model, folder / MODEL, folder / WEIGHTS)


def _fuse(file: Path, checkpoint: Checkpoint) -> onnx.ModelProto:
    from onnxruntime.transformers import optimizer
    from onnxruntime.transformers.fusion_options import FusionOptions

    options = FusionOptions("bert")  # RoBERTa and XLM-R have the same layers
    options.use_multi_head_attention = True
    # These hide Add and LayerNormalization from the passes and from int8.
    options.enable_skip_layer_norm = options.enable_bias_skip_layer_norm = False
    options.enable_bias_gelu = options.enable_embed_layer_norm = False
    with quiet():
        model: onnx.ModelProto = optimizer.optimize_by_fusion(
            read_light(file),
            model_type="bert",
            num_heads=checkpoint.heads,
            hidden_size=checkpoint.hidden_size,
            optimization_options=options,
        ).model
    if not any(opset.domain == MICROSOFT for opset in model.opset_import):  # onnxruntime reads it without, onnx does not
        model.opset_import.append(onnx.helper.make_opsetid(MICROSOFT, 1))
    fuse_attention(model)
    found = Counter(node.op_type for node in model.graph.node)
    expected = {
        "MultiHeadAttention": checkpoint.layers,
        "LayerNormalization": 2 * checkpoint.layers + 1,
        "Softmax": 0,
    }
    if wrong := {kind: found[kind] for kind, count in expected.items() if found[kind] != count}:
        raise ExportError(
            f"onnxruntime did not fuse every layer of {checkpoint.architecture}: {wrong}, expected "
            f"{ {kind: expected[kind] for kind in wrong} }; the versions in constraints.txt are known to"
        )
    return model
