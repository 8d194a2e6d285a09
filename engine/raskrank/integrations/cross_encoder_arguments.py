"""What sentence-transformers' CrossEncoder takes beside texts: old names, options that a bundle has no use for, activations."""

import functools
import inspect
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast, get_args

from raskrank import InputError
from raskrank.activation import Activation, activate
from raskrank.backend import Float32Array
from raskrank.extras import need_exporter
from raskrank.texts import positive

if TYPE_CHECKING:
    import torch

logger = logging.getLogger("raskrank")

# An activation's name, or what is called as sentence-transformers calls it: with a float32 tensor (n, 1) of logits.
ActivationFn = str | Callable[["torch.Tensor"], "torch.Tensor"]
NAMES: tuple[Activation, ...] = get_args(Activation)

OLD_NAMES = {"sentences": "inputs", "activation_fct": "activation_fn"}
NO_EFFECT = ("num_workers", "convert_to_numpy", "convert_to_tensor", "apply_softmax")  # where a method does not take them
# Arguments that a bundle has no use for, and why.
USELESS = {
    "prompt_name": "a bundle has no prompts; write the text in front of the query",
    "prompt": "a bundle has no prompts; write the text in front of the query",
    "apply_softmax": "of one logit it is always 1",
    "pool": "Raskrank uses all cores by itself",
}


def old_names(method: Callable[..., Any]) -> Callable[..., Any]:
    """Take the names that arguments once had, and those that have no effect any more, as sentence-transformers 6 does."""
    parameters = inspect.signature(method).parameters

    @functools.wraps(method)
    def call(self: object, *args: Any, **kwargs: Any) -> Any:
        for old, new in OLD_NAMES.items():
            if old in kwargs and new in parameters:
                logger.warning("CrossEncoder.%s: the argument %s is called %s now", method.__name__, old, new)
                value = kwargs.pop(old)
                kwargs.setdefault(new, value)
        for name in NO_EFFECT:
            if name in kwargs and name not in parameters:
                logger.warning("CrossEncoder.%s: the argument %s has no effect", method.__name__, name)
                del kwargs[name]
        return method(self, *args, **kwargs)

    return call


def check_arguments(batch_size: int, device: object, **useless: object) -> None:
    """Raises InputError for what a bundle cannot do, or does by itself. useless: by their names in USELESS."""
    positive(batch_size, "batch_size")
    check_device(device)
    for name, value in useless.items():
        if value:
            raise InputError(f"{name}: {USELESS[name]}")


def check_device(device: object) -> None:
    """Raises InputError for any but the CPU."""
    if device is not None and str(device) != "cpu":
        raise InputError("device: expected None or 'cpu'; a bundle runs on the CPU alone")


def check_activation(activation: ActivationFn) -> None:
    """Raises InputError for what is no activation's name and cannot be called."""
    if activation not in NAMES if isinstance(activation, str) else not callable(activation):
        got = "another str" if isinstance(activation, str) else type(activation).__name__
        raise InputError(f"activation_fn: expected a function or one of {', '.join(NAMES)}, got {got}")


def activated(activation: ActivationFn, logits: Float32Array) -> Float32Array:
    """float32 (n): the scores that an activation makes of logits, float32 (n). A function needs torch."""
    if isinstance(activation, str):
        return activate(cast(Activation, activation), logits)
    torch = import_torch("a function as activation_fn")
    with torch.inference_mode():
        found = activation(torch.from_numpy(logits)[:, None])
    if not isinstance(found, torch.Tensor) or found.numel() != len(logits):
        raise InputError("activation_fn: expected a function that gives a tensor of as many numbers as it was given")
    scores: Float32Array = found.reshape(-1).to(torch.float32).numpy()
    return scores


def import_torch(what: str) -> Any:
    """torch, or MissingExtra that says what needs it."""
    need_exporter(what, "torch")
    import torch

    return torch
