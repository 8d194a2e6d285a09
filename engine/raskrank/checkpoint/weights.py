"""A checkpoint's weights as the headers of its safetensors files describe them. No tensor is read."""

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from raskrank.checkpoint import modernbert
from raskrank.checkpoint.conversion import Origin, conversion
from raskrank.checkpoint.files import decode_json, is_file, read_bytes, read_json
from raskrank.checkpoint.layouts import STACKED, Layout, stored
from raskrank.checkpoint.modules import Head
from raskrank.checkpoint.suggestion import EXPORTERS, SUGGESTION, original, unsupported
from raskrank.checkpoint.tensors import after_last_layer, expected_tensors, is_head
from raskrank.errors import CheckpointError, NotACrossEncoder
from raskrank.quoting import named, quoted

# A model of 24 layers has a header of 50 kB; safetensors itself stops at 100 MB.
MAX_HEADER_BYTES = 16 * 2**20

_FLOAT_BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}
# The weights files that transformers turns into safetensors without other frameworks.
_CONVERTIBLE = ("pytorch_model.bin", "pytorch_model.bin.index.json")


class Header(NamedTuple):
    """What a safetensors file says of one of its tensors."""

    dtype: str  # as safetensors spells it, "F32"
    shape: tuple[int, ...]
    file: Path


def check_weights(
    folder: Path,
    architecture: str,
    numbers: Mapping[str, Any],
    layout: Layout = "transformers",
    origin: Origin | None = None,
    head: Head | None = None,
) -> int:
    """The number of parameters, once every tensor that the architecture uses is there, in float and in its shape.

    head: what lies in modules of sentence-transformers, if anything does.
    """
    tensors = _renamed(read_headers(folder, origin), folder) if layout == "transformers" else read_headers(folder, origin)
    if head is not None:
        tensors |= head_headers(folder, head, origin)
    parameters, used = 0, set()
    for ours, shape in expected_tensors(architecture, numbers, head):
        name, third = stored(layout, ours)
        if third is not None:
            shape = (STACKED * shape[0], *shape[1:])
        if name in used:
            continue
        used.add(name)
        if name not in tensors:
            if is_head(name):
                raise NotACrossEncoder(
                    f"{folder}: the weights have no classification head ({named(name)} is missing), though config.json says "
                    f"{architecture}. {SUGGESTION}"
                )
            raise CheckpointError(f"{folder}: the weights do not fit config.json: {name} is missing.")
        dtype, found, _ = tensors[name]
        if dtype not in _FLOAT_BYTES:
            raise CheckpointError(f"{folder}: {name} is {named(dtype)}. Export from the float checkpoint, not a quantized one.")
        if found != shape:
            raise CheckpointError(
                f"{folder}: the weights do not fit config.json: {name} has shape {quoted(found)}, expected {quoted(shape)}."
            )
        parameters += math.prod(shape)
    further = after_last_layer(architecture, numbers)
    if any(further in name for name in tensors):
        raise CheckpointError(
            f"{folder}: the weights have more layers than config.json's num_hidden_layers, {numbers['num_hidden_layers']}."
        )
    # Where code which is not run stands for the layout, a tensor too many means that it would compute something else.
    exact: str | None = layout if layout != "transformers" else "modules" if head is not None else None
    unknown = sorted(tensors.keys() - used)
    if architecture == modernbert.CLASSIFIER:  # as a bias is, which config.json says there is none of
        exact, unknown = "ModernBERT", [name for name in unknown if name.startswith(modernbert.PARTS)]
    if exact is not None and unknown:
        raise unsupported(
            f"{folder}: {named(unknown[0])} and {len(unknown) - 1} more tensors are not part of the {exact} layout."
        )
    return parameters


def _renamed(tensors: Mapping[str, Header], folder: Path) -> dict[str, Header]:
    """Under the names that transformers gives them when it loads: older BERT calls a norm's tensors gamma and beta."""
    renamed = {re.sub(r"LayerNorm\.gamma$", "LayerNorm.weight", name): header for name, header in tensors.items()}
    renamed = {re.sub(r"LayerNorm\.beta$", "LayerNorm.bias", name): header for name, header in renamed.items()}
    if len(renamed) != len(tensors):
        raise CheckpointError(f"{folder}: the weights have LayerNorm.gamma or beta beside LayerNorm.weight or bias.")
    return renamed


