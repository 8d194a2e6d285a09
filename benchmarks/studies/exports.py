"""What an export takes: time of each step, and memory, by model, with the exporter that fits the transformers installed here.

    python -m benchmarks.studies.exports [MODEL...] [--every 1] [--layers 12] [--hidden 768]

MODEL is nano, minilm, bge, a checkpoint's folder, or a family of tests/builders.py, such as mpnet: that architecture in the
size given, with the builders' small vocabulary. Default: nano, minilm and bge. Each has a process of its own, whose peak it is.
Weights are seeded, so the thresholds of int8 are loose and none is repaired. --every 6 judges on every sixth sample query.
What a bundle gains over a plain export, by the same families: benchmarks.studies.plain.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.harness.families import folder_of
from benchmarks.harness.models import HELP, LOOSE, ROOT, some_samples
from raskrank_export import export, tracing

COLUMNS = (
    "model",
    "parameters",
    "peak, GB",
    "seconds",
    "of which PyTorch",
    "graph",
    "ONNX fp32",
    "PyTorch fp64",
    "int8",
    "rest",
)
STEPS = ("score with PyTorch", "export to ONNX", "score with ONNX fp32", "score with PyTorch fp64")
INT8 = ("quantize to int8", "score with ONNX int8", "score with our kernels int8")


def exported(source: str, every: int) -> dict[str, Any]:
    """In this process: what the report of an export says."""
    with TemporaryDirectory() as folder:
        samples = some_samples(Path(folder), every)
        report = export(Path(source), Path(folder) / "bundle", samples=samples, thresholds=LOOSE)
    return {
        "parameters": report.manifest.parameters,
        "peak": report.peak_memory_bytes,
        "seconds": report.seconds,
        "scheme": report.manifest.recipe.scheme,
    }


def row(model: str, found: dict[str, Any]) -> str:
    seconds: dict[str, float] = found["seconds"]
    int8 = sum(seconds.get(step, 0) for step in INT8)
    named = [seconds[step] for step in STEPS]
    total = sum(seconds.values())
    numbers = [total, *named, int8, total - sum(named) - int8]
    peak = "-" if found["peak"] is None else f"{found['peak'] / 1e9:.2f}"
    cells = [model, f"{found['parameters'] / 1e6:.0f} M", peak, *(f"{number:.1f}" for number in numbers)]
    return f"| {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", metavar="MODEL", nargs="*", default=["nano", "minilm", "bge"], help=HELP)
    parser.add_argument("--every", type=int, default=1)
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--hidden", type=int, default=768)
    parser.add_argument("--here", help=argparse.SUPPRESS)  # the folder that this process is to export
    arguments = parser.parse_args()
    if arguments.here:
        print(json.dumps(exported(arguments.here, arguments.every)))
        return
    print(f"traced by {tracing.route()}\n\n| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}")
    for model in arguments.models:
        folder = folder_of(model, arguments.layers, arguments.hidden)
        command = [sys.executable, "-m", __spec__.name, "--every", str(arguments.every), "--here", str(folder)]
        done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
        print(row(model, json.loads(done.stdout)), flush=True)


if __name__ == "__main__":
    main()
