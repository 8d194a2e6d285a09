"""The tensors of a graph that lie in the weights' file, as arrays over its very bytes: none is copied."""

import reprlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from raskrank.contents import Contents
from raskrank.errors import Incompatible
from raskrank.external import External, external_tensors
from raskrank.manifest import MODEL, WEIGHTS


def weight_tensors(graph: bytes, folder: Path, contents: Contents) -> dict[str, npt.NDArray[Any]]:
    """Read-only arrays by name, which keep `contents` alive. graph: model.onnx's bytes. folder: named in errors.

    Raises Incompatible where the graph wants weights from another file than the one that the manifest has a digest of, or from
    beyond its end.
    """
    return {tensor.name: _array(tensor, contents) for tensor in _checked(graph, folder, len(contents))}


def _array(tensor: External, contents: Contents) -> npt.NDArray[Any]:
    part = contents.view[tensor.offset : tensor.offset + tensor.length]
    return np.frombuffer(part, tensor.dtype).reshape(tensor.shape)


def _checked(graph: bytes, folder: Path, size: int) -> list[External]:
    try:
        found = external_tensors(graph)
    except ValueError as error:
        raise Incompatible(f"{folder / MODEL} is not an ONNX graph of a bundle: {error}") from None
    if others := {tensor.location for tensor in found} - {WEIGHTS}:
        raise Incompatible(f"{folder / MODEL} wants weights from {reprlib.repr(sorted(others))}, allowed is {WEIGHTS} alone")
    for tensor in found:
        if tensor.offset + tensor.length > size:
            raise Incompatible(
                f"{folder / MODEL} wants {tensor.length} bytes from {tensor.offset} of {WEIGHTS}, which has {size}"
            )
    return found
