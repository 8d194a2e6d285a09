"""The compiled kernels behind ctypes: which of them this CPU can run, and their calls."""

import ctypes
import functools
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from raskrank.backend import Float32Array, Int64Array
from raskrank.kernel_model import LAYOUT, KernelModel
from raskrank.manifest import Encoder

UInt64Array = npt.NDArray[np.uint64]

LIBRARY = Path(__file__).parent / "_kernels.so"
ENGINES = ("amx", "avx512bf16", "avx512", "avxvnni", "avx2")  # best first
EMULATED = ("scalar", "scalar-tiles")  # plain C++ of the others, for tests: never chosen
TILED = ("amx", "scalar-tiles")  # whose attention adds in another order: bits are equal among them, and among all others
# Of a call, in the order of engine.hpp.
STAGES = ("embed", "qkv", "attention", "quantize", "output", "norm", "up", "gelu", "down", "head", "wait")
_ERRORS: dict[int, tuple[type[Exception], str]] = {
    -1: (ValueError, "not one pair"),
    -2: (ValueError, "a token without an embedding"),
    -3: (MemoryError, "no memory for the activations"),
}


class Kernels:
    """A model that the kernels run. `logits` may be called from several threads at once, and in a forked child."""

    def __init__(
        self,
        encoder: Encoder,
        hidden_size: int,
        vocab_size: int,
        tensors: Mapping[str, npt.NDArray[Any]],
        *,
        engine: str | None = None,
    ) -> None:
        """tensors: by the names of docs/bundle-format.md. None is copied: their memory must stay as it is.
        engine: one of `engines()` or of EMULATED. Default: the best.

        Raises ValueError for a tensor that is missing or of another shape or type, and for an engine that cannot run here.
        """
        library, usable = _load(), engines()
        if isinstance(library, str) or (engine is None and not usable):
            raise ValueError(f"there are no kernels: {unavailable()}")
        self.engine = usable[0] if engine is None else engine
        self._library = library
        self._model = KernelModel(encoder, hidden_size, vocab_size, tensors)
        self._handle: int | None = library.rk_create(ctypes.byref(self._model.structure), self.engine.encode())
        if not self._handle:
            raise ValueError(f"the kernels cannot run a model of this shape on {self.engine!r}: {encoder}, width {hidden_size}")
        self._close = threading.Lock()

    def expect(self, helpers: int) -> None:
        """Calls are about to come that so many threads help: they wake up, fetch weights and wait for up to 2 ms."""
        if self._handle is not None:
            self._library.rk_expect(self._handle, helpers + 1)

    def logits(
        self, input_ids: Int64Array, token_type_ids: Int64Array, threads: int = 1, ticks: UInt64Array | None = None
    ) -> Float32Array:
        """float32 (B): the logit of each pair. Both arrays are int64 (B, L), without padding.

        threads: that may share the call. A pair's bits depend on the pair alone, and on whether `engine` has tiles (TILED).
        ticks: uint64 (len(STAGES)), to which the time that the calling thread spent in each stage is added, in one unit.
        Raises MemoryError; ValueError for a token, or a number of tokens, that the model has no embedding for.
        """
        ids, types = (np.ascontiguousarray(array, np.int64) for array in (input_ids, token_type_ids))
        if ids.ndim != 2 or ids.shape != types.shape:
            raise ValueError(f"expected two arrays of the same two dimensions, got {ids.shape} and {types.shape}")
        if self._handle is None:
            raise ValueError("these kernels are closed")
        logits = np.empty(len(ids), np.float32)
        addresses = (array.ctypes.data for array in (ids, types))
        code = self._library.rk_logits(
            self._handle, *addresses, *ids.shape, logits.ctypes.data, threads, None if ticks is None else ticks.ctypes.data
        )
        if code:
            kind, meaning = _ERRORS[code]
            raise kind(f"{meaning}: {ids.shape[0]} pairs of {ids.shape[1]} tokens")
        return logits

    def close(self) -> None:
        """Free what calls used, and end their threads. No call may be under way, and none may follow."""
        with self._close:
            handle, self._handle = self._handle, None
        if handle:
            self._library.rk_destroy(handle)


def unavailable() -> str | None:
    """Why nothing runs on the kernels in this process; None where they can be used."""
    if isinstance(library := _load(), str):
        return library
    return None if engines() else "this CPU has no AVX2"


def engines() -> tuple[str, ...]:
    """Those of ENGINES that this CPU can run, best first."""
    library = _load()
    if isinstance(library, str):
        return ()
    return tuple(name for name in ENGINES if library.rk_usable(name.encode()))


@functools.cache
def _load() -> ctypes.CDLL | str:
    """The library, or why there is none, as a clause."""
    try:
        library = ctypes.CDLL(str(LIBRARY))
    except OSError:  # not built, or built for another system
        return "this installation has none: it came without a compiled library, and no C++ compiler and CMake were found then"
    layout = getattr(library, "rk_layout", None)
    if layout is None or layout() != LAYOUT:
        return "those of this installation were built from another version of Raskrank; install it again"
    pointer, number = ctypes.c_void_p, ctypes.c_int32
    library.rk_usable.argtypes = [ctypes.c_char_p]
    library.rk_create.restype, library.rk_create.argtypes = pointer, [pointer, ctypes.c_char_p]
    library.rk_logits.argtypes = [pointer, pointer, pointer, number, number, pointer, number, pointer]
    library.rk_expect.restype, library.rk_expect.argtypes = None, [pointer, number]
    library.rk_destroy.restype, library.rk_destroy.argtypes = None, [pointer]
    return library
