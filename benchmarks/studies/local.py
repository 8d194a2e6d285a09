"""Local attention in blocks beside the same with a mask over all keys: time and memory of a pair, by its tokens.

    python -m benchmarks.studies.local [--size base|17m|32m|68m|400m] [--tokens 512 2048 8192] [--blocks]
        [--whole-blocks 4] [--optimum]

The graph is that of a ModernBERT of published width with seeded weights, int8 by rows, in onnxruntime on one thread. Each
figure is of a fresh process: seconds of CPU of the fastest run, which what else runs on the machine changes least, and MB that
runs take at most beside what is loaded, and reserve of address space. --blocks leaves out the mask over all keys, which takes
gigabytes at 8,192 tokens. --whole-blocks N: up to so many blocks' tokens are one block; 0 shows what blocks of short pairs
cost. --optimum puts what optimum exports of transformers' own class beside it, and our graph in fp32. Memory is read from
/proc, so that this runs on Linux.
"""

import argparse
import tempfile
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from benchmarks.harness.runs import described, in_fresh_process, measure, seeded_weights
from raskrank import cpu
from raskrank.checkpoint import Checkpoint
from raskrank.checkpoint.modernbert import CLASSIFIER, MODEL_TYPE, classifier_tensors
from raskrank.manifest import MODEL
from raskrank.onnx_backend import make_session, session_options

SIZES = {  # layers, hidden size, heads, intermediate size
    "17m": (7, 256, 4, 384),
    "32m": (10, 384, 6, 576),
    "68m": (19, 512, 8, 768),
    "base": (22, 768, 12, 1152),
    "400m": (28, 1024, 16, 2624),
}
TOKENS = (512, 2048, 8192)


def checkpoint(size: str) -> Checkpoint:
    """What a published checkpoint of that size says of itself."""
    layers, hidden, heads, inner = SIZES[size]
    biases = dict.fromkeys(("attention_bias", "mlp_bias", "norm_bias", "classifier_bias"), False)
    config: dict[str, object] = {
        "vocab_size": 50368,
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "intermediate_size": inner,
        "hidden_activation": "gelu",
        "classifier_activation": "gelu",
        "classifier_pooling": "cls",
        "global_attn_every_n_layers": 3,
        "global_rope_theta": 160000.0,
        "local_rope_theta": 10000.0,
        "local_attention": 128,
        "norm_eps": 1e-5,
        "num_labels": 1,
        **biases,
    }
    return described(CLASSIFIER, MODEL_TYPE, config, epsilon=1e-5, max_length=8192, pad_id=50283)


def write_graphs(size: str, folder: Path, names: Iterable[str], whole_blocks: int | None) -> None:
    """Graphs into folders of their names: in int8 with local attention in "blocks" and with a "mask", in "fp32", "optimum"."""
    from raskrank_export import graph
    from raskrank_export.quantization import Quantization
    from raskrank_export.quantize import quantize
    from raskrank_export.written import local_attention, write_graph

    usual = local_attention.WHOLE_BLOCKS if whole_blocks is None else whole_blocks
    published = checkpoint(size)
    weights = seeded_weights(classifier_tensors(published.config))
    model: Any = SimpleNamespace(state_dict=lambda: weights)
    for name in names:
        if name == "optimum":
            _write_optimum(published, weights, folder / name)
            continue
        local_attention.WHOLE_BLOCKS = max(TOKENS) if name == "mask" else usual
        made = write_graph(model, published, folder / name).model
        if name != "fp32":
            quantize(made, Quantization(scheme="row"))
        graph.save(made, folder / name)


def _write_optimum(published: Checkpoint, weights: Any, folder: Path) -> None:
    from transformers import ModernBertConfig, ModernBertForSequenceClassification

    from raskrank_export.tracing import export_model

    settings: dict[str, Any] = dict(published.config)
    model: Any = ModernBertForSequenceClassification(ModernBertConfig(**settings, attn_implementation="eager"))
    model.load_state_dict(weights)
    export_model(model.eval(), folder)


def run_here(folder: Path, tokens: int) -> None:
    """Measure the graph in this process."""
    session = make_session((folder / MODEL).read_bytes(), session_options(folder, threads=1))
    ids = np.random.default_rng(0).integers(0, 50000, (1, tokens))
    feeds = {item.name: np.ones_like(ids) if item.name == "attention_mask" else ids for item in session.get_inputs()}
    measure(lambda: session.run(None, feeds))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZES, default="base")
    parser.add_argument("--tokens", type=int, nargs="+", default=TOKENS)
    parser.add_argument("--blocks", action="store_true", help="without the mask over all keys")
    parser.add_argument("--optimum", action="store_true")
    parser.add_argument("--whole-blocks", type=int)
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure is not None:
        run_here(options.measure, options.tokens[0])
        return
    print(f"{'':8} {'tokens':>7} {'seconds':>9} {'ms a token':>11} {'MB of runs':>11} {'MB reserved':>12}")
    names = ["blocks", *([] if options.blocks else ["mask"]), *(["fp32", "optimum"] if options.optimum else [])]
    with tempfile.TemporaryDirectory() as scratch:
        write_graphs(options.size, Path(scratch), names, options.whole_blocks)
        for tokens in options.tokens:
            for name in names:
                graph = f"{scratch}/{name}"
                cost = in_fresh_process("benchmarks.studies.local", "--measure", graph, "--tokens", str(tokens))
                each = cost.seconds / tokens * 1e3
                numbers = f"{cost.seconds:9.3f} {each:11.3f} {cost.megabytes:11.0f} {cost.reserved:12.0f}"
                print(f"{name:8} {tokens:7,} {numbers}", flush=True)
    print(f"\n{cpu.model_name()}, {', '.join(cpu.instruction_sets())}, onnxruntime {version('onnxruntime')}, one thread")


if __name__ == "__main__":
    main()
