"""Runs a bundle's encoder in our own kernels."""

import weakref
from pathlib import Path
from typing import Self

import numpy as np

from raskrank import kernels
from raskrank.backend import TOKEN_TYPE_IDS, Float32Array, Int64Array
from raskrank.bundle import Bundle
from raskrank.contents import Contents
from raskrank.errors import Incompatible, InferenceError
from raskrank.kernels import Kernels
from raskrank.manifest import MODEL, WEIGHTS, Encoder, Manifest
from raskrank.process.memory import shortage
from raskrank.weights import weight_tensors


def why_not(manifest: Manifest) -> str | None:
    """Why the kernels cannot run a bundle here; None where they can."""
    if reason := kernels.unavailable():
        return reason
    if manifest.encoder is None:
        return "the bundle was made for onnxruntime alone"
    return None


class NativeBackend:
    """One model for any number of runs at a time. The weights are used where they are, mapped or read."""

    name = "native"
    groups = True
    min_share = 500_000  # about a tenth of a millisecond on one core, a few times as long as waking another takes

    def __init__(
        self,
        graph: bytes,
        folder: Path,
        inputs: tuple[str, ...],
        *,
        concurrency: int,
        hidden_size: int,
        vocab_size: int,
        encoder: Encoder,
        weights: Contents | None = None,
        engine: str | None = None,
    ) -> None:
        """graph, folder, inputs, weights: as in OnnxBackend. encoder: as the manifest describes it.
        engine: one of `kernels.engines()`. Default: the first of them.

        Raises Incompatible if the weights are not those of such an encoder, or the kernels cannot run here; OSError if there
        are none.
        """
        self.concurrency, self.hidden_size = concurrency, hidden_size
        self.max_length = encoder.positions - encoder.position_offset
        self._types = TOKEN_TYPE_IDS in inputs
        self._weights = Contents(folder / WEIGHTS) if weights is None else weights
        tensors = weight_tensors(graph, folder, self._weights)
        try:
            self._kernels = Kernels(
                encoder,
                hidden_size,
                vocab_size,
                tensors,
                engine=engine,
            )
        except ValueError as error:
            raise Incompatible(f"{folder / MODEL} is not the encoder that its manifest describes: {error}") from error
        self.engine = self._kernels.engine
        self._end = weakref.finalize(self, self._kernels.close)  # of one that nobody closes, too
        self._end.atexit = False

    @classmethod
    def of_bundle(cls, bundle: Bundle, concurrency: int, *, engine: str | None = None) -> Self:
        """The backend of a bundle whose files are verified. Raises as the constructor does."""
        manifest = bundle.manifest
        if (reason := why_not(manifest)) or manifest.encoder is None:
            raise Incompatible(f"{bundle.folder}: {reason}")
        return cls(
            bundle.graph,
            bundle.folder,
            manifest.inputs,
            concurrency=concurrency,
            hidden_size=manifest.hidden_size,
            vocab_size=manifest.vocab_size,
            encoder=manifest.encoder,
            weights=bundle.weights,
            engine=engine,
        )

    def logits(self, input_ids: Int64Array, token_type_ids: Int64Array, *, threads: int = 1) -> Float32Array:
        self._weights.check()
        types = token_type_ids if self._types else np.zeros_like(token_type_ids)
        try:
            return self._kernels.logits(input_ids, types, threads)
        except (MemoryError, ValueError) as error:
            shape = " x ".join(map(str, input_ids.shape))
            raise InferenceError(f"the kernels failed on a run of {shape} tokens: {error}{shortage(error)}") from error

    def expect(self, helpers: int) -> None:
        self._kernels.expect(helpers)

    def close(self) -> None:
        self._end()
        del self._kernels, self._weights
