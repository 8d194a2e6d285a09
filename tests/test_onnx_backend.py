"""What a graph may be, where its weights may lie, and how onnxruntime is asked to run it."""

import json
import os
import random
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import ModelProto, NodeProto, TensorProto, helper

import bundles
from conftest import Tiny
from processes import run_script
from raskrank import Incompatible, InferenceError, Reranker, external
from raskrank.external import MESSAGES, external_tensors, relocate
from raskrank.manifest import MODEL, TOKENIZER, WEIGHTS
from raskrank.onnx_backend import OnnxBackend
from raskrank.settings import bundle_path

INPUTS = ("input_ids", "token_type_ids")
FREE = ["batch_size", "sequence_length"]
needs_proc = pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs Linux's /proc")


@pytest.fixture
def folder(tiny: Tiny, tmp_path: Path) -> Path:
    return bundles.copy_bundle(tiny.bundle("bert", "int8"), tmp_path / "bundle")


@pytest.fixture
def nano(tmp_path: Path) -> Path:
    """A copy of the embedded model, whose weights are megabytes."""
    return bundles.copy_bundle(bundle_path(None), tmp_path / "nano")


def backend(folder: Path, inputs: tuple[str, ...] = INPUTS, *, concurrency: int = 1) -> OnnxBackend:
    return OnnxBackend((folder / MODEL).read_bytes(), folder, inputs, concurrency=concurrency, hidden_size=32, groups=True)


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
        Reranker.load(bundles.sign(folder))
    assert str(folder) in str(raised.value)
    assert "int64 of two free dimensions" in str(raised.value)


def test_a_further_input_of_the_real_graph_is_named(folder: Path) -> None:
    mask = helper.make_tensor_value_info("attention_mask", *IDS)
    with pytest.raises(Incompatible, match="'attention_mask', 'input_ids'"):
        Reranker.load(bundles.edit_graph(folder, lambda model: model.graph.input.append(mask)))


@pytest.mark.parametrize("inputs", [[], ["input_ids"], ["input_ids", "token_type_ids", "attention_mask"]])
def test_the_manifest_names_the_inputs_of_the_graph(folder: Path, inputs: list[str]) -> None:
    with pytest.raises(Incompatible, match=r"the graph's inputs are .*, the manifest's"):
        Reranker.load(bundles.edit(folder, inputs=inputs))


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
        Reranker.load(bundles.sign(folder))


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
        Reranker.load(bundles.edit_graph(folder, repeat))


# Graphs that onnxruntime does not take


@pytest.mark.parametrize("content", [b"", b"<!DOCTYPE html><html></html>", b"\0" * 1000, bytes(range(256)) * 40])
def test_a_signed_file_that_is_no_graph(folder: Path, content: bytes) -> None:
    (folder / MODEL).write_bytes(content)
    with pytest.raises(Incompatible, match=r"is not an ONNX graph|onnxruntime .* cannot load|graph does not say") as raised:
        Reranker.load(bundles.sign(folder))
    assert str(folder) in str(raised.value)


@pytest.mark.parametrize("name", [TOKENIZER, WEIGHTS])
def test_another_file_of_the_bundle_is_no_graph(folder: Path, name: str) -> None:
    (folder / MODEL).write_bytes((folder / name).read_bytes())
    with pytest.raises(Incompatible, match=r"is not an ONNX graph|onnxruntime .* cannot load"):
        Reranker.load(bundles.sign(folder))


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
        Reranker.load(bundles.edit_graph(folder, change))
    assert str(folder) in str(raised.value)
    assert reason in str(raised.value).partition("cannot load")[2]
    assert capfd.readouterr() == ("", "")


