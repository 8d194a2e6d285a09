"""The bytes of a graph, read as onnx reads them, and damage that was signed."""

import json
import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import ModelProto, TensorProto, helper

from conftest import Tiny
from processes import run_script
from raskrank import external
from raskrank.external import MESSAGES, external_tensors, relocate
from raskrank.manifest import MODEL, TOKENIZER

# External data


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
