"""PyTorch on pairs of similar lengths at a time: for the same numbers, but for rounding, in half the time of one by one."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from raskrank.backend import Float32Array
from raskrank.checkpoint import Checkpoint
from raskrank.encoding import EncodedPair
from raskrank.errors import InferenceError
from raskrank_export.progress import Progress

# Of a run, padding included: more takes as long a token, since attention then does not stay in the caches.
MAX_TOKENS = 512


def padded_scores(model: Any, checkpoint: Checkpoint, encoded: Sequence[EncodedPair], progress: Progress) -> Float32Array:
    """float32 (n): the logits of a float32 model, in order. Raises InferenceError where PyTorch fails."""
    logits = np.zeros(len(encoded), np.float32)
    for run in runs_of([len(pair.input_ids) for pair in encoded]):
        try:
            logits[run] = padded_logits(model, checkpoint, [encoded[index] for index in run])
        except RuntimeError as error:
            longest = len(encoded[run[-1]].input_ids)
            raise InferenceError(f"PyTorch failed on a run of {len(run)} x {longest} tokens") from error
        progress.advance(len(run))
    return logits


def runs_of(lengths: Sequence[int]) -> list[list[int]]:
    """Indices by length, as many a run as fit into MAX_TOKENS, or one."""
    runs: list[list[int]] = []
    for index in sorted(range(len(lengths)), key=lengths.__getitem__):
        if not runs or (len(runs[-1]) + 1) * lengths[index] > MAX_TOKENS:
            runs.append([])
        runs[-1].append(index)
    return runs


def padded_logits(model: Any, checkpoint: Checkpoint, run: Sequence[EncodedPair]) -> npt.NDArray[np.floating[Any]]:
    """(B) in the model's own precision. What fills the shorter pairs is masked: it moves no logit by more than rounding."""
    import torch

    shape = len(run), max(len(pair.input_ids) for pair in run)  # (B, L)
    input_ids, types = np.full(shape, checkpoint.pad_id, np.int64), np.zeros(shape, np.int64)
    mask = np.zeros(shape, np.int64)
    for row, pair in enumerate(run):
        length = len(pair.input_ids)
        input_ids[row, :length], types[row, :length], mask[row, :length] = pair.input_ids, pair.token_type_ids, 1
    feeds = {"input_ids": input_ids, "attention_mask": mask}
    if checkpoint.type_vocab_size > 1:
        feeds["token_type_ids"] = types
    with torch.inference_mode():
        logits = model(**{name: torch.from_numpy(ids) for name, ids in feeds.items()}).logits
        if checkpoint.relevant is not None:
            logits = checkpoint.relevant.difference(logits)  # (B, 2) -> (B, 1)
        found: npt.NDArray[np.floating[Any]] = logits.reshape(-1).numpy()
    return found