def head_headers(folder: Path, head: Head, origin: Origin | None = None) -> dict[str, Header]:
    """Each tensor of the modules that make the head, by the module's folder and its name there. origin: for advice."""
    files = {module.folder: folder / module.folder / "model.safetensors" for module in head.modules}
    if missing := next((file for file in files.values() if not is_file(file)), None):
        origin = origin or Origin(str(folder))
        raise CheckpointError(
            f"{missing} is missing. Only safetensors are read, because pickles can run code. {conversion(folder, origin)}"
        )
    return {f"{path}/{name}": header for path, file in files.items() for name, header in _read_header(file).items()}


def read_headers(folder: Path, origin: Origin | None = None) -> dict[str, Header]:
    """Each tensor in model.safetensors, or in the shards that its index lists, by name. origin: for advice."""
    single, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    if is_file(single):
        return _read_header(single)
    if not is_file(index):
        origin = origin or Origin(str(folder))
        exports = [path.relative_to(folder).as_posix() for pattern in ("*.onnx", "*/*.onnx") for path in folder.glob(pattern)]
        if exports or origin.name.lower().startswith(EXPORTERS):
            there = named(", ".join(sorted(exports))) or "ONNX files"
            raise CheckpointError(
                f"{origin.name} has no model.safetensors, only {there}: an export by others, which "
                f"cannot be compared with the weights it was made from. Raskrank makes its own: {original(folder)}."
            )
        patterns = ("pytorch_model*.bin", "*.pt", "*.pth", "*.ckpt", "*.h5", "*.msgpack")
        others = sorted(path.name for pattern in patterns for path in folder.glob(pattern))
        there = f", only {named(', '.join(others))}" if others else ""
        # A hub's pickles are not downloaded, so that there may be one.
        convertible = not others or any(is_file(folder / name) for name in _CONVERTIBLE)
        advice = conversion(folder, origin, pickled=True) if convertible else "Ask whoever made it for safetensors."
        raise CheckpointError(
            f"{origin.name} has no model.safetensors{there}. Only safetensors are read, because pickles can run code. {advice}"
        )
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise CheckpointError(f"{index} is not valid: it has no weight_map.")
    headers: dict[str, dict[str, Header]] = {}
    tensors = {}
    for name, shard in weight_map.items():
        if not isinstance(shard, str) or not re.fullmatch(r"[\w.-]+\.safetensors", shard):
            raise CheckpointError(f"{index} is not valid: {quoted(shard)} is not the name of a file beside it.")
        if shard not in headers:
            headers[shard] = _read_header(folder / shard)
        if name not in headers[shard]:
            raise CheckpointError(f"{index} is not valid: {named(shard)} does not hold {named(name)}.")
        tensors[name] = headers[shard][name]
    return tensors


def _read_header(path: Path) -> dict[str, Header]:
    """Dtype and shape by tensor: 8 little-endian bytes of length, then JSON, then as many bytes as that describes."""
    if not is_file(path):
        raise CheckpointError(f"{path} is missing. Download the model again.")
    prefix = read_bytes(path, 8)
    if prefix == b"version ":
        raise CheckpointError(f"{path} is a Git LFS pointer, not the weights. Run `git lfs pull` in its repository.")
    length, data = int.from_bytes(prefix, "little"), path.stat().st_size - 8
    if len(prefix) < 8 or length > min(MAX_HEADER_BYTES, data):
        raise CheckpointError(f"{path} is not a whole safetensors file. Download it again.")
    header = decode_json(path, read_bytes(path, length, start=8))
    if not isinstance(header, dict):
        raise CheckpointError(f"{path} is not valid: its header is not an object.")
    tensors = {}
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        match entry:
            case {"dtype": str(dtype), "shape": [*shape], "data_offsets": [int(begin), int(end)]} if all(
                isinstance(size, int) and size >= 0 for size in shape
            ):
                tensors[name] = Header(dtype, tuple(shape), path)
            case _:
                raise CheckpointError(f"{path} is not valid: its header does not describe {named(name)}.")
        if not 0 <= begin <= end <= data - length:
            raise CheckpointError(
                f"{path} is cut off: {named(name)} ends at byte {end:,} of {data - length:,}. Download it again."
            )
        if dtype in _FLOAT_BYTES and end - begin != math.prod(shape) * _FLOAT_BYTES[dtype]:
            raise CheckpointError(
                f"{path} is not valid: {named(name)} has {end - begin:,} bytes, which do not fill {quoted(shape)}."
            )
    return tensors
