"""What can go wrong, one class for each thing a caller would do differently.

RaskrankError
├── InputError (ValueError)        what you passed: index, type, position; never the text itself
│   └── LimitError                 too many documents, too long a text
├── MissingExtra (ImportError)     an optional package is not installed: the pip line that installs it
├── BundleError
│   ├── MissingFile                says how to export
│   ├── Corrupt                    size or digest differs
│   └── Incompatible               newer format, wrong inputs, tokenizer does not fit the model, made for another CPU
├── CheckpointError                a Hugging Face checkpoint is missing, broken or of a kind that is not supported
│   └── NotACrossEncoder           bi-encoder, listwise, causal: names what it is
├── ExportError                    a bundle could not be made or written: nothing was written
│   └── ParityError                the bundle would rank differently
├── InferenceError                 the model could not be run
│   └── NonFiniteScore             indices; never ranked silently
├── ClosedError                    used after close(), or while Python exits
└── ForkError                      loaded before the fork: load after it

RaskrankWarning (UserWarning)      PyTorch took over, or scores may be wrong on this CPU: goes to `warnings` and the log
"""

from collections.abc import Sequence


class RaskrankError(Exception):
    """Base of every error that Raskrank raises on purpose."""


class InputError(RaskrankError, ValueError):
    """An argument cannot be used. The message names its place and type, never its text."""


class LimitError(InputError):
    """An argument is larger than a limit of `Limits`."""


class MissingExtra(RaskrankError, ImportError):
    """A package that only some features need is not installed. The message has the pip line that installs it."""


class BundleError(RaskrankError):
    """A bundle cannot be loaded."""


class MissingFile(BundleError):
    """The bundle, or a file of it, is not there."""


class Corrupt(BundleError):
    """A file of the bundle is not the one that was written."""


class Incompatible(BundleError):
    """The bundle is whole, but this engine or this machine cannot run it."""


class CheckpointError(RaskrankError):
    """A checkpoint cannot be used: it is not there, it is broken, or its kind is not supported."""


class NotACrossEncoder(CheckpointError):
    """The checkpoint is another kind of model."""


class ExportError(RaskrankError):
    """A bundle could not be made or written. Nothing was written."""


class ParityError(ExportError):
    """The bundle would rank differently from its checkpoint."""


class InferenceError(RaskrankError):
    """The model could not be run."""


class NonFiniteScore(InferenceError):
    """The model gave NaN or infinity. `indices` are positions in the caller's input, ascending."""

    def __init__(self, message: str, indices: Sequence[int]) -> None:
        super().__init__(message)
        self.indices = tuple(indices)

    def __reduce__(self) -> tuple[type["NonFiniteScore"], tuple[str, tuple[int, ...]]]:
        return type(self), (self.args[0], self.indices)


class ClosedError(RaskrankError):
    """The engine was closed, or Python is exiting."""


class ForkError(RaskrankError):
    """The engine was loaded before this process was forked. Load it in the child."""


class RaskrankWarning(UserWarning):
    """Something other than what was asked for happens: PyTorch took over, or scores may be wrong on this CPU."""
