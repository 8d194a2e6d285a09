"""optimum: ORTModelForSequenceClassification on sentence-transformers' ONNX files, in sorted batches."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from benchmarks.harness.batches import session_options, sorted_batches
from benchmarks.harness.contender import Contender, Loaded, Setup
from benchmarks.peers.sentence_transformers import int8_file, onnx_files, preset


def contenders(setup: Setup) -> list[Contender]:
    files = onnx_files(setup)
    options = {"folder": str(files.folder), "threads": setup.threads, "max_length": setup.max_length}
    fp32 = Contender(
        name="optimum fp32",
        load=load,
        options={**options, "file": "model_O3.onnx"},
        setting="ORTModelForSequenceClassification with O3; sorted by tokens, batches of 32",
        batching="tokens",
        packages=("optimum-onnx", "onnxruntime", "transformers"),
        environment="torch",
        export=files,
    )
    int8 = replace(
        fp32,
        name="optimum int8",
        options={**options, "file": int8_file(setup)},
        setting=f"ORTModelForSequenceClassification with {preset(setup)}; sorted by tokens, batches of 32",
    )
    return [fp32, int8]


def load(folder: str, threads: int, max_length: int, file: str) -> Loaded:
    """file: in the folder onnx of `folder`."""
    from optimum.onnxruntime import ORTModelForSequenceClassification

    model = ORTModelForSequenceClassification.from_pretrained(
        folder,
        subfolder="onnx",
        file_name=file,
        provider="CPUExecutionProvider",
        session_options=session_options(threads),
        local_files_only=True,
    )

    def run(batch: Any) -> Sequence[float]:
        logits: Sequence[float] = model(**batch).logits[:, 0].tolist()
        return logits

    return Loaded(sorted_batches(folder, max_length, run), probabilities=False)
