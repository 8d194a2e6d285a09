"""The C structure of a model, as engine/kernels/model.hpp has it: the kernels read a bundle's tensors where they lie."""

import ctypes
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from raskrank.manifest import Encoder, HeadActivation

PREFIX = "encoder/"  # of the names of tensors that the kernels read
GROUP = 64  # channels of an activation that share a range, and weights of a column that share a scale
_HEAD_ACTIVATIONS: tuple[HeadActivation, ...] = ("tanh", "gelu", "relu")  # in the order of model.hpp


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


# What rk_layout() says where both sides have the same structures. Otherwise the library would read wrong addresses.
LAYOUT = 1000 * ctypes.sizeof(_Model) + ctypes.sizeof(_Layer)


class KernelModel:
    """A model's structure, each tensor checked before its address is taken. Valid as long as this object is there."""

    def __init__(self, encoder: Encoder, hidden_size: int, vocab_size: int, tensors: Mapping[str, npt.NDArray[Any]]) -> None:
        """tensors: by the names of docs/bundle-format.md.

        Raises ValueError for one that is missing or of another shape or type.
        """
        self._tensors = tensors  # kept: the structure has their addresses
        self._hidden, self._intermediate = hidden_size, encoder.intermediate
        self._layers = (_Layer * encoder.layers)(*(self._layer(index, encoder.layers) for index in range(encoder.layers)))
        self.structure = _Model(
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
