"""DeBERTa's written graph beside the one that optimum traces and onnxruntime quantizes: time of a pair, by its tokens.

    python -m benchmarks.studies.deberta [--size xsmall|base] [--tokens 16 128 256 512] [--rounds 7]

Published width, seeded weights, one thread; the four take turns, and of each the fastest run counts. int8 is by rows here, and
there as sentence-transformers and optimum make it: a scale for each column, one range for all of an activation. The scores of
the two fp32 graphs are compared, so that nobody is fast by being wrong.
"""

import argparse
import tempfile
import time
import warnings
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from raskrank import cpu
from raskrank.manifest import MODEL
from raskrank.onnx_backend import DISABLED_OPTIMIZERS

SIZES = {"xsmall": (12, 384, 6), "base": (12, 768, 12)}  # layers, hidden size, heads
TOKENS = (16, 128, 256, 512)
VOCABULARY, LONGEST, BUCKETS, SEED = 128100, 512, 256, 0


def checkpoint(folder: Path, size: str) -> Path:
    """A folder as mixedbread-ai publishes one, with seeded weights and no tokenizer to speak of."""
    import torch
    import transformers

    library: Any = transformers
    layers, hidden, heads = SIZES[size]
    config = library.DebertaV2Config(
        vocab_size=VOCABULARY,
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=4 * hidden,
        max_position_embeddings=LONGEST,
        type_vocab_size=0,
        relative_attention=True,
        position_biased_input=False,
        pos_att_type=["p2c", "c2p"],
        share_att_key=True,
        norm_rel_ebd="layer_norm",
        position_buckets=BUCKETS,
        num_labels=1,
    )
    torch.manual_seed(SEED)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        model = library.DebertaV2ForSequenceClassification(config)
    model.save_pretrained(folder)
    (folder / "tokenizer.json").write_text("{}")
    return folder


def make_graphs(folder: Path, scratch: Path) -> dict[str, Path]:
    """The graphs by name: what is to be run."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    from raskrank.checkpoint import read_checkpoint
    from raskrank.torch_backend import TorchBackend
    from raskrank_export.graph import export_model, make_graph, save
    from raskrank_export.quantization import Quantization
    from raskrank_export.quantize import quantize

    read = read_checkpoint(folder)
    for name in ("traced", "written", "written-int8"):
        (scratch / name).mkdir()
    traced = export_model(TorchBackend(read).model, scratch / "traced")
    quantize_dynamic(traced, scratch / "traced" / "int8.onnx", per_channel=True, weight_type=QuantType.QInt8)
    graph = make_graph(TorchBackend(read), read, scratch / "scratch").model
    save(graph, scratch / "written")
    quantize(graph, Quantization(scheme="row"))
    save(graph, scratch / "written-int8")
    return {
        "traced, fp32": traced,
        "traced, int8": scratch / "traced" / "int8.onnx",
        "written, fp32": scratch / "written" / MODEL,
        "written, int8": scratch / "written-int8" / MODEL,
    }


def session(file: Path) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(
        str(file), options, providers=["CPUExecutionProvider"], disabled_optimizers=DISABLED_OPTIMIZERS
    )


def run(session: Any, ids: Any) -> float:
    feeds = {item.name: ids if item.name == "input_ids" else np.ones_like(ids) for item in session.get_inputs()}
    return float(session.run(None, feeds)[0].reshape(-1)[0])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZES, default="xsmall")
    parser.add_argument("--tokens", type=int, nargs="+", default=TOKENS)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        files = make_graphs(checkpoint(Path(scratch) / "checkpoint", options.size), Path(scratch))
        sessions = {name: session(file) for name, file in files.items()}
        print(f"{options.size}, {cpu.model_name()}, {', '.join(cpu.instruction_sets())}, onnxruntime {version('onnxruntime')}")
        print("| tokens |" + "".join(f" {name}, ms |" for name in sessions) + " fp32 logits apart |")
        print("|---:" * (len(sessions) + 2) + "|")
        for tokens in options.tokens:
            ids = np.random.default_rng(SEED).integers(4, VOCABULARY, (1, tokens))
            logits, best = {name: run(one, ids) for name, one in sessions.items()}, dict.fromkeys(sessions, np.inf)
            for _ in range(options.rounds):
                for name, one in sessions.items():
                    start = time.perf_counter()
                    run(one, ids)
                    best[name] = min(best[name], time.perf_counter() - start)
            apart = abs(logits["traced, fp32"] - logits["written, fp32"])
            cells = [f"{tokens}", *(f"{seconds * 1e3:.1f}" for seconds in best.values()), f"{apart:.1e}"]
            print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
