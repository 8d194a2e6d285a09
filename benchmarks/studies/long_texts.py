"""Long texts in the models that read 8,192 tokens and have full attention: time and memory of a pair, by its tokens.

    python -m benchmarks.studies.long_texts [--models m3 gte jina-tiny jina-turbo] [--tokens 512 2048 8192] [--whole]

Of published width with seeded weights, on one thread: bge-reranker-v2-m3 ("m3") as an export makes it, in our kernels where
they run; the others' graphs in int8 by rows, in onnxruntime. Each figure is of a fresh process: seconds of CPU of the fastest
run, which what else runs on the machine changes least, and MB that runs take at most beside what is loaded. --whole lets
JinaBERT's queries attend all at once instead of in blocks, which takes gigabytes at 8,192 tokens. Memory is read from /proc, so
that this runs on Linux.
"""

import argparse
import random
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from benchmarks.harness.models import ROOT
from benchmarks.harness.runs import described, in_fresh_process, measure, seeded_weights
from benchmarks.studies import known
from raskrank import Reranker, cpu
from raskrank.checkpoint import Checkpoint
from raskrank.checkpoint.tensors import expected_tensors
from raskrank.network import Network
from raskrank.onnx_backend import OnnxBackend
from raskrank.reimplemented import GTE, JINA_BERT

M3 = "m3"
# Of the written graphs: architecture, layers, hidden size, heads, vocabulary, types.
MODELS = {
    "gte": (GTE, 12, 768, 12, 250048, 1),
    "jina-tiny": (JINA_BERT, 4, 384, 12, 61056, 2),
    "jina-turbo": (JINA_BERT, 6, 384, 12, 61056, 2),
}
TOKENS = (512, 2048, 8192)


def checkpoint(model: str) -> Checkpoint:
    """What a published checkpoint says of itself."""
    architecture, layers, hidden, heads, vocabulary, types = MODELS[model]
    config = {
        "num_labels": 1,
        "vocab_size": vocabulary,
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "intermediate_size": 4 * hidden,
        "max_position_embeddings": max(TOKENS),
        "type_vocab_size": types,
        "rope_theta": 20000.0,
        "rope_factor": 8.0,
    }
    layout = "gte" if architecture == GTE else "jina-bert"
    return described(architecture, model, config, layout=layout, epsilon=1e-12, max_length=max(TOKENS), pad_id=1)


def write_graph(model: str, folder: Path) -> None:
    """The int8 graph, into `folder`."""
    from raskrank_export.graph import save
    from raskrank_export.quantization import Quantization
    from raskrank_export.quantize import quantize
    from raskrank_export.written import write_graph as write

    published = checkpoint(model)
    weights = seeded_weights(expected_tensors(published.architecture, published.numbers))
    made: Any = SimpleNamespace(state_dict=lambda: weights)
    graph = write(made, published, folder / "scratch").model
    quantize(graph, Quantization(scheme="row"))
    save(graph, folder)


def run_bundle(folder: Path, tokens: int) -> None:
    """Measure a pair of about so many tokens in this process, scored by the bundle."""
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    document = known.text(tokenizer, tokens - 8, random.Random(0))
    with Reranker.load(folder, threads=1) as reranker:
        measure(lambda: reranker.score("natt", [document]))


def run_graph(folder: Path, tokens: int, types: int) -> None:
    """Measure the graph in this process."""
    inputs = ("input_ids", "token_type_ids") if types > 1 else ("input_ids",)
    backend = OnnxBackend(Network.read(folder, inputs), 1)
    ids = np.random.default_rng(0).integers(0, 60000, (1, tokens))
    measure(lambda: backend.logits(ids, ids % types))


def main() -> None:
    sys.path.append(str(ROOT / "tests"))  # for what makes checkpoints
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=(M3, *MODELS), default=[M3, *MODELS])
    parser.add_argument("--tokens", nargs="+", type=int, default=TOKENS)
    parser.add_argument("--whole", action="store_true")
    parser.add_argument("--measure", nargs=3, help=argparse.SUPPRESS)  # model, folder, tokens
    options = parser.parse_args()
    if options.measure:
        model, folder, tokens = options.measure
        if model == M3:
            run_bundle(Path(folder), int(tokens))
        else:
            run_graph(Path(folder), int(tokens), MODELS[model][-1])
        return
    if options.whole:
        from raskrank_export.written import jina_bert

        jina_bert.MOST_ROWS = max(options.tokens)
    print(
        f"{cpu.model_name()}, onnxruntime {version('onnxruntime')}, one thread: seconds of CPU, and MB beside what is loaded,"
    )
    print("used of those reserved in address space\n")
    print("| model |" + "".join(f" {tokens} tokens |" for tokens in options.tokens))
    print("|---|" + "---:|" * len(options.tokens))
    with tempfile.TemporaryDirectory() as scratch:
        for model in options.models:
            folder = Path(scratch) / model
            folder.mkdir()
            if model == M3:
                folder = known.made("BAAI/bge-reranker-v2-m3", folder, length=max(options.tokens))
            else:
                write_graph(model, folder)
            cells = []
            for tokens in options.tokens:
                cost = in_fresh_process("benchmarks.studies.long_texts", "--measure", model, str(folder), str(tokens))
                cells.append(f" {cost.seconds:.2f} s, {cost.megabytes:,.0f} of {cost.reserved:,.0f} MB |")
            print(f"| {model} |" + "".join(cells), flush=True)


if __name__ == "__main__":
    main()
