"""Checkpoints with something changed: keys of their config, the header of their weights, and what a message says to do."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest

from builders import write_json
from raskrank.checkpoint import read_checkpoint
from raskrank.checkpoint.suggestion import SUGGESTION
from raskrank.errors import CheckpointError

SIGMOID = "torch.nn.modules.activation.Sigmoid"
IDENTITY = "torch.nn.modules.linear.Identity"


def edit_json(path: Path, updates: Mapping[str, object]) -> None:
    values = json.loads(path.read_text("utf-8")) | updates
    write_json(path, {key: value for key, value in values.items() if value is not ...})


def check_refused(folder: Path, message: str) -> None:
    """Reading it is an error that says `message`, and of a form that is not supported what to use instead."""
    with pytest.raises(CheckpointError, match=message) as caught:
        read_checkpoint(folder)
    said = str(caught.value)
    form = any(part in said for part in ("not supported", "not part of", "code of its own", "odd width", "its modules give"))
    assert not form or said.endswith(SUGGESTION), said


def read_weights(path: Path) -> tuple[dict[str, Any], bytes]:
    content = path.read_bytes()
    end = 8 + int.from_bytes(content[:8], "little")
    return json.loads(content[8:end]), content[end:]


def write_weights(path: Path, header: Mapping[str, object], data: bytes) -> None:
    encoded = json.dumps(header).encode()
    path.write_bytes(len(encoded).to_bytes(8, "little") + encoded + data)


def drop_tensors(path: Path, names: Iterable[str]) -> None:
    header, data = read_weights(path)
    dropped = set(names)
    assert dropped <= header.keys()
    write_weights(path, {name: entry for name, entry in header.items() if name not in dropped}, data)


def follow(message: str, folder: Path) -> Path:
    """Run the command that a message suggests, as it is, in `folder`; returns what `raskrank export` is to be given."""
    found = re.search(r"(python -c .*) and then: raskrank export (.+) OUTPUT$", message)
    assert found, message
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}", "HF_HUB_OFFLINE": "1"}
    subprocess.run(found[1], shell=True, cwd=folder, env=environment, timeout=120, check=True, capture_output=True)
    return folder.joinpath(*shlex.split(found[2]))


def zero_checkpoint(folder: Path, source: Path) -> Path:
    """A published model's small files with weights that are a hole in a file: right names and shapes, no memory."""
    folder.mkdir()
    for path in source.glob("*.json"):
        if ".variant-" not in path.name:
            shutil.copyfile(path, folder / path.name)
    config = json.loads((folder / "config.json").read_text("utf-8"))
    header: dict[str, object] = {}
    size = 0
    for name, shape in tensor_shapes(config):
        length = 4
        for dimension in shape:
            length *= dimension
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [size, size + length]}
        size += length
    encoded = json.dumps(header).encode()
    with (folder / "model.safetensors").open("wb") as file:
        file.write(len(encoded).to_bytes(8, "little") + encoded)
        file.truncate(8 + len(encoded) + size)
    return folder


def tensor_shapes(config: Mapping[str, Any]) -> list[tuple[str, list[int]]]:
    """Parameters as transformers names them, from the model class itself on the meta device."""
    import torch
    import transformers

    model_class = getattr(transformers, config["architectures"][0])
    with torch.device("meta"):
        model = model_class(model_class.config_class.from_dict(dict(config)))
    return [(name, list(parameter.shape)) for name, parameter in model.named_parameters()]
