"""What runs a model: the contract between the engine and a runtime."""

from typing import Protocol

import numpy as np
import numpy.typing as npt

Int64Array = npt.NDArray[np.int64]
Float32Array = npt.NDArray[np.float32]


class Backend(Protocol):
    """A loaded model. `logits` may be called from several threads at once."""

    name: str
    concurrency: int  # runs that should be in flight together
    hidden_size: int  # width of the model, for planning
    groups: bool  # pairs of equal length may share a run

    def logits(self, input_ids: Int64Array, token_type_ids: Int64Array, *, spread: bool = False) -> Float32Array:
        """Raw logits, float32 (B,), of B pairs of L tokens each. Both arrays are int64 (B, L), without padding.

        spread: use several cores for this run, since they are idle. A row's logit depends on that row alone, bit for bit,
        not on `spread` or on what else runs. Raises InferenceError if the runtime fails.
        """

    def close(self) -> None:
        """Free the model. Called once."""