def test_onnxruntime_prints_nothing_of_its_own(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    # Its error quotes the name, and an error that is not UTF-8 once led onnxruntime to print and try again.
    content = (folder / MODEL).read_bytes()
    assert b"LayerNormalization" in content
    (folder / MODEL).write_bytes(content.replace(b"LayerNormalization", b"\x87" * 18))
    with pytest.raises(Incompatible, match="cannot load"):
        Reranker.load(bundles.sign(folder))
    assert capfd.readouterr() == ("", "")


def test_an_id_that_is_not_embedded_is_an_inference_error(folder: Path) -> None:
    ids = np.full((1, 7), 10**6, np.int64)
    with pytest.raises(InferenceError, match="a run of 1 x 7 tokens"):
        backend(folder).logits(ids, np.zeros_like(ids))


# External data


def stored(location: str) -> TensorProto:
    """Four floats in the file at `location`."""
    tensor = TensorProto(name="stored", data_type=TensorProto.FLOAT, dims=[4], data_location=TensorProto.EXTERNAL)
    for key, value in (("location", location), ("offset", "0"), ("length", "16")):
        tensor.external_data.add(key=key, value=value)
    return tensor


def in_initializer(model: ModelProto, tensor: TensorProto) -> None:
    model.graph.initializer.append(tensor)


def in_constant(model: ModelProto, tensor: TensorProto) -> None:
    model.graph.node.insert(0, helper.make_node("Constant", [], ["stored"], value=tensor))


def in_sparse_initializer(model: ModelProto, tensor: TensorProto) -> None:
    indices = helper.make_tensor("indices", TensorProto.INT64, [4], [0, 1, 2, 3])
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(tensor, indices, [8]))


def in_sparse_constant(model: ModelProto, tensor: TensorProto) -> None:
    indices = helper.make_tensor("indices", TensorProto.INT64, [4], [0, 1, 2, 3])
    sparse = helper.make_sparse_tensor(tensor, indices, [8])
    model.graph.node.insert(0, helper.make_node("Constant", [], ["stored"], sparse_value=sparse))


def in_subgraph(model: ModelProto, tensor: TensorProto) -> None:
    output = helper.make_tensor_value_info("stored", TensorProto.FLOAT, [4])
    branch = helper.make_graph([], "branch", [], [output], [tensor])
    condition = helper.make_node("Constant", [], ["yes"], value=helper.make_tensor("yes", TensorProto.BOOL, [], [True]))
    choice = helper.make_node("If", ["yes"], ["chosen"], then_branch=branch, else_branch=branch)
    model.graph.node.insert(0, choice)
    model.graph.node.insert(0, condition)


def in_function(model: ModelProto, tensor: TensorProto) -> None:
    body = [helper.make_node("Constant", [], ["stored"], value=tensor)]
    opsets = [helper.make_opsetid("", 18)]
    model.functions.append(helper.make_function("local", "Stored", [], ["stored"], body, opsets))
    model.opset_import.append(helper.make_opsetid("local", 1))
    model.graph.node.insert(0, helper.make_node("Stored", [], ["stored"], domain="local"))


PLACES = [in_initializer, in_constant, in_sparse_initializer, in_sparse_constant, in_subgraph, in_function]


@pytest.fixture
def last_read(tmp_path: Path) -> Callable[[Path], int]:
    """When a file was last read; skips where the file system does not keep that."""

    def since(path: Path) -> int:
        return path.stat().st_atime_ns

    probe = tmp_path / "probe"
    probe.write_bytes(bytes(64))
    os.utime(probe, ns=(0, probe.stat().st_mtime_ns))
    probe.read_bytes()
    if since(probe) == 0:
        pytest.skip("needs a file system that keeps times of access")
    return since


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("where", ["other.bin", "../outside.bin", "absolute", "sub/../../outside.bin"])
def test_weights_from_another_file_are_refused_unread(
    folder: Path, place: Callable[[ModelProto, TensorProto], None], where: str, last_read: Callable[[Path], int]
) -> None:
    (folder / "sub").mkdir()
    file = folder / ("other.bin" if where == "other.bin" else "../outside.bin")
    file.write_bytes(bytes(64))
    os.utime(file, ns=(0, file.stat().st_mtime_ns))
    location = str(file.resolve()) if where == "absolute" else where
    bundles.edit_graph(folder, lambda model: place(model, stored(location)))
    with pytest.raises(Incompatible, match=r"wants weights from") as raised:
        Reranker.load(folder)
    assert str(folder / MODEL) in str(raised.value)
    if place is in_initializer:
        assert f"{location[-8:]}'], allowed is {WEIGHTS} alone" in str(raised.value)
    assert last_read(file) == 0


@pytest.mark.parametrize(
    "location", ["", ".", "./model.onnx.data", "MODEL.ONNX.DATA", "model.onnx.data\0", "*/_ORT_MEM_ADDR_/*", "/proc/self/mem"]
)
def test_only_the_very_name_is_allowed(folder: Path, location: str) -> None:
    bundles.edit_graph(folder, lambda model: in_initializer(model, stored(location)))
    with pytest.raises(Incompatible, match="wants weights from"):
        Reranker.load(folder)


