"""Which tensors of an ONNX graph lie in the weights file, read without the onnx package.

onnxruntime would open whatever file a graph names, and map it itself. Here the graph may name one file, whose bytes were
checked, and these records say which of its bytes are which tensor.
"""

import math
import reprlib
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

# The messages of onnx.proto that lead to TensorProto, by field number. Other fields are passed over.
MESSAGES = {
    "ModelProto": {7: "GraphProto", 20: "TrainingInfoProto", 25: "FunctionProto"},
    "TrainingInfoProto": {1: "GraphProto", 2: "GraphProto"},
    "GraphProto": {1: "NodeProto", 5: "TensorProto", 15: "SparseTensorProto"},
    "FunctionProto": {7: "NodeProto", 11: "AttributeProto"},
    "NodeProto": {5: "AttributeProto"},
    "AttributeProto": {
        5: "TensorProto",
        6: "GraphProto",
        10: "TensorProto",
        11: "GraphProto",
        22: "SparseTensorProto",
        23: "SparseTensorProto",
    },
    "SparseTensorProto": {1: "TensorProto", 2: "TensorProto"},
}
_GRAPH, _INITIALIZER = 7, 5  # of ModelProto, of GraphProto: the only way to tensors that may lie in the weights file
_DIMS, _DATA_TYPE, _NAME, _EXTERNAL_DATA, _DATA_LOCATION = 1, 2, 8, 13, 14  # of TensorProto
_KEY, _VALUE = 1, 2  # of StringStringEntryProto
_KEYS = {"location", "offset", "length"}
_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5  # wire types
_MAX_TAG = 1 << 32
_MAX_DIGITS = 18  # of an offset or a length: below 2^63
_MAX_DIMENSIONS = 16  # no operator takes more, and the product of very many would take long
# TensorProto.DataType to NumPy's name. Texts and what NumPy does not have may not lie outside of the graph.
DTYPES = {
    1: "float32",
    2: "uint8",
    3: "int8",
    4: "uint16",
    5: "int16",
    6: "int32",
    7: "int64",
    9: "bool",
    10: "float16",
    11: "float64",
    12: "uint32",
    13: "uint64",
}


