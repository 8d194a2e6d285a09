"""From a logit to a score: the functions that a checkpoint may name for it. All of them rise, so that none changes an order."""

from collections.abc import Callable, Mapping
from typing import Literal

import numpy as np

from raskrank.backend import Float32Array

Activation = Literal["identity", "sigmoid", "softplus", "tanh"]


def sigmoid(logits: Float32Array) -> Float32Array:
    """1 / (1 + exp(-x)), float32, without overflow for any finite x."""
    small = np.exp(-np.abs(logits.astype(np.float64)))
    return (np.where(logits >= 0, 1.0, small) / (1.0 + small)).astype(np.float32)


def softplus(logits: Float32Array) -> Float32Array:
    """log(1 + exp(x)), float32, without overflow for any finite x."""
    exact = logits.astype(np.float64)
    return (np.maximum(exact, 0.0) + np.log1p(np.exp(-np.abs(exact)))).astype(np.float32)


def activate(activation: Activation, logits: Float32Array) -> Float32Array:
    """The score of each logit, float32, in the order of the logits."""
    return _FUNCTIONS[activation](logits)


def _tanh(logits: Float32Array) -> Float32Array:
    return np.tanh(logits.astype(np.float64)).astype(np.float32)


def _identity(logits: Float32Array) -> Float32Array:
    return logits


_FUNCTIONS: Mapping[Activation, Callable[[Float32Array], Float32Array]] = {
    "identity": _identity,
    "sigmoid": sigmoid,
    "softplus": softplus,
    "tanh": _tanh,
}
