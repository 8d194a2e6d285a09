"""Runs a bundle's encoder in our own kernels."""

import weakref

import numpy as np

from raskrank import kernels
from raskrank.backend import TOKEN_TYPE_IDS, Float32Array, Int64Array
from raskrank.errors import Incompatible, InferenceError
from raskrank.kernels import Kernels
from raskrank.manifest import MODEL, Encoder
from raskrank.network import Network
from raskrank.process.memory import shortage
from raskrank.weights import weight_tensors


def why_not(encoder: Encoder | None) -> str | None:
    """Why the kernels cannot run a bundle with this encoder here; None where they can."""
    if reason := kernels.unavailable():
        return reason
    if encoder is None:
        return "the bundle was made for onnxruntime alone"
    return None


class NativeBackend:
    """One model for any number of runs at a time. The weights are used where they are, mapped or read."""

    name = "native"
    groups = True
    min_share = 500_000  # about a tenth of a millisecond on one core, a few times as long as waking another takes

    def __init__(self, network: Network, concurrency: int, *, engine: str | None = None) -> None:
        """engine: one of `kernels.engines()`. Default: the first of them.

        Raises Incompatible if the kernels cannot run the network here, or its weights are not those of its encoder.
        """
        encoder, folder = network.encoder, network.folder
        if (reason := why_not(encoder)) or encoder is None:
            raise Incompatible(f"{folder}: {reason}")
        self.concurrency, self.hidden_size = concurrency, network.hidden_size
        self.max_length = encoder.positions - encoder.position_offset
        self._types, self._weights = TOKEN_TYPE_IDS in network.inputs, network.weights
        tensors = weight_tensors(network.graph, folder, self._weights)
        try:
            self._kernels = Kernels(encoder, network.hidden_size, network.vocab_size, tensors, engine=engine)
        except ValueError as error:
            raise Incompatible(f"{folder / MODEL} is not the encoder that its manifest describes: {error}") from error
        self.engine = self._kernels.engine
        self._end = weakref.finalize(self, self._kernels.close)  # of one that nobody closes, too
        self._end.atexit = False

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
