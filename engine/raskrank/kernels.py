"""The compiled kernels behind ctypes: which of them this CPU can run, and a model's weights handed to them where they lie."""

import ctypes
import functools
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from raskrank.backend import Float32Array, Int64Array
from raskrank.manifest import Encoder, HeadActivation

UInt64Array = npt.NDArray[np.uint64]

LIBRARY = Path(__file__).parent / "_kernels.so"
PREFIX = "encoder/"  # of the names of tensors that the kernels read
GROUP = 64  # channels of an activation that share a range, and weights of a column that share a scale
ENGINES = ("amx", "avx512bf16", "avx512", "avxvnni", "avx2")  # best first
EMULATED = ("scalar", "scalar-tiles")  # plain C++ of the others, for tests: never chosen
TILED = ("amx", "scalar-tiles")  # whose attention adds in another order: bits are equal among them, and among all others
_HEAD_ACTIVATIONS: tuple[HeadActivation, ...] = ("tanh", "gelu", "relu")  # in the order of model.hpp
# Of a call, in the order of engine.hpp.
STAGES = ("embed", "qkv", "attention", "quantize", "output", "norm", "up", "gelu", "down", "head", "wait")
_ERRORS: dict[int, tuple[type[Exception], str]] = {
    -1: (ValueError, "not one pair"),
    -2: (ValueError, "a token without an embedding"),
    -3: (MemoryError, "no memory for the activations"),
}


class _Product(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("weights", "scales", "bias")),
        ("scale_stride", ctypes.c_int64),
        ("inner", ctypes.c_int32),
        ("columns", ctypes.c_int32),
    )


class _Norm(ctypes.Structure):
    _fields_ = (("gamma", ctypes.c_void_p), ("beta", ctypes.c_void_p))


class _Table(ctypes.Structure):
    _fields_ = (("rows", ctypes.c_void_p), ("scales", ctypes.c_void_p), ("count", ctypes.c_int64))


class _Layer(ctypes.Structure):
    _fields_ = (
        *((name, _Product) for name in ("query", "key", "value", "output")),
        ("attention_norm", _Norm),
        ("up", _Product),
        ("down", _Product),
        ("output_norm", _Norm),
    )


class _Model(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_int32) for name in ("layers", "hidden", "heads", "intermediate")),
        *((name, ctypes.c_int32) for name in ("position_offset", "skipped_id", "head_activation")),
        *((name, ctypes.c_float) for name in ("epsilon", "logit_bias")),
        *((name, _Table) for name in ("words", "positions", "types")),
        ("norm", _Norm),
        *((name, ctypes.c_void_p) for name in ("head", "head_bias", "logit")),
        ("layer", ctypes.POINTER(_Layer)),
    )


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
        self._model = _Reader(encoder, hidden_size, vocab_size, tensors)
        self._handle: int | None = library.rk_create(ctypes.byref(self._model.model), self.engine.encode())
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
    if layout is None or layout() != 1000 * ctypes.sizeof(_Model) + ctypes.sizeof(_Layer):  # it would read wrong addresses
        return "those of this installation were built from another version of Raskrank; install it again"
    pointer, number = ctypes.c_void_p, ctypes.c_int32
    library.rk_usable.argtypes = [ctypes.c_char_p]
    library.rk_create.restype, library.rk_create.argtypes = pointer, [pointer, ctypes.c_char_p]
    library.rk_logits.argtypes = [pointer, pointer, pointer, number, number, pointer, number, pointer]
    library.rk_expect.restype, library.rk_expect.argtypes = None, [pointer, number]
    library.rk_destroy.restype, library.rk_destroy.argtypes = None, [pointer]
    return library


