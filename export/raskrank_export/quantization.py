"""How products are quantized: where the ranges of activations come from, and how many levels they and the weights have."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
ActivationScheme = Literal["group", "row", "constant"]
# "tensor" is what others ship; benchmarks/studies/schemes.py shows what it loses.
Scheme = ActivationScheme | Literal["tensor", "weights"]

# DynamicQuantizeMatMul uses all of 0..255 for an activation: 2 * 255 * 64 = 32640.
TENSOR_WEIGHT_MAX = 64


class Levels(NamedTuple):
    """Integers that stand for the largest magnitude of an activation and of a weight; 127 at most, symmetric around 0."""

    activation: int
    weight: int


# On x86 without VNNI two products u8 x s8 are added in 16 bits, silently saturating. An activation a is stored as a + its
# level, so that 2 * (2 * 90) * 91 = 32760 holds. Both get about the same share of what fits, which gave the smallest error.
PORTABLE = Levels(90, 91)
SEVEN_BIT = Levels(127, 64)  # fits as well, 2 * (2 * 127) * 64 = 32512: coarser weights for finer activations
EXACT = Levels(127, 127)  # for CPUs that add in 32 bits: VNNI, AMX, ARM


@dataclass(frozen=True, kw_only=True)
class Quantization:
    """How products are quantized.

    scheme: "group" gives each 64 channels of a row (token) of an activation a range of its own, found at run time, and as many
        weights of a column: exact on every CPU, since no sum overflows, and what our own kernels run.
        "row" gives each row a range. "constant" has constant ranges, which `smoothing` brings to [-1, 1]. With both, pairs of
        equal length may share a run of onnxruntime and no neighbour changes a score.
        "tensor" takes one range over all of a run, which must therefore hold one pair.
        "weights" stores weights in int8 and multiplies in fp32: for size, not for speed.
    levels: of activations and weights. For "tensor" those of activations are always 0..255, and EXACT weights have 127.
        "weights" has no levels of activations; "group" is EXACT.
    excluded: products, by the name of their output, that stay in fp32.
    smoothing: by the tensor that products read, a divisor of each channel, float32 (K), which the weights' rows are
        multiplied with. "constant" needs one for every such tensor.
    """

    scheme: Scheme = "row"
    levels: Levels = PORTABLE
    excluded: frozenset[str] = frozenset()
    smoothing: Mapping[str, Floats] = field(default_factory=dict)

    @property
    def groups(self) -> bool:
        """Whether pairs of equal length may share a run of onnxruntime."""
        return self.scheme not in ("tensor", "group", "weights")  # MatMulNBits multiplies a single row in another order

    @property
    def weight_max(self) -> int:
        return TENSOR_WEIGHT_MAX if self.scheme == "tensor" and self.levels != EXACT else self.levels.weight


GROUP = Quantization(scheme="group", levels=EXACT)