def test_more_weights_from_the_right_file_load(folder: Path) -> None:
    bundles.edit_graph(folder, lambda model: in_initializer(model, stored(WEIGHTS)))
    with Reranker.load(folder) as reranker:
        assert reranker.score("a", ["b"]).shape == (1,)


@pytest.mark.parametrize("place", PLACES[1:])
def test_weights_are_those_of_initializers_of_the_graph_alone(
    folder: Path, place: Callable[[ModelProto, TensorProto], None]
) -> None:
    # onnxruntime would open the file itself for them, after the check.
    bundles.edit_graph(folder, lambda model: place(model, stored(WEIGHTS)))
    with pytest.raises(Incompatible, match="'stored' is no initializer of the graph, and wants weights from a file"):
        Reranker.load(folder)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("offset", "1000000000"),
        ("offset", "-1"),
        ("offset", str(2**64 - 1)),
        ("offset", "x"),
        ("offset", "٠"),
        ("offset", "1_0"),
        ("offset", "9" * 5000),
        ("offset", "1"),  # floats lie at multiples of four
        ("length", "1000000000"),
        ("length", "8"),
        ("length", ""),
    ],
)
def test_weights_beyond_their_file_are_refused(folder: Path, key: str, value: str) -> None:
    def move(model: ModelProto) -> None:
        tensor = next(tensor for tensor in model.graph.initializer if tensor.external_data and tensor.data_type == 1)
        for entry in tensor.external_data:
            if entry.key == key:
                entry.value = value

    with pytest.raises(Incompatible, match=r"wants \d+ bytes from|are no float32 of shape|does not say in one way") as raised:
        Reranker.load(bundles.edit_graph(folder, move))
    assert str(folder / MODEL) in str(raised.value)
    assert len(str(raised.value)) < 500


def first_in_file(model: ModelProto) -> TensorProto:
    tensor: TensorProto = next(tensor for tensor in model.graph.initializer if tensor.external_data)
    return tensor


def a_shape_of_its_own(model: ModelProto) -> None:
    first_in_file(model).dims.append(2)


def a_negative_shape(model: ModelProto) -> None:
    first_in_file(model).dims.extend([-1, -1])


def very_many_dimensions(model: ModelProto) -> None:
    first_in_file(model).dims.extend([1] * 1_000_000)


def texts(model: ModelProto) -> None:
    first_in_file(model).data_type = TensorProto.STRING


def an_unknown_type(model: ModelProto) -> None:
    first_in_file(model).data_type = 99


def a_key_twice(model: ModelProto) -> None:
    first_in_file(model).external_data.add(key="offset", value="0")


def a_further_key(model: ModelProto) -> None:
    first_in_file(model).external_data.add(key="prepacked_0", value="0;8")


def no_key(model: ModelProto) -> None:
    del first_in_file(model).external_data[:]


def inside_all_the_same(model: ModelProto) -> None:
    first_in_file(model).data_location = TensorProto.DEFAULT


def no_name(model: ModelProto) -> None:
    first_in_file(model).name = ""


def a_name_with_an_end_inside(model: ModelProto) -> None:
    first_in_file(model).name += "\0x"


def a_name_twice(model: ModelProto) -> None:
    model.graph.initializer.append(first_in_file(model))


@pytest.mark.parametrize(
    "change",
    [
        a_shape_of_its_own,
        a_negative_shape,
        very_many_dimensions,
        texts,
        an_unknown_type,
        a_key_twice,
        a_further_key,
        no_key,
        inside_all_the_same,
        no_name,
        a_name_with_an_end_inside,
        a_name_twice,
    ],
)
def test_weights_that_are_described_wrongly_are_refused(folder: Path, change: Callable[[ModelProto], None]) -> None:
    with pytest.raises(Incompatible, match="is not an ONNX graph of a bundle") as raised:
        Reranker.load(bundles.edit_graph(folder, change))
    assert str(folder / MODEL) in str(raised.value)


def test_signed_weights_that_are_too_short_are_refused(folder: Path) -> None:
    os.truncate(folder / WEIGHTS, 1000)
    with pytest.raises(Incompatible, match=r"wants \d+ bytes from \d+ of model\.onnx\.data, which has 1000"):
        Reranker.load(bundles.sign(folder))