class External(NamedTuple):
    """A tensor in the weights file: `length` bytes from `offset`, little-endian."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    location: str
    offset: int
    length: int


class _Field(NamedTuple):
    number: int
    kind: int
    value: int  # of a varint
    content: memoryview  # of a field with a length: text, bytes, message
    whole: memoryview  # with its tag


def external_tensors(graph: bytes) -> list[External]:
    """The tensors of a serialized ModelProto whose values lie in a file.

    Raises ValueError if the bytes are no protobuf message; if such a tensor is no initializer of the graph itself, shares its
    name with another, or is described ambiguously or in contradiction.
    """
    found: list[External] = []
    names: list[bytes] = []
    waiting = [("ModelProto", memoryview(graph), True)]
    while waiting:
        message, data, outermost = waiting.pop()
        children = MESSAGES[message]
        for field in _fields(data):
            child = children.get(field.number)
            if child is None or field.kind != _LENGTH:
                continue
            if child != "TensorProto":
                waiting.append((child, field.content, outermost and (message, field.number) == ("ModelProto", _GRAPH)))
                continue
            name, external = _tensor(field.content)
            if outermost and (message, field.number) == ("GraphProto", _INITIALIZER):
                names.append(name)
                found += [external] if external else []
            elif external:
                raise ValueError(f"{reprlib.repr(external.name)} is no initializer of the graph, and wants weights from a file")
    if found and len(set(names)) != len(names):
        raise ValueError("two initializers have the same name")
    return found


def relocate(graph: bytes, location: str) -> bytes:
    """The graph with another name for the file of all of its external tensors. It must have passed `external_tensors`."""
    entry = _with_length(_KEY, b"location") + _with_length(_VALUE, location.encode())

    def rewritten(data: memoryview, path: tuple[int, ...]) -> bytes:
        parts = []
        for field in _fields(data):
            if not path or field.kind != _LENGTH or field.number != path[0]:
                parts.append(bytes(field.whole))
            elif len(path) > 1:
                parts.append(_with_length(field.number, rewritten(field.content, path[1:])))
            else:
                key, _ = _entry(field.content)
                parts.append(_with_length(field.number, entry) if key == "location" else bytes(field.whole))
        return b"".join(parts)

    return rewritten(memoryview(graph), (_GRAPH, _INITIALIZER, _EXTERNAL_DATA))


def _tensor(data: memoryview) -> tuple[bytes, External | None]:
    """Name and, if its values lie in a file, the description of a TensorProto."""
    name, data_type, outside, shape = b"", 0, False, list[int]()
    entries: list[tuple[str, str]] = []
    for field in _fields(data):
        at = (field.number, field.kind)  # the last of equal fields counts, and one of another kind is none
        if at == (_NAME, _LENGTH):
            name = bytes(field.content)
        elif at == (_EXTERNAL_DATA, _LENGTH):
            entries.append(_entry(field.content))
        elif at == (_DIMS, _LENGTH):
            shape += _numbers(field.content)
        elif at == (_DIMS, _VARINT):
            shape.append(field.value)
        elif at == (_DATA_TYPE, _VARINT):
            data_type = field.value
        elif at == (_DATA_LOCATION, _VARINT):
            outside = field.value != 0
    if not outside and not entries:
        return name, None
    return name, _external(name, data_type, shape, entries if outside else [])


def _external(name: bytes, data_type: int, shape: list[int], entries: list[tuple[str, str]]) -> External:
    text, values = name.decode(), dict(entries)
    shown, size = reprlib.repr(text), {key: _decimal(values.get(key, "")) for key in ("offset", "length")}
    offset, length = size["offset"], size["length"]
    if not text or "\0" in text:
        raise ValueError(f"{shown} is no name for a tensor in a file")
    if len(values) != len(entries) or set(values) != _KEYS or offset is None or length is None:
        raise ValueError(f"{shown} does not say in one way which bytes of a file it is")
    if data_type not in DTYPES:
        raise ValueError(f"{shown} is of data type {data_type}, which may not lie in a file")
    item = np.dtype(DTYPES[data_type]).itemsize
    if len(shape) > _MAX_DIMENSIONS or math.prod(shape) * item != length or offset % item:
        raise ValueError(f"{shown}: {length} bytes from {offset} are no {DTYPES[data_type]} of shape {reprlib.repr(shape)}")
    return External(text, DTYPES[data_type], tuple(shape), values["location"], offset, length)


def _entry(data: memoryview) -> tuple[str, str]:
    parts = {field.number: bytes(field.content) for field in _fields(data) if field.kind == _LENGTH}
    return parts.get(_KEY, b"").decode(errors="replace"), parts.get(_VALUE, b"").decode(errors="replace")


def _decimal(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdecimal() and len(text) <= _MAX_DIGITS else None


def _numbers(data: memoryview) -> list[int]:
    """Varints one after the other."""
    numbers, position = [], 0
    while position < len(data):
        number, position = _varint(data, position)
        numbers.append(number)
    return numbers


def _fields(data: memoryview) -> Iterator[_Field]:
    position = 0
    while position < len(data):
        begin, value = position, 0
        tag, position = _varint(data, position)
        kind, start = tag & 7, position
        if kind == _LENGTH:
            size, start = _varint(data, position)
            position = start + size
        elif kind == _VARINT:
            value, position = _varint(data, position)
        elif kind in (_FIXED64, _FIXED32):
            position += 8 if kind == _FIXED64 else 4
        else:
            raise ValueError(f"wire type {kind} is not used by onnx")
        if position > len(data) or tag >= _MAX_TAG:
            raise ValueError("a field runs past the end of its message")
        yield _Field(tag >> 3, kind, value, data[start:position], data[begin:position])


def _varint(data: memoryview, position: int) -> tuple[int, int]:
    """A number of seven bits a byte, the lowest first, and the position after it."""
    number = 0
    for index, byte in enumerate(data[position : position + 10]):
        number |= (byte & 127) << 7 * index
        if byte < 128:
            return number, position + index + 1
    raise ValueError("a number does not end")


def _with_length(number: int, content: bytes) -> bytes:
    return _digits(number << 3 | _LENGTH) + _digits(len(content)) + content


def _digits(number: int) -> bytes:
    """As `_varint` reads it."""
    digits = []
    while number > 127:
        digits.append(number & 127 | 128)
        number >>= 7
    return bytes([*digits, number])
