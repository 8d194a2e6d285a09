"""The models of a benchmark: bundles, and the checkpoint of the first in PyTorch."""

import os
from collections.abc import Container, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import chain, count
from pathlib import Path

from raskrank.bench.progress import step
from raskrank.bundle import read_manifest
from raskrank.manifest import Manifest
from raskrank.options import BackendName
from raskrank.reranker import Reranker
from raskrank.settings import bundle_path
from raskrank.terminal import Steps

PYTORCH = "PyTorch"


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A loaded model, and what a fresh process loads it from: a bundle with its manifest, or a checkpoint."""

    label: str  # different for each
    reranker: Reranker
    backend: BackendName
    bundle: Path | None = None
    manifest: Manifest | None = None
    checkpoint: Path | None = None

    def lengths(self, query: str, passages: Sequence[str]) -> list[int]:
        """Tokens that the model reads of each pair."""
        encoder = self.reranker._loaded.encoder
        return [len(pair.input_ids) for pair in encoder.encode([(query, passage) for passage in passages])]


@contextmanager
def loaded(
    bundles: Sequence[str | os.PathLike[str] | None],
    *,
    threads: int,
    against_torch: bool,
    checkpoint: str | None,
    progress: Steps | None,
) -> Iterator[list[Entry]]:
    """The bundles in order, then perhaps PyTorch, all in memory until the block ends. Raises as `Reranker.load` does."""
    with ExitStack() as opened:
        entries: list[Entry] = []
        paths = [bundle_path(bundle) for bundle in bundles]
        for path in paths:
            label = _unique(path.resolve().name, {PYTORCH, *(entry.label for entry in entries)})
            with step(progress, f"load {label}"):
                manifest, _ = read_manifest(path)
                reranker = opened.enter_context(Reranker.load(path, threads=threads))
            entries.append(Entry(label=label, reranker=reranker, backend="onnx", bundle=path, manifest=manifest))
        if against_torch:
            with step(progress, f"load {PYTORCH}"):
                entries.append(_load_torch(paths[0], checkpoint, threads, opened))
        yield entries


def _load_torch(bundle: Path, checkpoint: str | None, threads: int, opened: ExitStack) -> Entry:
    from raskrank.torch_backend import local_checkpoint

    source = read_manifest(bundle)[0].source
    folder = Path(checkpoint or local_checkpoint(source.model, source.revision))
    # With the bundle, which refuses another checkpoint and has the same max_length.
    reranker = opened.enter_context(Reranker.load(bundle, backend="torch", checkpoint=folder))
    import torch

    opened.callback(torch.set_num_threads, torch.get_num_threads())
    torch.set_num_threads(threads)
    # A fresh process loads the checkpoint alone: to compare digests is our work, not PyTorch's.
    return Entry(label=PYTORCH, reranker=reranker, backend="torch", checkpoint=folder)


def _unique(name: str, taken: Container[str]) -> str:
    names = chain([name], (f"{name} ({number})" for number in count(2)))
    return next(name for name in names if name not in taken)