@pytest.mark.parametrize("dtype", ["int8", "uint8", "float32", "float16", "int32", "int64", "float64", "bool"])
def test_weights_of_each_type_are_used_where_they_lie(tmp_path: Path, dtype: str) -> None:
    # logits = table[input_ids] of one token; int8 at an odd place, as no export of ours puts it.
    table = np.arange(64).reshape(64, 1).astype(dtype)
    start = 3 if table.itemsize == 1 else 8
    (tmp_path / WEIGHTS).write_bytes(bytes(start) + table.tobytes())
    tensor = TensorProto(name="table", data_type=helper.np_dtype_to_tensor_dtype(table.dtype), dims=table.shape)
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", WEIGHTS), ("offset", str(start)), ("length", str(table.nbytes))):
        tensor.external_data.add(key=key, value=value)
    nodes = [
        helper.make_node("Squeeze", ["input_ids", "axis"], ["ids"]),
        helper.make_node("Gather", ["table", "ids"], ["rows"]),
        helper.make_node("Cast", ["rows"], ["logits"], to=TensorProto.FLOAT),
    ]
    graph = helper.make_graph(
        nodes,
        "lookup",
        [helper.make_tensor_value_info("input_ids", *IDS)],
        [helper.make_tensor_value_info("logits", *LOGITS)],
        [tensor, helper.make_tensor("axis", TensorProto.INT64, [1], [1])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    (tmp_path / MODEL).write_bytes(model.SerializeToString())
    ids = np.array([[1], [63], [0], [7]])
    logits = backend(tmp_path, ("input_ids",)).logits(ids, np.zeros_like(ids))
    assert logits.tolist() == table[ids[:, 0], 0].astype(float).tolist()


def test_the_walk_knows_every_way_to_external_data() -> None:
    # From onnx's own description: which message leads to a tensor, and through which fields.
    described: dict[str, Any] = {}
    waiting = [ModelProto.DESCRIPTOR]
    while waiting:
        message = waiting.pop()
        if message.name not in described:
            described[message.name] = message
            waiting += [field.message_type for field in message.fields if field.message_type]
    leading = {"TensorProto"}
    while True:
        further = {
            name
            for name, message in described.items()
            if any(field.message_type and field.message_type.name in leading for field in message.fields)
        }
        if further <= leading:
            break
        leading |= further
    ways = {
        name: {
            f.number: f.message_type.name for f in described[name].fields if f.message_type and f.message_type.name in leading
        }
        for name in leading
    }
    assert {name: fields for name, fields in ways.items() if fields} == MESSAGES
    numbers = {field.name: field.number for field in TensorProto.DESCRIPTOR.fields}
    ours = (external._DIMS, external._DATA_TYPE, external._NAME, external._EXTERNAL_DATA, external._DATA_LOCATION)
    assert ours == tuple(numbers[name] for name in ("dims", "data_type", "name", "external_data", "data_location"))
    for number, dtype in external.DTYPES.items():
        assert helper.tensor_dtype_to_np_dtype(number) == np.dtype(dtype)


def field(number: int, content: bytes) -> bytes:
    """A field with a length, shorter than 128 bytes."""
    return bytes([number << 3 | 2, len(content)]) + content


FOUR_FLOATS = field(8, b"stored") + b"\x08\x04" + b"\x10\x01" + b"\x70\x01"
NAMED = field(1, b"location") + field(2, b"x")
PLACED = field(13, field(1, b"offset") + field(2, b"0")) + field(13, field(1, b"length") + field(2, b"16"))


def in_graph(entry: bytes, tensor: bytes = FOUR_FLOATS) -> bytes:
    content = field(5, tensor + PLACED + field(13, entry))
    return b"\x3a" + _varint(len(content)) + content


@pytest.mark.parametrize(
    "entry",
    [
        NAMED,
        field(2, b"x") + field(1, b"location"),
        field(2, b"model.onnx.data") + NAMED,
        field(1, b"offset") + NAMED,
        field(15, b"unknown") + NAMED + b"\x18\x05" + b"\x25abcd" + b"\x29abcdefgh",
        b"\x0a\x88\x80\x00location\x12\x81\x00x",
        b"\x8a\x80\x00\x08location\x12\x01x",
    ],
    ids=["plain", "value first", "value twice", "key twice", "unknown fields", "long lengths", "long tag"],
)
def test_odd_encodings_are_read_as_protobuf_reads_them(entry: bytes) -> None:
    graph = in_graph(entry)
    (tensor,) = ModelProto.FromString(graph).graph.initializer
    assert [item.value for item in tensor.external_data if item.key == "location"] == ["x"]
    (found,) = external_tensors(graph)
    assert tuple(found) == ("stored", "float32", (4,), "x", 0, 16)
    (moved,) = external_tensors(relocate(graph, "elsewhere"))
    assert moved == found._replace(location="elsewhere")
    with pytest.raises(ValueError, match="two initializers have the same name"):
        external_tensors(graph + graph)  # protobuf merges them into one graph


@pytest.mark.parametrize(
    ("tensor", "shape"),
    [
        (field(8, b"a") + field(8, b"stored") + b"\x08\x02\x08\x02\x10\x07\x10\x01\x70\x01", [2, 2]),  # the last one counts
        (field(8, b"stored") + field(1, b"\x02\x01") + b"\x08\x02\x10\x01\x70\x00\x70\x01", [2, 1, 2]),  # packed and not
        (FOUR_FLOATS + b"\x0d\x00\x00\x00\x00" + b"\x15abcd", [4]),  # of another wire type: unknown fields
    ],
)
def test_a_tensor_has_the_shape_that_protobuf_reads(tensor: bytes, shape: list[int]) -> None:
    (found,) = external_tensors(in_graph(NAMED, tensor))
    (expected,) = ModelProto.FromString(in_graph(NAMED, tensor)).graph.initializer
    assert list(expected.dims) == list(found.shape) == shape
    assert (expected.name, expected.data_type, expected.data_location) == (found.name, 1, 1)


def test_another_name_for_the_file_changes_nothing_else(folder: Path) -> None:
    graph = (folder / MODEL).read_bytes()
    assert relocate(graph, WEIGHTS) == graph
    expected = ModelProto.FromString(graph)
    for tensor in expected.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = "æ" * 200
    assert ModelProto.FromString(relocate(graph, "æ" * 200)) == expected


def test_a_deep_graph_is_walked() -> None:
    graph = field(5, FOUR_FLOATS + PLACED + field(13, NAMED))
    for _ in range(20_000):
        content = b"\x32" + _varint(len(graph)) + graph  # attribute.g
        for tag in (b"\x2a", b"\x0a"):  # node.attribute, graph.node
            content = tag + _varint(len(content)) + content
        graph = content
        if len(graph) > 30_000:
            break
    with pytest.raises(ValueError, match="'stored' is no initializer of the graph"):
        external_tensors(b"\x3a" + _varint(len(graph)) + graph)


def _varint(number: int) -> bytes:
    digits = []
    while number > 127:
        digits.append(number & 127 | 128)
        number >>= 7
    return bytes([*digits, number])


@given(st.binary(max_size=200))
def test_any_bytes_are_walked_or_a_value_error(content: bytes) -> None:
    _same_as_onnx(content)


def test_damaged_graphs_are_walked_as_onnx_reads_them(tiny: Tiny) -> None:
    original = (tiny.bundle("bert", "int8") / MODEL).read_bytes()
    names = [index for index in range(len(original)) if original.startswith(b"location", index)]
    dice = random.Random(0)
    for _ in range(300):
        content = bytearray(original)
        for _ in range(dice.randrange(1, 4)):
            content[dice.choice(names) + dice.randrange(-24, 48)] ^= 1 << dice.randrange(8)
        _same_as_onnx(bytes(content))


def _same_as_onnx(content: bytes) -> None:
    """Where protobuf and the walk both take the bytes, they find the same tensors in the same places."""
    try:
        model = ModelProto.FromString(content)
    except Exception:  # noqa: BLE001  google.protobuf's DecodeError, which is of no public module
        return
    try:
        found = external_tensors(content)
    except ValueError:
        return
    expected = [tensor for tensor in _tensors(model) if tensor.data_location == TensorProto.EXTERNAL]
    assert sorted(found) == sorted(
        (
            tensor.name,
            helper.tensor_dtype_to_np_dtype(tensor.data_type).name,
            tuple(tensor.dims),
            *(_read(value) for value in map(_entries(tensor).get, ("location", "offset", "length"))),
        )
        for tensor in expected
    )


def _entries(tensor: TensorProto) -> dict[str, str]:
    # protobuf gives bytes where they are no UTF-8.
    texts = ((entry.key, entry.value) for entry in tensor.external_data)
    return {key: value.decode(errors="replace") if isinstance(value, bytes) else value for key, value in texts}


def _read(value: str | None) -> str | int | None:
    return int(value) if value is not None and value.isdecimal() else value


def _tensors(message: Any) -> Iterator[TensorProto]:
    if isinstance(message, TensorProto):
        yield message
        return
    for _, value in message.ListFields():
        for item in value if hasattr(value, "__len__") and not isinstance(value, str | bytes) else [value]:
            if hasattr(item, "ListFields"):
                yield from _tensors(item)


# How it runs


@needs_proc
def test_weights_are_mapped_and_given_back(nano: Path) -> None:
    with Reranker.load(nano, threads=1) as reranker:
        mapped = _mapped(nano / WEIGHTS)
        vocabulary = bundles.read(nano)["vocab_size"] * bundles.read(nano)["hidden_size"]
        assert vocabulary > 1_500_000
        assert mapped >= vocabulary  # one byte a number: int8
        reranker.score("Hvem kan Python?", ["Python og SQL"])
    assert _mapped(nano / WEIGHTS) == 0


@needs_proc
def test_weights_in_fp32_are_mapped(tiny: Tiny, tmp_path: Path) -> None:
    folder = bundles.copy_bundle(tiny.bundle("bert", "fp32"), tmp_path / "bundle")
    with Reranker.load(folder, threads=1):
        values = bundles.read(folder)
        assert _mapped(folder / WEIGHTS) >= 4 * values["vocab_size"] * values["hidden_size"]


def _mapped(file: Path) -> int:
    """Bytes of a file in this process's address space."""
    lines = [line.split(maxsplit=5) for line in Path("/proc/self/maps").read_text().splitlines()]
    ranges = [line[0].split("-") for line in lines if line[-1] == str(file.resolve())]
    return sum(int(end, 16) - int(start, 16) for start, end in ranges)


THREADS = """
    import os, sys
    from pathlib import Path
    from raskrank.errors import Incompatible
    from raskrank.onnx_backend import OnnxBackend

    def threads():
        return len(os.listdir("/proc/self/task"))

    folder = Path(sys.argv[1])
    graph = (folder / "model.onnx").read_bytes()
    before = threads()
    try:
        backend = OnnxBackend(graph, folder, ("input_ids", "token_type_ids"), concurrency=4, hidden_size=32, groups=True)
    except Incompatible:
        print("refused")
        sys.exit()
    print(threads() - before)
    for _ in range(2):
        backend._wide_session()
        print(threads() - before)
"""


@needs_proc
def test_runs_have_a_thread_each_and_from_the_second_spread_one_on_all(folder: Path, tmp_path: Path) -> None:
    assert run_script(tmp_path, THREADS, str(folder)).stdout.split() == ["0", "0", "3"]


@needs_proc
def test_settings_inside_the_model_have_no_effect(folder: Path, tmp_path: Path) -> None:
    settings = {"session_options": {"intra_op_num_threads": 6, "log_severity_level": 0}}
    bundles.edit_graph(folder, lambda model: model.metadata_props.add(key="ort_config", value=json.dumps(settings)))
    assert run_script(tmp_path, THREADS, str(folder)).stdout.split() == ["0", "0", "3"]
    asked = run_script(tmp_path, THREADS, str(folder), env={"ORT_LOAD_CONFIG_FROM_MODEL": "1"})
    assert asked.stdout.split() == ["0", "0", "3"]


def test_a_spread_run_gives_the_same_bits(nano: Path) -> None:
    wide = backend(nano, concurrency=3)
    dice = np.random.default_rng(0)
    for length in (3, 92, 200, 512):
        ids = dice.integers(5, 12_000, (1, length))
        types = (np.arange(length) > length // 3).astype(np.int64)[None]
        assert wide.logits(ids, types, spread=True) == wide.logits(ids, types)
    assert wide._wide is not None


@pytest.mark.parametrize("content", [None, b"", bytes(2_531_200)], ids=["no file", "empty", "as large"])
def test_other_weights_in_the_same_place_are_not_read(nano: Path, content: bytes | None) -> None:
    # The session for spread runs is made when it is first needed, whatever then lies in the folder.
    old = backend(nano, concurrency=2)
    ids = np.arange(100, 300)[None]
    expected = old.logits(ids, np.zeros_like(ids))
    (nano / WEIGHTS).unlink()
    if content is not None:
        (nano / WEIGHTS).write_bytes(content)
    for _ in range(2):
        assert old.logits(ids, np.zeros_like(ids), spread=True) == expected
    assert content is None or old._wide is not old._single


WRITTEN_OVER = """
    import os, sys
    from pathlib import Path
    from raskrank import Reranker, onnx_backend, planning

    onnx_backend.SPREAD_ALONE = planning.SPREAD_MIN_WORK = 0  # the second session at the first run alone
    folder, documents = Path(sys.argv[1]), ["Python og SQL", "Sykepleier", "ord " * 300]
    with Reranker.load(folder, threads=2) as reranker:
        expected = reranker.score("Hvem kan Python?", documents)
    with Reranker.load(folder, threads=2, map_weights=False) as reranker:
        size = (folder / "model.onnx.data").stat().st_size
        for content in (bytes(size), bytes([255]) * size, b""):
            with (folder / "model.onnx.data").open("r+b") as file:  # in place, as cp and rsync --inplace write
                file.truncate(0)
                file.write(content)
            for number in (1, 2, 3, 1):
                scores = reranker.score("Hvem kan Python?", documents[-number:])
                assert scores.tobytes() == expected[-number:].tobytes()
        print(reranker._loaded.backend._wide is not reranker._loaded.backend._single)
"""


def test_weights_that_are_read_outlive_a_file_that_is_written_over(nano: Path, tmp_path: Path) -> None:
    # In a process of its own: over a mapping, the first access to what is gone ends the process (SIGBUS).
    assert run_script(tmp_path, WRITTEN_OVER, str(nano)).stdout.split() == ["True"]


@needs_proc
def test_weights_that_are_read_are_not_mapped(nano: Path) -> None:
    with Reranker.load(nano, threads=1, map_weights=False) as reranker:
        assert _mapped(nano / WEIGHTS) == 0
        assert reranker.score("a", ["b"]).shape == (1,)


@needs_proc
def test_weights_are_not_copied(tiny: Tiny, nano: Path, tmp_path: Path) -> None:
    # A table of 64 MB that is looked up, and not packed for products, costs no memory of this process.
    source = """
        import sys
        from pathlib import Path
        from raskrank.measure import probe
        from raskrank.onnx_backend import OnnxBackend
        folder, inputs = Path(sys.argv[1]), ("input_ids", "token_type_ids")
        graph, before = (folder / "model.onnx").read_bytes(), probe.memory()["Private_Dirty"]
        backend = OnnxBackend(graph, folder, inputs, concurrency=2, hidden_size=8, groups=True)
        backend._make_wide()
        print(probe.memory()["Private_Dirty"] - before)
    """

    def enlarge(model: ModelProto) -> None:
        table = TensorProto(name="table", data_type=TensorProto.FLOAT, dims=[1 << 20, 16], data_location=TensorProto.EXTERNAL)
        for key, value in (("location", WEIGHTS), ("offset", "0"), ("length", str(64 << 20))):
            table.external_data.add(key=key, value=value)
        model.graph.initializer.append(table)
        model.graph.node.insert(0, helper.make_node("Gather", ["table", "input_ids"], ["looked_up"]))
        model.graph.node.insert(1, helper.make_node("ReduceMax", ["looked_up"], ["largest"], keepdims=0))
        for node in model.graph.node:
            node.output[:] = ["single" if name == "logits" else name for name in node.output]
        model.graph.node.append(helper.make_node("Add", ["single", "largest"], ["logits"]))

    os.truncate(nano / WEIGHTS, 64 << 20)
    bundles.edit_graph(nano, enlarge)
    assert int(run_script(tmp_path, source, str(nano)).stdout) < 32 << 20


# Damage that was signed. It happens in another process, which a crash of onnxruntime or tokenizers would end.

LOAD_EACH = """
    import hashlib, json, resource, sys
    from pathlib import Path
    from raskrank import RaskrankError, Reranker
    from raskrank.manifest import sign

    resource.setrlimit(resource.RLIMIT_AS, (8 << 30, 8 << 30))
    folder, name = Path(sys.argv[1]), sys.argv[2]
    manifest = json.loads((folder / "manifest.json").read_text("utf-8"))
    for file in sorted(Path(sys.argv[3]).iterdir()):
        content = file.read_bytes()
        (folder / name).write_bytes(content)
        manifest["files"][name] = {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        manifest["digest"] = "0" * 64
        (folder / "manifest.json").write_text(sign(json.dumps(manifest)), "utf-8")
        print(file.name, end=" ", flush=True)
        try:
            with Reranker.load(folder, threads=1) as reranker:
                reranker.score("Hvem kan Python?", ["Python og SQL", "", "x" * 300])
            print("loaded", flush=True)
        except RaskrankError as error:
            print(type(error).__name__, flush=True)
"""


def damaged_bytes(original: bytes, dice: random.Random) -> bytes:
    content = bytearray(original)
    for _ in range(dice.choice((1, 1, 2, 4))):
        at = dice.randrange(len(content))
        kind = dice.randrange(6)
        if kind < 4:
            content[at] ^= 1 << dice.randrange(8)
        elif kind == 4:
            del content[at : at + dice.randrange(1, 9)]
        else:
            content[at:at] = dice.randbytes(dice.randrange(1, 9))
    return bytes(content)


def damaged_graph(original: bytes, dice: random.Random) -> bytes:
    """A graph that can be parsed, with one to three things in it that do not fit."""
    model = ModelProto.FromString(original)
    graph = model.graph
    names = [name for node in graph.node for name in (*node.input, *node.output)]
    for _ in range(dice.choice((1, 1, 2, 3))):
        node, tensor = dice.choice(graph.node), dice.choice(graph.initializer)
        kind = dice.randrange(8)
        if kind == 0 and node.input:
            node.input[dice.randrange(len(node.input))] = dice.choice(names)
        elif kind == 1 and node.attribute:
            dice.choice(node.attribute).i = dice.choice((-1, 0, 7, 2**31, 2**63 - 1, -(2**63)))
        elif kind == 2 and tensor.dims:
            tensor.dims[dice.randrange(len(tensor.dims))] = dice.choice((-1, 0, 1, 33, 2**31, 2**40))
        elif kind == 3:
            tensor.data_type = dice.randrange(20)
        elif kind == 4:
            node.op_type = dice.choice(graph.node).op_type
        elif kind == 5 and tensor.external_data:
            dice.choice(tensor.external_data[1:]).value = dice.choice(("-1", "0", "1", "x", "", "4096", str(2**64 - 1)))
        elif kind == 6 and node.input:
            del node.input[dice.randrange(len(node.input)) :]
        else:
            graph.node.remove(node)
    damaged: bytes = model.SerializeToString()
    return damaged


def damaged_tokenizer(original: bytes, dice: random.Random) -> bytes:
    """JSON that can be parsed, with one to three values in it that do not fit."""
    values = json.loads(original)
    for _ in range(dice.choice((1, 1, 2, 3))):
        place = values
        while True:
            key = dice.choice(list(place) if isinstance(place, dict) else range(len(place)))
            if not (isinstance(place[key], dict | list) and place[key]) or dice.random() < 0.2:
                break
            place = place[key]
        if dice.random() < 0.3:
            del place[key]
        else:
            place[key] = dice.choice((None, 0, -1, 2**32 - 5, 2**63, 0.5, "", "[CLS]", "(", [], {}, not place[key]))
    return json.dumps(values).encode()


@pytest.mark.skipif(os.name == "nt", reason="limits memory as Unix does")
@pytest.mark.parametrize(
    ("name", "damage", "count"),
    [
        (MODEL, damaged_bytes, 30),
        (MODEL, damaged_graph, 60),
        (TOKENIZER, damaged_bytes, 20),
        (TOKENIZER, damaged_tokenizer, 60),
    ],
)
def test_signed_damage_loads_or_is_a_raskrank_error(
    folder: Path, tmp_path: Path, name: str, damage: Callable[[bytes, random.Random], bytes], count: int
) -> None:
    original, dice, damaged = (folder / name).read_bytes(), random.Random(f"{name} {damage.__name__}"), tmp_path / "damaged"
    damaged.mkdir()
    for number in range(count):
        (damaged / f"{number:03}").write_bytes(damage(original, dice))
    # Panics of tokenizers are reported on stderr before they reach us.
    finished = run_script(tmp_path, LOAD_EACH, str(folder), name, str(damaged), silent=False)
    outcomes = dict(line.split() for line in finished.stdout.splitlines())
    assert len(outcomes) == count
    assert "Incompatible" in outcomes.values()
    assert set(outcomes.values()) <= {"loaded", "Incompatible"}
