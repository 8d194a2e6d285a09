"""Time for 100 passages, by known model: its published layers with seeded weights, in the bundle that an export makes of them.

    python -m benchmarks.studies.known [MODEL...] [--passages 100] [--every 24]

MODEL is an id of models.toml, or nano; default: all. Vocabularies are the tests' small ones, which changes no product. All read
the same number of tokens: what XLM-R's pieces make of the Norwegian passages of mixed length that `make peers` has, which needs
../shared. A model with another vocabulary makes more or fewer of a text, and takes as much longer (benchmarks.studies.tokens).
Seconds of CPU on one thread, of the fastest of some runs in a fresh process, which what else runs on the machine changes least;
int8 as exported by default, which --every 24 judges on every 24th sample query. For Linux, whose /proc is read.
"""

import argparse
import random
import sys
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tokenizers import Tokenizer

from benchmarks.harness.models import LOOSE, ROOT, SHARED, some_samples
from benchmarks.harness.models import bundle as bundle_of
from benchmarks.harness.runs import in_fresh_process, measure
from benchmarks.harness.workloads import QUERY, passages
from raskrank import Reranker, cpu
from raskrank.checkpoint.registry import known_models
from raskrank_export import export

PIECES = SHARED / "tokenizers" / "bge-reranker-base-BAAI" / "tokenizer.json"
LENGTH, SEED = 512, 0
EVERY = 24  # of the sample queries, an export is judged on one


def lengths(count: int) -> list[int]:
    """Tokens of the query and of each passage in XLM-R's pieces, special tokens not counted."""
    tokenizer = Tokenizer.from_file(str(PIECES))
    tokenizer.no_truncation()
    return [len(found.ids) for found in tokenizer.encode_batch([QUERY, *passages(count)], add_special_tokens=False)]


def text(tokenizer: Tokenizer, tokens: int, rng: random.Random) -> str:
    """Words of the tests' sentences, in any order, that make about so many tokens."""
    from builders import SENTENCES

    known = sorted({word for sentence in SENTENCES for word in sentence.split()})
    chosen, made = list[str](), 0
    while made < tokens:
        chosen.append(rng.choice(known))
        made += len(tokenizer.encode(f" {chosen[-1]}", add_special_tokens=False).ids)
    return " ".join(chosen)


def checkpoint(model: str, folder: Path) -> Path:
    """With the layers that are published."""
    from modernbert import modernbert_checkpoint, modular_checkpoint
    from published import GTE, MODERNBERT, tiny_published_checkpoint

    if model not in MODERNBERT:
        return tiny_published_checkpoint(folder, model, sizes={})
    make = modernbert_checkpoint if model == GTE else modular_checkpoint
    sizes: dict[str, Any] = {key: size for key, size in MODERNBERT[model].items() if key != "vocab_size"}
    return make(folder, local_attention=128, **sizes)


def made(model: str, scratch: Path, every: int = EVERY, length: int = LENGTH) -> Path:
    """The bundle. length: tokens of a pair that it allows."""
    if model == "nano":
        return bundle_of("nano", "int8")
    export(
        checkpoint(model, scratch / "checkpoint"),
        scratch / "bundle",
        samples=some_samples(scratch, every),
        thresholds=LOOSE,
        max_length=length,
        accept_license="cc-by-nc-4.0",
        relevant_label="LABEL_1" if model.startswith("amberoad/") else None,
    )
    return scratch / "bundle"


def run_here(folder: Path, count: int) -> None:
    """Measure the bundle in this process."""
    tokenizer, rng = Tokenizer.from_file(str(folder / "tokenizer.json")), random.Random(SEED)
    tokenizer.no_truncation()
    query, *documents = (text(tokenizer, tokens, rng) for tokens in lengths(count))
    with Reranker.load(folder, threads=1) as reranker:
        measure(lambda: reranker.score(query, documents))


def main() -> None:
    sys.path.append(str(ROOT / "tests"))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", metavar="MODEL", nargs="*", default=[*(model.id for model in known_models()), "nano"])
    parser.add_argument("--passages", type=int, default=100)
    parser.add_argument("--every", type=int, default=EVERY)
    parser.add_argument("--measure", help=argparse.SUPPRESS)  # the bundle that this process is to run
    options = parser.parse_args()
    if options.measure:
        run_here(Path(options.measure), options.passages)
        return
    query, *documents = lengths(options.passages)
    total = sum(min(query + tokens + 4, LENGTH) for tokens in documents)
    print(f"{cpu.model_name()}, {', '.join(cpu.instruction_sets())}, onnxruntime {version('onnxruntime')}, one thread:")
    print(f"seconds of CPU for {options.passages} passages, {total:,} tokens with their queries\n")
    print("| model | seconds |\n|---|---:|")
    for model in options.models:
        with TemporaryDirectory() as scratch:
            folder = made(model, Path(scratch), options.every)
            arguments = ("--measure", str(folder), "--passages", str(options.passages))
            print(f"| {model} | {in_fresh_process(__spec__.name, *arguments).seconds:.2f} |", flush=True)


if __name__ == "__main__":
    main()
