"""Tensors of a graph: in the graph's own message, or in a file beside it, so that large ones are never held twice."""

from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnx.external_data_helper import ExternalDataInfo, set_external_data

MIN_EXTERNAL_BYTES = 1024  # smaller tensors stay in the graph, where shapes and constants are read
MIN_TABLE_BYTES = 1 << 20  # an embedding below it is not worth a file while passes run
ALIGNMENT = 64  # of each tensor in a weights file: a cache line, for aligned loads from the mapped file


def values(tensor: onnx.TensorProto) -> npt.NDArray[np.generic]:
    """The tensor as an array; one that lies in a file is mapped, not read."""
    if tensor.data_location != TensorProto.EXTERNAL:
        return np.asarray(numpy_helper.to_array(tensor))
    info = ExternalDataInfo(tensor)
    dtype = helper.tensor_dtype_to_np_dtype(tensor.data_type)
    return np.memmap(Path(info.basepath) / info.location, dtype, "r", info.offset or 0, tuple(tensor.dims))


def detach_tables(model: onnx.ModelProto, file: Path) -> onnx.ModelProto:
    """Move the embedding tables of a graph to a file. Returns the light model; `model` is of no further use.

    In XLM-R they are two thirds of all weights. protobuf frees nothing of a message before the whole of it, and the passes
    copy, so that a table left in the graph would be in memory several times.
    """
    tables = {node.input[0] for node in model.graph.node if node.op_type == "Gather"}
    with file.open("wb") as stream:
        for tensor in model.graph.initializer:
            if tensor.name in tables and len(tensor.raw_data) >= MIN_TABLE_BYTES:
                offset = _write(stream, tensor.raw_data)
                set_external_data(tensor, file.name, offset, len(tensor.raw_data), basepath=str(file.parent))
                tensor.ClearField("raw_data")
    light: onnx.ModelProto = onnx.ModelProto.FromString(model.SerializeToString())
    return light


def write_model(model: onnx.ModelProto, graph_file: Path, weights_file: Path) -> None:
    """Write the graph and, beside it, its weights. The model stays as it is. Both files are written anew, never in place."""
    light = onnx.ModelProto(
        ir_version=model.ir_version,
        producer_name=model.producer_name,
        producer_version=model.producer_version,
        opset_import=model.opset_import,
    )
    light.graph.name = model.graph.name
    light.graph.node.extend(model.graph.node)
    light.graph.input.extend(model.graph.input)
    light.graph.output.extend(model.graph.output)
    for file in (graph_file, weights_file):
        file.unlink(missing_ok=True)
    with weights_file.open("wb") as stream:
        light.graph.initializer.extend(_placed(model.graph.initializer, stream, weights_file.name))
    graph_file.write_bytes(light.SerializeToString(deterministic=True))


def _placed(tensors: Iterable[onnx.TensorProto], stream: BinaryIO, location: str) -> Iterable[onnx.TensorProto]:
    for tensor in tensors:
        array = values(tensor)
        if array.nbytes < MIN_EXTERNAL_BYTES:
            yield tensor
            continue
        placed = onnx.TensorProto(name=tensor.name, data_type=tensor.data_type, dims=tensor.dims, raw_data=b"")
        set_external_data(placed, location, _write(stream, np.ascontiguousarray(array).data.cast("B")), array.nbytes)
        placed.ClearField("raw_data")
        yield placed


def _write(stream: BinaryIO, data: bytes | memoryview) -> int:
    """Append bytes, aligned. Returns their offset."""
    stream.write(b"\0" * (-stream.tell() % ALIGNMENT))
    offset = stream.tell()
    stream.write(data)
    return offset
