"""Tensors of a graph: in the graph's own message, or in a file beside it, so that large ones are never held twice."""

import math
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnx.external_data_helper import ExternalDataInfo, load_external_data_for_tensor, set_external_data

from raskrank.kernel_model import PREFIX

MIN_EXTERNAL_BYTES = 1024  # smaller tensors stay in the graph, where shapes and constants are read
MIN_SPILLED_VALUES = 1 << 18  # a smaller tensor, of a megabyte, is not worth a file while passes run
ALIGNMENT = 64  # of each tensor in a weights file: a cache line, for aligned loads from the mapped file


def values(tensor: onnx.TensorProto) -> npt.NDArray[np.generic]:
    """The tensor as an array; one that lies in a file is mapped, not read."""
    if tensor.data_location != TensorProto.EXTERNAL:
        return np.asarray(numpy_helper.to_array(tensor))
    info = ExternalDataInfo(tensor)
    dtype = helper.tensor_dtype_to_np_dtype(tensor.data_type)
    return np.memmap(Path(info.basepath) / info.location, dtype, "r", info.offset or 0, tuple(tensor.dims))


def read_light(file: Path) -> onnx.ModelProto:
    """The graph of an ONNX file with its large tensors left in files: beside it already, or put there now.

    protobuf serializes no message of 2 GB, frees nothing of one before the whole of it, and the passes copy: weights in the
    graph would be in memory several times. The files must stay while the graph is used.
    """
    model, spill = onnx.load(str(file), load_external_data=False), file.with_name("spilled.bin")
    with spill.open("wb") as stream:
        for tensor in model.graph.initializer:
            _leave_outside(tensor, file.parent, stream, spill.name)
        for node in model.graph.node:
            for item in node.attribute:
                take_in(item.t, file.parent)
    light: onnx.ModelProto = onnx.ModelProto.FromString(model.SerializeToString())  # without what was spilled
    return light


def _leave_outside(tensor: onnx.TensorProto, folder: Path, stream: BinaryIO, name: str) -> None:
    # onnxruntime's fusion of attention reads the square weights of query, key and value.
    square = len(tensor.dims) == 2 and tensor.dims[0] == tensor.dims[1]
    if square or math.prod(tensor.dims) < MIN_SPILLED_VALUES:
        take_in(tensor, folder)
    elif tensor.data_location == TensorProto.EXTERNAL:
        info = ExternalDataInfo(tensor)
        _refer(tensor, info.location, info.offset or 0, info.length, folder)
    elif tensor.HasField("raw_data"):
        _refer(tensor, name, _write(stream, tensor.raw_data), len(tensor.raw_data), folder)


def take_in(tensor: onnx.TensorProto, folder: Path) -> None:
    """Read the values of a tensor that lie in a file of `folder` into the graph's own message."""
    if tensor.data_location == TensorProto.EXTERNAL:
        load_external_data_for_tensor(tensor, str(folder))
        tensor.ClearField("external_data")
        tensor.ClearField("data_location")


class Spill:
    """Puts the large tensors of a graph in the making into a file, which must stay while the graph is used."""

    def __init__(self, file: Path) -> None:
        """file: written anew."""
        self._file = file
        file.write_bytes(b"")

    def tensor(self, name: str, array: npt.NDArray[np.generic]) -> onnx.TensorProto:
        if array.size < MIN_SPILLED_VALUES:
            return numpy_helper.from_array(np.asarray(array, order="C"), name)  # a number stays one, of no axes
        tensor = onnx.TensorProto(name=name, data_type=helper.np_dtype_to_tensor_dtype(array.dtype), dims=array.shape)
        with self._file.open("ab") as stream:
            offset = _write(stream, np.ascontiguousarray(array).data.cast("B"))
        _refer(tensor, self._file.name, offset, array.nbytes, self._file.parent)
        return tensor


def _refer(tensor: onnx.TensorProto, location: str, offset: int, length: int | None, folder: Path | None = None) -> None:
    """Let the tensor stand for bytes of a file."""
    tensor.raw_data = b""  # set_external_data wants the field
    set_external_data(tensor, location, offset, length, basepath=None if folder is None else str(folder))
    tensor.ClearField("raw_data")


def replace_values(tensor: onnx.TensorProto, array: npt.NDArray[np.generic], file: Path) -> None:
    """Give `tensor` the shape and values of `array`, of its own type. They are put into `file`, not into the message."""
    with file.open("wb") as stream:
        offset = _write(stream, np.ascontiguousarray(array).data.cast("B"))
    tensor.CopyFrom(onnx.TensorProto(name=tensor.name, data_type=tensor.data_type, dims=array.shape))
    _refer(tensor, file.name, offset, array.nbytes, file.parent)


def write_model(model: onnx.ModelProto, graph_file: Path, weights_file: Path) -> None:
    """Write the graph and, beside it, its weights. The model stays as it is. Both files are written anew, never in place."""
    light = onnx.ModelProto(
        ir_version=model.ir_version,
        producer_name=model.producer_name,
        producer_version=model.producer_version,
        opset_import=model.opset_import,
        metadata_props=model.metadata_props,
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
        if array.nbytes < MIN_EXTERNAL_BYTES and not tensor.name.startswith(PREFIX):  # the kernels read from the file alone
            yield tensor
            continue
        placed = onnx.TensorProto(name=tensor.name, data_type=tensor.data_type, dims=array.shape)
        _refer(placed, location, _write(stream, np.ascontiguousarray(array).data.cast("B")), array.nbytes)
        yield placed


def _write(stream: BinaryIO, data: bytes | memoryview) -> int:
    """Append bytes, aligned. Returns their offset."""
    stream.write(b"\0" * (-stream.tell() % ALIGNMENT))
    offset = stream.tell()
    stream.write(data)
    return offset
