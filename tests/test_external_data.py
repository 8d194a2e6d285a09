"""Where the weights of a graph may lie, and what may be said of them."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import ModelProto, TensorProto, helper

import bundles
from bundles import backend
from raskrank import Incompatible, Reranker
from raskrank.external import relocate
from raskrank.manifest import MODEL, WEIGHTS

FREE = ["batch_size", "sequence_length"]


IDS: tuple[int, list[Any]] = (TensorProto.INT64, FREE)
LOGITS: tuple[int, list[Any]] = (TensorProto.FLOAT, ["batch_size", 1])


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


def test_another_name_for_the_file_changes_nothing_else(folder: Path) -> None:
    graph = (folder / MODEL).read_bytes()
    assert relocate(graph, WEIGHTS) == graph
    expected = ModelProto.FromString(graph)
    for tensor in expected.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = "æ" * 200
    assert ModelProto.FromString(relocate(graph, "æ" * 200)) == expected
