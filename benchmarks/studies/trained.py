"""Schemes of int8 on real trained weights: how far each is from fp32, its size, and the time of a run, side by side.

    python -m benchmarks.studies.trained [CHECKPOINT]    by default ../shared/data/minilm-trained

Seeded weights have no outliers and no order to lose, so that they say nothing of fidelity. One thread; the schemes take turns.
"""

import argparse
import tempfile
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import numpy as np
import onnx

from benchmarks.harness.models import SHARED, bundle
from raskrank import Reranker, cpu
from raskrank.bundle import open_bundle
from raskrank.encoding import EncodedPair
from raskrank.manifest import MODEL, WEIGHTS
from raskrank.measure.timing import interleaved
from raskrank.parity import compare
from raskrank.samples import as_pairs, read_samples
from raskrank.tokenizer import load_encoder
from raskrank_export import graph
from raskrank_export.encoder import find_encoder
from raskrank_export.progress import Silent
from raskrank_export.quantization import EXACT, GROUP, PORTABLE, Quantization
from raskrank_export.quantize import quantize
from raskrank_export.scoring import graph_backend, graph_logits

SCHEMES = {
    "row": Quantization(levels=PORTABLE),
    "row, 8 bits": Quantization(levels=EXACT),
    "group": GROUP,
    "weights": Quantization(scheme="weights", levels=EXACT),
}
TOKENS = (16, 128, 256)
ROUNDS, SECONDS = 20, 20.0


def graphs(fp32: Path, folder: Path) -> dict[str, Path]:
    """A folder with graph and weights for each scheme, by name; fp32 first."""
    made = {"fp32": fp32}
    for name, quantization in SCHEMES.items():
        made[name] = folder / name
        made[name].mkdir()
        model = onnx.load(str(fp32 / MODEL))
        quantize(model, quantization, find_encoder(model))
        graph.save(model, made[name])
    return made


def compare_errors(
    folders: Mapping[str, Path], inputs: tuple[str, ...], pairs: list[tuple[str, str]], encoded: list[EncodedPair]
) -> None:
    print(f"{'':12}{'tau':>9}{'top-1':>8}{'max drift':>11}{'mean drift':>12}{'mean logit':>12}{'MB':>8}")
    logits = {name: graph_logits(folder, inputs, encoded, Silent(), groups=False) for name, folder in folders.items()}
    for name, folder in folders.items():
        found = compare(pairs, ("fp32", logits["fp32"]), (name, logits[name]))
        size = sum((folder / file).stat().st_size for file in (MODEL, WEIGHTS)) / 1e6
        print(
            f"{name:12}{found.tau:9.4f}{found.top1:8.3f}{found.max_drift:11.4f}{found.mean_drift:12.4f}"
            f"{found.mean_logit_difference:12.4f}{size:8.1f}"
        )


def compare_times(folders: Mapping[str, Path], inputs: tuple[str, ...]) -> None:
    backends = {name: graph_backend(folder, inputs, concurrency=1, groups=False) for name, folder in folders.items()}
    print("\nmedian ms of one pair, by tokens\n")
    print(f"{'':12}", *(f"{tokens:>8}" for tokens in TOKENS))
    found = {}
    for tokens in TOKENS:
        ids = np.random.default_rng(tokens).integers(1000, 4000, (1, tokens))
        runs = {name: partial(backend.logits, ids, np.zeros_like(ids)) for name, backend in backends.items()}
        found[tokens] = interleaved(runs, rounds=ROUNDS, budget_s=SECONDS)
    for name in backends:
        print(f"{name:12}", *(f"{1e3 * found[tokens][name].median:8.2f}" for tokens in TOKENS))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", nargs="?", type=Path, default=SHARED / "minilm-trained")
    fp32 = bundle(str(parser.parse_args().checkpoint), "fp32")
    opened = open_bundle(fp32)
    manifest, pairs = opened.manifest, as_pairs(read_samples())
    encoder = load_encoder(opened.tokenizer, manifest.max_length, manifest.vocab_size, fp32, parallel=True)
    versions = Reranker.load(backend="onnx").info().versions
    print(f"{manifest.name}; {cpu.model_name()}, {', '.join(cpu.instruction_sets())}; {versions}\n")
    with tempfile.TemporaryDirectory() as scratch:
        folders = graphs(fp32, Path(scratch))
        compare_errors(folders, manifest.inputs, pairs, encoder.encode(pairs))
        compare_times(folders, manifest.inputs)


if __name__ == "__main__":
    main()
