"""What can go wrong, one class for each thing a caller would do differently.

RaskrankError
├── InputError (ValueError)        what you passed: index, type, position; never the text itself
│   └── LimitError                 too many documents, too long a text
├── BundleError
│   ├── MissingFile                says how to export
│   ├── Corrupt                    size or digest differs
│   └── Incompatible               newer format, wrong inputs, tokenizer does not fit the model
├── ExportError
│   ├── NotACrossEncoder           bi-encoder, listwise, causal: names what it is
│   └── ParityError                the bundle would rank differently: nothing is written
├── InferenceError
│   └── NonFiniteScore             indices; never ranked silently
└── ForkError                      loaded before the fork: load after it
"""

from collections.abc import Sequence


class RaskrankError(Exception):
    """Base of every error that Raskrank raises on purpose."""


class InputError(RaskrankError, ValueError):
    """An argument cannot be used. The message names its place and type, never its text."""


class LimitError(InputError):
    """An argument is larger than a limit of `Limits`."""


class BundleError(RaskrankError):
    """A bundle cannot be loaded."""


class MissingFile(BundleError):
    """The bundle, or a file of it, is not there."""


class Corrupt(BundleError):
    """A file of the bundle is not the one that was written."""


class Incompatible(BundleError):
    """The bundle is whole, but this engine or this machine cannot run it."""


class ExportError(RaskrankError):
    """A checkpoint could not be turned into a bundle. Nothing was written."""


class NotACrossEncoder(ExportError):
    """The checkpoint is another kind of model."""


class ParityError(ExportError):
    """The exported model would rank differently from the checkpoint."""


class InferenceError(RaskrankError):
    """The model could not be run."""


class NonFiniteScore(InferenceError):
    """The model gave NaN or infinity. `indices` are positions in the caller's input, ascending."""

    def __init__(self, message: str, indices: Sequence[int]) -> None:
        super().__init__(message)
        self.indices = tuple(indices)

    def __reduce__(self) -> tuple[type["NonFiniteScore"], tuple[str, tuple[int, ...]]]:
        return type(self), (self.args[0], self.indices)


class ForkError(RaskrankError):
    """The engine was loaded before this process was forked. Load it in the child."""
