"""One query with many passages: Raskrank and its peers side by side, interleaved in one run.

    python benchmarks/speed.py [--model minilm|bge|nano|FOLDER] [--passages 100] [--kind mixed] [--rounds 5] [--json FILE]

Times are of the whole call, tokenising included. Ratios are of medians; their spread is the range over the rounds, each of
which measures everyone once.
"""

import argparse
import json
import platform
import statistics
import time
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from tqdm import tqdm

import peers
import workloads
from models import MODELS
from raskrank import cpu

OURS = "raskrank int8"


def measure(entries: list[peers.Peer], documents: list[str], rounds: int) -> dict[str, list[float]]:
    """Seconds of each round for each entry, after one call that is not counted."""
    seconds: dict[str, list[float]] = {entry.name: [] for entry in entries}
    for number in tqdm(range(rounds + 1), desc="rounds", leave=False):
        for entry in entries:
            start = time.perf_counter()
            entry.score(workloads.QUERY, documents)
            if number:
                seconds[entry.name].append(time.perf_counter() - start)
    return seconds


def conditions() -> dict[str, str]:
    """Where and with what a measurement was made."""
    packages = ("raskrank", "onnxruntime", "tokenizers", "torch", "transformers", "sentence-transformers")
    return {
        "machine": f"{cpu.model_name()}, {cpu.usable_cpus()} cores, {', '.join(cpu.instruction_sets())}",
        "date": datetime.now(UTC).date().isoformat(),
        "versions": ", ".join(f"{package} {version(package)}" for package in packages),
        "python": platform.python_version(),
        "texts": workloads.source(),
        "sentence-transformers int8 preset": peers.preset(),
    }


def table(seconds: dict[str, list[float]], passages: int) -> str:
    reference = seconds[OURS]
    lines = [f"{'':32}{'median ms':>10}{'best':>8}{'passages/s':>12}{'times as long as ours':>24}"]
    for name, rounds in sorted(seconds.items(), key=lambda item: statistics.median(item[1])):
        median = statistics.median(rounds)
        ratios = [theirs / ours for theirs, ours in zip(rounds, reference, strict=True)]
        ratio = f"{median / statistics.median(reference):.2f} ({min(ratios):.2f}–{max(ratios):.2f})"
        lines.append(f"{name:32}{median * 1e3:10.0f}{min(rounds) * 1e3:8.0f}{passages / median:12.0f}{ratio:>24}")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="minilm", help=f"one of {', '.join(MODELS)}, or a checkpoint folder")
    parser.add_argument("--passages", type=int, default=100)
    parser.add_argument("--kind", choices=("short", "mixed", "long"), default="mixed")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, help="write seconds and conditions to this file")
    arguments = parser.parse_args()
    entries = [
        peers.raskrank(arguments.model, "int8"),
        peers.raskrank(arguments.model, "fp32"),
        *(peers.sentence_transformers(arguments.model, kind) for kind in ("torch", "onnx fp32", "onnx int8")),
    ]
    documents = workloads.passages(arguments.passages, arguments.kind)
    seconds = measure(entries, documents, arguments.rounds)
    about = conditions()
    print(f"{arguments.model}: one query, {arguments.passages} {arguments.kind} passages, {arguments.rounds} rounds\n")
    print(table(seconds, arguments.passages), *(f"{name}: {value}" for name, value in about.items()), sep="\n")
    if arguments.json:
        arguments.json.write_text(json.dumps({"model": arguments.model, "seconds": seconds, **about}, indent=1), "utf-8")


if __name__ == "__main__":
    main()
