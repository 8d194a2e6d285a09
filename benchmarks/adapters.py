"""How each contender is loaded and called: a function that takes a worker's options and returns what scores.

Stand-alone, and every import is inside the function that needs it: a worker's environment holds one peer, not all of them.
`threads` is the number of usable cores, `folder` a checkpoint, a bundle, or the peer's own export (exports.py).
"""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

BATCH = 32  # where a library leaves the choice to its user: sentence-transformers' default, common in others' documentation

# (query, documents, batch size or None for the contender's own) -> a score for each document, in input order
Score = Callable[[str, list[str], int | None], Iterable[float]]


class Loaded(NamedTuple):
    score: Score
    probabilities: bool  # scores lie in [0, 1]; else they are logits


def raskrank(folder: str, threads: int) -> Loaded:
    from raskrank import Reranker

    reranker = Reranker.load(folder, threads=threads)
    return Loaded(lambda query, documents, _: reranker.score(query, documents), reranker.info().activation == "sigmoid")


def sentence_transformers(folder: str, threads: int, backend: str, file: str | None) -> Loaded:
    """CrossEncoder.predict with its defaults. backend: torch, onnx or openvino; file: which of its own exports."""
    import torch
    from sentence_transformers import CrossEncoder

    torch.set_num_threads(threads)
    options: dict[str, Any] = {"file_name": file}
    if backend == "onnx":
        options |= {"provider": "CPUExecutionProvider", "session_options": _session_options(threads)}
    elif backend == "openvino":
        options["ov_config"] = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": threads}
    encoder = CrossEncoder(
        folder,
        device="cpu",
        backend=backend,
        activation_fn=torch.nn.Identity(),
        model_kwargs=options if file else None,
        local_files_only=True,
    )

    def score(query: str, documents: list[str], batch_size: int | None) -> Iterable[float]:
        pairs = [(query, document) for document in documents]
        scores: Iterable[float] = encoder.predict(pairs, batch_size=batch_size or BATCH, show_progress_bar=False)
        return scores

    return Loaded(score, probabilities=False)


def transformers(folder: str, threads: int, max_length: int) -> Loaded:
    """PyTorch as its documentation loads it: eval, inference_mode, the default attention."""
    import torch
    from transformers import AutoModelForSequenceClassification

    torch.set_num_threads(threads)
    model = AutoModelForSequenceClassification.from_pretrained(folder, local_files_only=True).eval()

    def run(batch: Any) -> Sequence[float]:
        with torch.inference_mode():
            logits: Sequence[float] = model(**batch).logits[:, 0].tolist()
        return logits

    return Loaded(_sorted_batches(folder, max_length, run), probabilities=False)


def optimum(folder: str, threads: int, max_length: int, file: str) -> Loaded:
    """ORTModelForSequenceClassification on one of the ONNX files."""
    from optimum.onnxruntime import ORTModelForSequenceClassification

    model = ORTModelForSequenceClassification.from_pretrained(
        folder,
        subfolder="onnx",
        file_name=file,
        provider="CPUExecutionProvider",
        session_options=_session_options(threads),
        local_files_only=True,
    )

    def run(batch: Any) -> Sequence[float]:
        logits: Sequence[float] = model(**batch).logits[:, 0].tolist()
        return logits

    return Loaded(_sorted_batches(folder, max_length, run), probabilities=False)


def _session_options(threads: int) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    return options


def _sorted_batches(folder: str, max_length: int, run: Callable[[Any], Sequence[float]]) -> Score:
    """What a careful user of transformers writes: tokenize once, sort by tokens, batches padded to their longest."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)  # type: ignore[no-untyped-call]

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


def flashrank(folder: str, max_length: int) -> Loaded:
    """Ranker on a folder that looks like one of its downloads. It takes no options for a session."""
    from flashrank import Ranker, RerankRequest

    path = Path(folder)
    ranker = Ranker(path.name, cache_dir=str(path.parent), max_length=max_length, log_level="ERROR")

    def score(query: str, documents: list[str], _: int | None) -> Sequence[float]:
        passages = [{"id": index, "text": document} for index, document in enumerate(documents)]
        ranked = ranker.rerank(RerankRequest(query=query, passages=passages))
        return [float(passage["score"]) for passage in sorted(ranked, key=lambda passage: passage["id"])]

    return Loaded(score, probabilities=True)


def fastembed(folder: str, threads: int, file: str) -> Loaded:
    """TextCrossEncoder on a model of one's own; batches of 64 in the order given are its default."""
    from fastembed.common.model_description import ModelSource
    from fastembed.rerank.cross_encoder import TextCrossEncoder

    name = "local/benchmark"
    TextCrossEncoder.add_custom_model(model=name, sources=ModelSource(hf=name), model_file=file)
    encoder = TextCrossEncoder(name, threads=threads, cuda=False, specific_model_path=folder)
    return Loaded(lambda query, documents, _: list(encoder.rerank(query, documents)), probabilities=False)


def openvino(file: str, tokenizer: str, threads: int, max_length: int, streams: int) -> Loaded:
    """A compiled model called directly, sorted by tokens. streams: batches in flight together, on threads / streams each."""
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
