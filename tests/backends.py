"""Tests of what both backends of a bundle promise, run over each of them."""

from collections.abc import Callable
from typing import Any

import pytest

from raskrank import kernels
from raskrank.backend import Float32Array, Int64Array
from raskrank.native_backend import NativeBackend
from raskrank.onnx_backend import OnnxBackend

needs_kernels = pytest.mark.skipif(kernels.unavailable() is not None, reason=f"needs the kernels: {kernels.unavailable()}")
chosen = pytest.param(None, marks=needs_kernels, id="native where it can")
# The mark of a module, or of a test, for whose time `Reranker.load` by itself takes onnxruntime, and then what it
# chooses: the kernels, but for a bundle in fp32.
BOTH = pytest.mark.parametrize("bundle_backend", ["onnx", chosen], indirect=True, scope="module")
# The same in a process of its own, at the beginning of its script: BACKEND is what the fixture `bundle_backend` sets.
BACKEND = """
import os
from raskrank import Reranker
Reranker.load.__func__.__kwdefaults__["backend"] = os.environ["BACKEND"] or None
"""


def note_runs(patch: pytest.MonkeyPatch, note: Callable[[tuple[int, ...]], object]) -> None:
    """Call `note` with the shape of each run, before the real backend makes it."""

    def noting(real: Callable[..., Float32Array]) -> Callable[..., Float32Array]:
        def logits(self: object, ids: Int64Array, types: Int64Array, **options: Any) -> Float32Array:
            note(ids.shape)
            return real(self, ids, types, **options)

        return logits

    for backend in (OnnxBackend, NativeBackend):
        patch.setattr(backend, "logits", noting(backend.logits))
