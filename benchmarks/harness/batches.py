"""How a careful user calls a bare model: for the peers that bring no loop of their own. Stand-alone."""

from collections.abc import Callable, Sequence
from typing import Any

from benchmarks.harness.contender import BATCH, Score


def session_options(threads: int) -> Any:
    """onnxruntime's, with `threads` threads for a run."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    return options


def sorted_batches(checkpoint: str, max_length: int, run: Callable[[Any], Sequence[float]]) -> Score:
    """Tokenize once with transformers, sort by tokens, pad each batch to its longest.

    run: gets a batch of PyTorch tensors, shape (pairs, tokens), and returns a logit for each pair.
    """
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(checkpoint, local_files_only=True)  # type: ignore[no-untyped-call]

    def score(query: str, documents: list[str], batch_size: int | None) -> Sequence[float]:
        encoded = tokenizer([query] * len(documents), documents, truncation=True, max_length=max_length)
        size, lengths = batch_size or BATCH, [len(ids) for ids in encoded["input_ids"]]
        order = sorted(range(len(documents)), key=lambda index: -lengths[index])
        scores = [0.0] * len(documents)
        for start in range(0, len(order), size):
            chosen = order[start : start + size]
            rows = {name: [values[index] for index in chosen] for name, values in encoded.items()}
            for index, value in zip(chosen, run(tokenizer.pad(rows, return_tensors="pt")), strict=True):
                scores[index] = value
        return scores

    return score
