"""OpenVINO called directly, on the static int8 that NNCF recommends for transformers."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.harness.contender import BATCH, Contender, Export, Loaded, Setup
from benchmarks.peers.sentence_transformers import openvino_files

FILE = "direct.xml"
CALIBRATION_TOKENS = 384  # sentence-transformers' own limit when it calibrates


def contenders(setup: Setup) -> list[Contender]:
    """With all threads for one batch and, where there are several, with a batch on each."""
    threads, files = setup.threads, quantized_files(setup)
    direct = Contender(
        name="OpenVINO int8 direct",
        load=load,
        options={
            "file": str(files.folder / FILE),
            "tokenizer": str(setup.checkpoint / "tokenizer.json"),
            "threads": threads,
            "max_length": setup.max_length,
            "streams": 1,
        },
        setting=f"NNCF static int8; sorted by tokens, best batch size, {threads} threads for a batch",
        batching="tokens",
        packages=("openvino", "nncf", "tokenizers"),
        environment="openvino",
        export=files,
        batch_sizes=(1, 4, 8, 16, 32),
        cold=True,
    )
    streams = replace(
        direct,
        name="OpenVINO int8 direct, streams",
        options={**direct.options, "streams": threads},
        setting=f"the same with {threads} batches in flight, a core each",
        cold=False,
    )
    return [direct] if threads == 1 else [direct, streams]


def load(file: str, tokenizer: str, threads: int, max_length: int, streams: int) -> Loaded:
    """A compiled model, sorted by tokens. streams: batches in flight together, on threads / streams each."""
    import numpy as np
    from openvino import AsyncInferQueue, Core
    from tokenizers import Tokenizer

    hint = "LATENCY" if streams == 1 else "THROUGHPUT"
    settings = {"PERFORMANCE_HINT": hint, "INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": streams}
    model = Core().compile_model(file, "CPU", settings)
    names = {name for port in model.inputs for name in port.get_names()}
    splitter = Tokenizer.from_file(tokenizer)
    splitter.enable_truncation(max_length)
    splitter.no_padding()
    queue = AsyncInferQueue(model, streams)
    scores: dict[int, float] = {}

    def collect(request: Any, chosen: list[int]) -> None:
        scores.update(zip(chosen, request.get_output_tensor(0).data[:, 0].tolist(), strict=True))

    queue.set_callback(collect)

    def score(query: str, documents: list[str], batch_size: int | None) -> Sequence[float]:
        encodings = splitter.encode_batch([(query, document) for document in documents])
        size = batch_size or BATCH
        order = sorted(range(len(encodings)), key=lambda index: -len(encodings[index].ids))
        for start in range(0, len(order), size):
            chosen = order[start : start + size]
            shape = (len(chosen), len(encodings[chosen[0]].ids))
            arrays = {name: np.zeros(shape, np.int64) for name in ("input_ids", "attention_mask", "token_type_ids")}
            for row, index in enumerate(chosen):
                length = len(encodings[index].ids)
                arrays["input_ids"][row, :length] = encodings[index].ids
                arrays["token_type_ids"][row, :length] = encodings[index].type_ids
                arrays["attention_mask"][row, :length] = 1
            queue.start_async({name: array for name, array in arrays.items() if name in names}, chosen)
        queue.wait_all()
        return [scores[index] for index in range(len(documents))]

    return Loaded(score, probabilities=False)


def quantized_files(setup: Setup) -> Export:
    """FILE, from the graph that sentence-transformers exports."""
    graphs = openvino_files(setup)
    options = {
        "graph": str(graphs.folder / "openvino" / "openvino_model.xml"),
        "tokenizer": str(setup.checkpoint / "tokenizer.json"),
        "texts": str(setup.calibration),
    }
    return Export(folder=setup.files / "openvino-direct", environment="openvino", make=quantize, options=options, after=graphs)


def quantize(folder: str, graph: str, tokenizer: str, texts: str) -> None:
    """NNCF's recommendation for transformers, calibrated on pairs as they are scored."""
    import nncf
    import numpy as np
    import openvino
    from tokenizers import Tokenizer

    splitter = Tokenizer.from_file(tokenizer)
    splitter.enable_truncation(CALIBRATION_TOKENS)
    splitter.no_padding()
    model = openvino.Core().read_model(graph)
    names = {name for port in model.inputs for name in port.get_names()}

    def inputs(line: str) -> dict[str, object]:
        pair = json.loads(line)
        encoding = splitter.encode(pair["query"], pair["document"])
        rows = {"input_ids": encoding.ids, "attention_mask": encoding.attention_mask, "token_type_ids": encoding.type_ids}
        return {name: np.array([values], np.int64) for name, values in rows.items() if name in names}

    lines = Path(texts).read_text("utf-8").splitlines()
    quantized = nncf.quantize(model, nncf.Dataset(lines, inputs), model_type=nncf.ModelType.TRANSFORMER)
    openvino.save_model(quantized, Path(folder) / FILE)
