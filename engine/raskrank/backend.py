"""What runs a model: the contract between the engine and a runtime."""

from typing import Protocol

import numpy as np
import numpy.typing as npt

Int64Array = npt.NDArray[np.int64]
Float32Array = npt.NDArray[np.float32]

INPUT_IDS, TOKEN_TYPE_IDS, LOGITS = "input_ids", "token_type_ids", "logits"  # of a bundle's graph


class Backend(Protocol):
    """A loaded model. `logits` may be called from several threads at once."""

    name: str
    concurrency: int  # runs that should be in flight together
    hidden_size: int  # width of the model, for planning
    groups: bool  # pairs of equal length may share a run
    min_share: int  # a run is worth several cores where each gets so much: tokens * hidden_size ** 2, at least 1

    def logits(self, input_ids: Int64Array, token_type_ids: Int64Array, *, threads: int = 1) -> Float32Array:
        """Raw logits, float32 (B,), of B pairs of L tokens each. Both arrays are int64 (B, L), without padding.

        threads: cores that this run may use, since they are idle. A row's logit depends on that row alone, bit for bit, not on
        `threads` or on what else runs. Raises InferenceError if the runtime fails.
        """

    def expect(self, helpers: int) -> None:
        """Runs are about to come, within a millisecond or two, which so many threads help beside the ones that call."""

    def close(self) -> None:
        """Free the model. Called once."""
