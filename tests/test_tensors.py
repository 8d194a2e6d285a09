"""Large tensors stay outside a graph's message, whether the exporter wrote one file or several."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from raskrank_export.tensors import MIN_SPILLED_VALUES, read_light, values, write_model

RNG = np.random.default_rng(0)
ROWS = MIN_SPILLED_VALUES // 256 + 1
ARRAYS: dict[str, npt.NDArray[np.generic]] = {
    "table": RNG.random((ROWS, 256), np.float32),  # as an embedding
    "square": RNG.random((600, 600), np.float32),  # as a query's weight, which onnxruntime's fusion reads
    "bias": RNG.random(600, np.float32),
    "shape": np.array([1, -1], np.int64),
}


@pytest.fixture(params=["one file", "external data"])
def file(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    constant = numpy_helper.from_array(np.arange(200, dtype=np.float32), "constant")
    graph = helper.make_graph(
        [helper.make_node("Constant", [], ["c"], value=constant), helper.make_node("Identity", ["c"], ["y"])],
        "graph",
        [],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [200])],
        [numpy_helper.from_array(array, name) for name, array in ARRAYS.items()],
    )
    path = tmp_path / "model.onnx"
    outside = request.param == "external data"  # as optimum saves what is over protobuf's 2 GB
    model = helper.make_model(graph)
    onnx.save(model, str(path), save_as_external_data=outside, location="data", size_threshold=100, convert_attribute=outside)
    return path


def test_the_values_are_the_same_and_the_graph_is_light(file: Path) -> None:
    light = read_light(file)
    found = {tensor.name: tensor for tensor in light.graph.initializer}
    for name, array in ARRAYS.items():
        np.testing.assert_array_equal(values(found[name]), array)
    assert {name for name, tensor in found.items() if tensor.data_location == TensorProto.EXTERNAL} == {"table"}
    assert light.ByteSize() < 1.1 * ARRAYS["square"].nbytes
    np.testing.assert_array_equal(numpy_helper.to_array(light.graph.node[0].attribute[0].t), np.arange(200))


def test_what_is_read_light_is_written_whole(file: Path, tmp_path: Path) -> None:
    (tmp_path / "bundle").mkdir()
    graph, weights = tmp_path / "bundle" / "model.onnx", tmp_path / "bundle" / "model.onnx.data"
    write_model(read_light(file), graph, weights)
    written = {tensor.name: tensor for tensor in onnx.load(str(graph)).graph.initializer}
    for name, array in ARRAYS.items():
        np.testing.assert_array_equal(numpy_helper.to_array(written[name]), array)
