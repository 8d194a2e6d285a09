"""Copies of bundles with something changed, and manifests made to fit the files again."""

import json
import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tokenizers import Tokenizer

from raskrank.bundle import record
from raskrank.manifest import DIGEST, FILES, MANIFEST, MODEL, TOKENIZER, UNSIGNED, WEIGHTS
from raskrank.manifest import sign as sign_text
from raskrank.network import Network
from raskrank.onnx_backend import OnnxBackend

if TYPE_CHECKING:
    from onnx import ModelProto


def copy_bundle(source: Path, target: Path) -> Path:
    """A copy that may be changed. Returns `target`."""
    target.mkdir(parents=True)
    for name in (*FILES, MANIFEST):
        shutil.copyfile(source / name, target / name)
    return target


def read(folder: Path) -> dict[str, Any]:
    """The manifest as JSON values."""
    values: dict[str, Any] = json.loads((folder / MANIFEST).read_text("utf-8"))
    return values


def text_of(values: dict[str, Any]) -> str:
    """The text of a manifest of these values, with a digest of itself that fits."""
    return sign_text(json.dumps({**values, DIGEST: UNSIGNED}))


def write(folder: Path, values: dict[str, Any]) -> None:
    """`values` as the manifest, whatever they are, with a digest of itself that fits."""
    (folder / MANIFEST).write_text(text_of(values), "utf-8")


def edit(folder: Path, **updates: object) -> Path:
    """Replace keys of the manifest; two underscores lead into an object, `source__model="x"`. Returns `folder`."""
    values = read(folder)
    for key, value in updates.items():
        *parents, last = key.split("__")
        place = values
        for parent in parents:
            place = place[parent]
        place[last] = value
    write(folder, values)
    return folder


def sign(folder: Path) -> Path:
    """Make the manifest fit the files as they are, as whoever made the bundle could. Returns `folder`."""
    return edit(folder, files={name: asdict(record(folder / name)) for name in FILES})


def edit_graph(folder: Path, change: Callable[["ModelProto"], object]) -> Path:
    """Change the graph in place, its weights left where they are, and sign. Returns `folder`."""
    import onnx

    model = onnx.load(str(folder / MODEL), load_external_data=False)
    change(model)
    (folder / MODEL).write_bytes(model.SerializeToString())
    return sign(folder)


def break_word(folder: Path, word: str) -> Path:
    """Make NaN of the embedding of a word, in a bundle in fp32, and sign. Returns `folder`."""
    import numpy as np
    import onnx

    token = Tokenizer.from_file(str(folder / TOKENIZER)).token_to_id(word)
    assert token is not None
    graph = onnx.load(str(folder / MODEL), load_external_data=False).graph
    (embeddings,) = (tensor for tensor in graph.initializer if "word_embeddings" in tensor.name)
    place = {entry.key: entry.value for entry in embeddings.external_data}
    assert place["location"] == WEIGHTS
    rows = np.memmap(folder / WEIGHTS, np.float32, "r+", int(place["offset"]), tuple(embeddings.dims))  # (V, H)
    rows[token] = np.nan
    rows.flush()
    return sign(folder)


def damage(folder: Path, file: str = WEIGHTS) -> Path:
    """Change one bit in the middle of a file, and sign nothing. Returns `folder`."""
    data = bytearray((folder / file).read_bytes())
    data[len(data) // 2] ^= 1
    (folder / file).write_bytes(data)
    return folder


def edit_tokenizer(folder: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    """Change the JSON values of the tokenizer in place, and sign. Returns `folder`."""
    values = json.loads((folder / TOKENIZER).read_text("utf-8"))
    change(values)
    (folder / TOKENIZER).write_text(json.dumps(values), "utf-8")
    return sign(folder)


INPUTS = ("input_ids", "token_type_ids")


def backend(folder: Path, inputs: tuple[str, ...] = INPUTS, *, concurrency: int = 1) -> OnnxBackend:
    return OnnxBackend(Network.read(folder, inputs, hidden_size=32), concurrency)
