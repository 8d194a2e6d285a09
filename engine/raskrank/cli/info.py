"""`raskrank info`."""

import argparse
import sys
from contextlib import suppress
from dataclasses import asdict
from typing import Any

from raskrank.bundle import read_manifest
from raskrank.cli.shared import choose
from raskrank.manifest import Manifest
from raskrank.reranker import Reranker
from raskrank.terminal import columns, safe_lines, show, table, to_json


def run(arguments: argparse.Namespace) -> int:
    choice = choose(arguments)
    manifest, _ = read_manifest(choice.path)
    with Reranker.load(choice, backend=arguments.backend, ignore_target=arguments.ignore_target) as reranker:
        info = reranker.info()
    if arguments.json:
        show(to_json({**asdict(info), "parity": manifest.parity}, indent=2))
    else:
        show("\n".join([safe_lines(str(info)), *_parity_table(manifest)]))
    return 0


def _parity_table(manifest: Manifest) -> list[str]:
    """What the export measured, as far as the manifest has it."""
    rows = []
    for name in ("fp32", "trimmed", "int8"):
        numbers: Any = manifest.parity.get(name)
        with suppress(TypeError, KeyError, ValueError, OverflowError):
            rows.append(
                [
                    f"onnx {name}",
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
    note = ["* the half of the samples that the repair of int8 was not chosen on"] if rows[-1][-1].endswith("*") else []
    header = ["", "Kendall tau", "top-1", "max drift", "mean drift", "max logit diff.", "pairs"]
    return ["", "parity with the checkpoint, as measured by the export", *table(header, rows, columns(sys.stdout)), *note]