class _Reader:
    """The C structure of a model, each tensor checked before its address is taken."""

    def __init__(self, encoder: Encoder, hidden_size: int, vocab_size: int, tensors: Mapping[str, npt.NDArray[Any]]) -> None:
        self._tensors = tensors  # kept: the structure has their addresses
        self._hidden, self._intermediate = hidden_size, encoder.intermediate
        self._layers = (_Layer * encoder.layers)(*(self._layer(index, encoder.layers) for index in range(encoder.layers)))
        self.model = _Model(
            layers=encoder.layers,
            hidden=hidden_size,
            heads=encoder.heads,
            intermediate=encoder.intermediate,
            position_offset=encoder.position_offset,
            skipped_id=-1 if encoder.skipped_id is None else encoder.skipped_id,
            head_activation=_HEAD_ACTIVATIONS.index(encoder.head_activation),
            epsilon=encoder.epsilon,
            logit_bias=float(self._array("logit/bias", np.float32, (1,))[0]),
            words=self._table("words", vocab_size),
            positions=self._table("positions", encoder.positions),
            types=self._table("types", encoder.types) if encoder.types else _Table(),
            norm=self._norm("norm"),
            head=self._address("head/weight", np.float32, (hidden_size, hidden_size)),
            head_bias=self._address("head/bias", np.float32, (hidden_size,)),
            logit=self._address("logit/weight", np.float32, (1, hidden_size)),
            layer=self._layers,
        )

    def _layer(self, index: int, layers: int) -> _Layer:
        hidden, wide, name = self._hidden, self._intermediate, str(index)
        if index + 1 < layers:
            query, key, value = self._products(f"{name}/qkv", hidden, hidden, 3)
        else:
            (query,) = self._products(f"{name}/q", hidden, hidden, 1)
            key, value = self._products(f"{name}/kv", hidden, hidden, 2)
        return _Layer(
            query=query,
            key=key,
            value=value,
            output=self._products(f"{name}/output", hidden, hidden, 1)[0],
            attention_norm=self._norm(f"{name}/norm1"),
            up=self._products(f"{name}/up", hidden, wide, 1)[0],
            down=self._products(f"{name}/down", wide, hidden, 1)[0],
            output_norm=self._norm(f"{name}/norm2"),
        )

    def _products(self, name: str, inner: int, columns: int, count: int) -> list[_Product]:
        """`count` products of `columns` columns each, which lie side by side in one tensor."""
        whole = count * columns
        weights = self._address(f"{name}/weight", np.uint8, (whole // 16, inner // 4, 16, 4))
        scales = self._address(f"{name}/scale", np.float32, (inner // GROUP, whole))
        bias = self._address(f"{name}/bias", np.float32, (whole,))
        return [
            _Product(
                weights=weights + first * inner,
                scales=scales + 4 * first,
                bias=bias + 4 * first,
                scale_stride=whole,
                inner=inner,
                columns=columns,
            )
            for first in range(0, whole, columns)
        ]

    def _norm(self, name: str) -> _Norm:
        return _Norm(*(self._address(f"{name}/{part}", np.float32, (self._hidden,)) for part in ("gamma", "beta")))

    def _table(self, name: str, count: int) -> _Table:
        groups = self._hidden // GROUP
        rows = self._address(f"{name}/int8", np.int8, (count, groups, GROUP))
        return _Table(rows, self._address(f"{name}/scale", np.float32, (count, groups, 1)), count)

    def _address(self, name: str, dtype: npt.DTypeLike, shape: tuple[int, ...]) -> int:
        return self._array(name, dtype, shape).ctypes.data

    def _array(self, name: str, dtype: npt.DTypeLike, shape: tuple[int, ...]) -> npt.NDArray[Any]:
        full, wanted = f"{PREFIX}{name}", np.dtype(dtype)
        array = self._tensors.get(full)
        if array is None:
            raise ValueError(f"the tensor {full!r} is missing")
        if array.dtype != wanted or array.shape != shape or not array.flags.c_contiguous:
            raise ValueError(f"{full}: expected {wanted} of shape {shape}, got {array.dtype} of shape {array.shape}")
        return array
