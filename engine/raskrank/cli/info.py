"""`raskrank info`."""

import argparse
import sys
from contextlib import suppress
from dataclasses import asdict
from typing import Any

from raskrank import gate
from raskrank.bundle import read_manifest
from raskrank.cli.shared import choose
from raskrank.manifest import Manifest
from raskrank.printable import safe_lines, table
from raskrank.reranker import Reranker
from raskrank.terminal import columns, show, to_json

# By their keys in the manifest, what the export measured.
MEASURED = {"fp32": "onnx fp32", "trimmed": "onnx trimmed", "int8": "onnx int8", "native": "native int8"}


def run(arguments: argparse.Namespace) -> int:
    choice = choose(arguments)
    manifest, _ = read_manifest(choice.path)
    with Reranker.load(choice, backend=arguments.backend, ignore_target=arguments.ignore_target) as reranker:
        info = reranker.info()
    if arguments.json:
        both = {name: manifest.parity.get(_key(name, manifest)) for name in ("native", "onnx")}
        measured = {name: numbers for name, numbers in both.items() if numbers is not None or name == info.backend}
        show(to_json({**asdict(info), "parity": manifest.parity, "backend_parity": measured}, indent=2))
    else:
        show("\n".join([safe_lines(str(info)), *_parity_table(manifest, info.backend)]))
    return 0


def _key(backend: str, manifest: Manifest) -> str:
    """Of what the manifest's parity has of the bundle in a backend."""
    return "native" if backend == "native" else gate.judged(manifest)


def _parity_table(manifest: Manifest, backend: str) -> list[str]:
    """What the export measured, as far as the manifest has it."""
    rows = []
    for key, name in MEASURED.items():
        numbers: Any = manifest.parity.get(key)
        with suppress(TypeError, KeyError, ValueError, OverflowError):
            rows.append(
                [
                    name,
                    f"{numbers['tau']:.4f}",
                    f"{numbers['top1']:.1%}",
                    f"{numbers['max_drift']:.4f}",
                    f"{numbers['mean_drift']:.4f}",
                    f"{numbers['max_logit_difference']:.2g}",
                    f"{int(numbers['pairs'])}{'*' if numbers['part'] == 'held back' else ''}",
                ]
            )
    if not rows:
        return []
    here = MEASURED[_key(backend, manifest)]
    unmeasured = "" if any(row[0] == here for row in rows) else ", which the export did not measure"
    half = any(row[-1].endswith("*") for row in rows)
    notes = [
        f"runs here: {here}{unmeasured}",
        *(["* the half of the samples that the repair of int8 was not chosen on"] if half else []),
    ]
    header = ["", "Kendall tau", "top-1", "max drift", "mean drift", "max logit diff.", "pairs"]
    size = max(len(row[0]) for row in rows)
    rows = [[row[0].ljust(size), *row[1:]] for row in rows]  # `table` has them end in one column
    return ["", "parity with the checkpoint, as measured by the export", *table(header, rows, columns(sys.stdout)), *notes]
