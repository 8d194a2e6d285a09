"""What a graph may be: its inputs and outputs, and what onnxruntime does not take."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import ModelProto, NodeProto, TensorProto, helper

import bundles
from bundles import backend
from raskrank import Incompatible, InferenceError, Reranker
from raskrank.manifest import MODEL, TOKENIZER, WEIGHTS

FREE = ["batch_size", "sequence_length"]


# Inputs and outputs


def small_graph(
    inputs: Mapping[str, tuple[int, list[Any]]], outputs: Mapping[str, tuple[int, list[Any]]], operator: str = "ReduceMean"
) -> ModelProto:
    """A model without weights: every output is the first input, cast and reduced to (B, 1)."""
    first = next(iter(inputs))
    nodes = []
    for name, (kind, _) in outputs.items():
        nodes.append(helper.make_node("Cast", [first], [f"{name}/cast"], to=TensorProto.FLOAT))
        nodes.append(helper.make_node(operator, [f"{name}/cast", "last"], [f"{name}/mean"], keepdims=1))
        nodes.append(helper.make_node("Cast", [f"{name}/mean"], [name], to=kind))
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info(name, *described) for name, described in inputs.items()],
        [helper.make_tensor_value_info(name, *described) for name, described in outputs.items()],
        [helper.make_tensor("last", TensorProto.INT64, [1], [-1])],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


IDS: tuple[int, list[Any]] = (TensorProto.INT64, FREE)
LOGITS: tuple[int, list[Any]] = (TensorProto.FLOAT, ["batch_size", 1])


def test_a_small_graph_runs(tmp_path: Path) -> None:
    (tmp_path / MODEL).write_bytes(small_graph({"input_ids": IDS}, {"logits": LOGITS}).SerializeToString())
    (tmp_path / WEIGHTS).touch()
    ids = np.array([[1, 2, 6], [3, 3, 3]])
    logits = backend(tmp_path, ("input_ids",)).logits(ids, np.zeros_like(ids))
    assert logits.dtype == np.float32
    assert logits.tolist() == [3, 3]


@pytest.mark.parametrize(
    ("inputs", "named"),
    [
        ({"input_ids": IDS, "attention_mask": IDS, "token_type_ids": IDS}, r"'attention_mask', 'input_ids', 'token_type_ids'"),
        ({"token_type_ids": IDS}, r"graph's inputs are \['token_type_ids'\]"),
        ({"ids": IDS, "token_type_ids": IDS}, r"graph's inputs are \['ids', 'token_type_ids'\]"),
        ({"input_ids": IDS}, r"graph's inputs are \['input_ids'\], the manifest's \['input_ids', 'token_type_ids'\]"),
        ({"input_ids": (TensorProto.INT32, FREE), "token_type_ids": IDS}, r"not so: input_ids tensor\(int32\)"),
        ({"input_ids": IDS, "token_type_ids": (TensorProto.FLOAT, FREE)}, r"not so: token_type_ids tensor\(float\)"),
        ({"input_ids": (TensorProto.INT64, [*FREE, 1]), "token_type_ids": IDS}, r"not so: input_ids .*sequence_length', 1\]"),
        ({"input_ids": (TensorProto.INT64, FREE[1:]), "token_type_ids": IDS}, r"not so: input_ids .*\['sequence_length'\]"),
        ({"input_ids": (TensorProto.INT64, [1, FREE[1]]), "token_type_ids": IDS}, r"not so: input_ids .*\[1, 'seq"),
        ({"input_ids": IDS, "token_type_ids": (TensorProto.INT64, [FREE[0], 64])}, r"not so: token_type_ids .*, 64\]"),
    ],
)
def test_unexpected_inputs_are_named(folder: Path, inputs: dict[str, tuple[int, list[Any]]], named: str) -> None:
    (folder / MODEL).write_bytes(small_graph(inputs, {"logits": LOGITS}).SerializeToString())
    with pytest.raises(Incompatible, match=named) as raised:
        Reranker.load(bundles.sign(folder), backend="onnx")
    assert str(folder) in str(raised.value)
    assert "int64 of two free dimensions" in str(raised.value)


def test_a_further_input_of_the_real_graph_is_named(folder: Path) -> None:
    mask = helper.make_tensor_value_info("attention_mask", *IDS)
    with pytest.raises(Incompatible, match="'attention_mask', 'input_ids'"):
        Reranker.load(bundles.edit_graph(folder, lambda model: model.graph.input.append(mask)), backend="onnx")


@pytest.mark.parametrize("inputs", [[], ["input_ids"], ["input_ids", "token_type_ids", "attention_mask"]])
def test_the_manifest_names_the_inputs_of_the_graph(folder: Path, inputs: list[str]) -> None:
    with pytest.raises(Incompatible, match=r"the graph's inputs are .*, the manifest's"):
        Reranker.load(bundles.edit(folder, inputs=inputs), backend="onnx")


@pytest.mark.parametrize(
    ("outputs", "named"),
    [
        ({"scores": LOGITS}, "'scores', 'tensor.float.'"),
        ({"logits": (TensorProto.DOUBLE, ["batch_size", 1])}, "'logits', 'tensor.double.'"),
        ({"logits": (TensorProto.FLOAT16, ["batch_size", 1])}, "'logits', 'tensor.float16.'"),
        ({"logits": (TensorProto.INT64, ["batch_size", 1])}, "'logits', 'tensor.int64.'"),
        ({"logits": LOGITS, "hidden": LOGITS}, "'logits', .*'hidden'"),
    ],
)
def test_unexpected_outputs_are_named(folder: Path, outputs: dict[str, tuple[int, list[Any]]], named: str) -> None:
    (folder / MODEL).write_bytes(small_graph({"input_ids": IDS, "token_type_ids": IDS}, outputs).SerializeToString())
    with pytest.raises(Incompatible, match=f"outputs are .*{named}.* expected one, logits, of float32"):
        Reranker.load(bundles.sign(folder), backend="onnx")


@pytest.mark.parametrize("axis", [0, 1])
def test_a_logit_for_each_pair_and_no_more(folder: Path, axis: int) -> None:
    def repeat(model: ModelProto) -> None:
        (output,) = model.graph.output
        for node in model.graph.node:
            node.output[:] = ["single" if name == "logits" else name for name in node.output]
        model.graph.node.append(helper.make_node("Concat", ["single", "single"], ["logits"], axis=axis))
        output.type.tensor_type.shape.dim[1].Clear()

    shape = r"\(2, 1\)" if axis == 0 else r"\(1, 2\)"
    with pytest.raises(Incompatible, match=f"does not run: the graph gave logits of shape {shape} for 1 pairs"):
        Reranker.load(bundles.edit_graph(folder, repeat), backend="onnx")


# Graphs that onnxruntime does not take


@pytest.mark.parametrize("content", [b"", b"<!DOCTYPE html><html></html>", b"\0" * 1000, bytes(range(256)) * 40])
def test_a_signed_file_that_is_no_graph(folder: Path, content: bytes) -> None:
    (folder / MODEL).write_bytes(content)
    with pytest.raises(Incompatible, match=r"is not an ONNX graph|onnxruntime .* cannot load|graph does not say") as raised:
        Reranker.load(bundles.sign(folder), backend="onnx")
    assert str(folder) in str(raised.value)


@pytest.mark.parametrize("name", [TOKENIZER, WEIGHTS])
def test_another_file_of_the_bundle_is_no_graph(folder: Path, name: str) -> None:
    (folder / MODEL).write_bytes((folder / name).read_bytes())
    with pytest.raises(Incompatible, match=r"is not an ONNX graph|onnxruntime .* cannot load"):
        Reranker.load(bundles.sign(folder), backend="onnx")


def newer_opset(model: ModelProto) -> None:
    model.opset_import[0].version = 99


def newer_ir(model: ModelProto) -> None:
    model.ir_version = 99


def norm(model: ModelProto) -> NodeProto:
    node: NodeProto = next(node for node in model.graph.node if node.op_type == "LayerNormalization")
    return node


def unknown_operator(model: ModelProto) -> None:
    norm(model).op_type = "Frobnicate"


def custom_domain(model: ModelProto) -> None:
    model.opset_import.append(helper.make_opsetid("com.example", 1))
    norm(model).domain = "com.example"


def cycle(model: ModelProto) -> None:
    norm(model).input[0] = norm(model).output[0]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (newer_opset, "99"),
        (newer_ir, "99"),
        (unknown_operator, "Frobnicate"),
        (custom_domain, "com.example"),
        (cycle, "graph"),
    ],
)
def test_a_graph_that_needs_more_than_there_is(
    folder: Path, change: Callable[[ModelProto], None], reason: str, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(Incompatible, match=r"onnxruntime [\d.]+ cannot load") as raised:
        Reranker.load(bundles.edit_graph(folder, change), backend="onnx")
    assert str(folder) in str(raised.value)
    assert reason in str(raised.value).partition("cannot load")[2]
    assert capfd.readouterr() == ("", "")


def test_onnxruntime_prints_nothing_of_its_own(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    # Its error quotes the name, and an error that is not UTF-8 once led onnxruntime to print and try again.
    content = (folder / MODEL).read_bytes()
    assert b"LayerNormalization" in content
    (folder / MODEL).write_bytes(content.replace(b"LayerNormalization", b"\x87" * 18))
    with pytest.raises(Incompatible, match="cannot load"):
        Reranker.load(bundles.sign(folder), backend="onnx")
    assert capfd.readouterr() == ("", "")


def test_an_id_that_is_not_embedded_is_an_inference_error(folder: Path) -> None:
    ids = np.full((1, 7), 10**6, np.int64)
    with pytest.raises(InferenceError, match="a run of 1 x 7 tokens"):
        backend(folder).logits(ids, np.zeros_like(ids))
