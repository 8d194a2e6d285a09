"""transformers: PyTorch as its documentation loads it (eval, inference_mode, the default attention), in sorted batches."""

from collections.abc import Sequence
from typing import Any

from benchmarks.harness.batches import sorted_batches
from benchmarks.harness.contender import Contender, Loaded, Setup


def contenders(setup: Setup) -> list[Contender]:
    torch = Contender(
        name="transformers torch",
        load=load,
        options={"folder": str(setup.checkpoint), "threads": setup.threads, "max_length": setup.max_length},
        setting="fp32, inference_mode; sorted by tokens, batches of 32",
        batching="tokens",
        packages=("transformers", "torch"),
        environment="torch",
    )
    return [torch]


def load(folder: str, threads: int, max_length: int) -> Loaded:
    import torch
    from transformers import AutoModelForSequenceClassification

    torch.set_num_threads(threads)
    model = AutoModelForSequenceClassification.from_pretrained(folder, local_files_only=True).eval()

    def run(batch: Any) -> Sequence[float]:
        with torch.inference_mode():
            logits: Sequence[float] = model(**batch).logits[:, 0].tolist()
        return logits

    return Loaded(sorted_batches(folder, max_length, run), probabilities=False)
