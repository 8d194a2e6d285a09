"""Copies of bundles with something changed, and manifests made to fit the files again."""

import json
import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raskrank.bundle import record
from raskrank.manifest import DIGEST, FILES, MANIFEST, MODEL, TOKENIZER, UNSIGNED
from raskrank.manifest import sign as sign_text

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


def edit_tokenizer(folder: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    """Change the JSON values of the tokenizer in place, and sign. Returns `folder`."""
    values = json.loads((folder / TOKENIZER).read_text("utf-8"))
    change(values)
    (folder / TOKENIZER).write_text(json.dumps(values), "utf-8")
    return sign(folder)
