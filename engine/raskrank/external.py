"""Which files an ONNX graph takes its weights from, read without the onnx package. onnxruntime would open whatever it names."""

from collections.abc import Iterator

# The messages of onnx.proto that lead to TensorProto.external_data, by field number. Other fields are passed over.
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
    "TensorProto": {13: "StringStringEntryProto"},
}
_KEY, _VALUE = 1, 2
_MAX_TAG = 1 << 32


def locations(graph: bytes) -> set[str]:
    """Every "location" in a serialized ModelProto's external data. Raises ValueError if the bytes are no protobuf message."""
    found: set[str] = set()
    waiting = [("ModelProto", memoryview(graph))]
    while waiting:
        message, data = waiting.pop()
        if message == "StringStringEntryProto":
            entry = {field: bytes(part) for field, part in _parts(data)}  # the last of equal fields counts
            if entry.get(_KEY) == b"location":
                found.add(entry.get(_VALUE, b"").decode(errors="replace"))
            continue
        children = MESSAGES[message]
        waiting += [(children[field], part) for field, part in _parts(data) if field in children]
    return found


def _parts(data: memoryview) -> Iterator[tuple[int, memoryview]]:
    """Number and content of each field that has a length: strings, bytes, messages."""
    position = 0
    while position < len(data):
        tag, position = _varint(data, position)
        kind, start = tag & 7, position
        if kind == 2:
            size, start = _varint(data, position)
            position = start + size
        elif kind == 0:
            _, position = _varint(data, position)
        elif kind in (1, 5):
            position += 8 if kind == 1 else 4
        else:
            raise ValueError(f"wire type {kind} is not used by onnx")
        if position > len(data) or tag >= _MAX_TAG:
            raise ValueError("a field runs past the end of its message")
        if kind == 2:
            yield tag >> 3, data[start:position]


def _varint(data: memoryview, position: int) -> tuple[int, int]:
    """A number of seven bits a byte, the lowest first, and the position after it."""
    number = 0
    for index, byte in enumerate(data[position : position + 10]):
        number |= (byte & 127) << 7 * index
        if byte < 128:
            return number, position + index + 1
    raise ValueError("a number does not end")
