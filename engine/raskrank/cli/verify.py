"""`raskrank verify`."""

import argparse
from pathlib import Path

from raskrank.cli.shared import choose, progress_bar
from raskrank.errors import ParityError
from raskrank.extras import need_exporter
from raskrank.reranker import Reranker
from raskrank.samples import as_pairs, read_samples
from raskrank.terminal import show, to_json


def run(arguments: argparse.Namespace) -> int:
    path = choose(arguments).path
    need_exporter("verify")
    pairs = as_pairs(read_samples(None if arguments.pairs is None else Path(arguments.pairs)))
    with Reranker.load(path, backend=arguments.backend, checkpoint=arguments.checkpoint) as reranker:
        info = reranker.info()
        with progress_bar(reranker, "verifying", 2 * len(pairs)):  # each is scored twice
            found = reranker.verify(pairs)
    if arguments.json:
        about = {
            "name": info.name,
            "bundle": str(path),
            "precision": info.precision,
            "backend": info.backend,
            "passed": found.passed,
        }
        judged = {"failed": [*found.failed], "thresholds": found.thresholds, "parity": found.summary()}
        show(to_json({**about, **judged}, indent=2))
    else:
        show(str(found))
    if not found.passed:
        raise ParityError(f"{path}: the bundle differs from its checkpoint: {'; '.join(found.failed.values())}")
    return 0
