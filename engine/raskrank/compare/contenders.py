"""What is compared: bundles, and checkpoints in PyTorch, behind the little that a comparison asks of a model."""

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import NamedTuple, Protocol

from tokenizers import Tokenizer

from raskrank import cpu
from raskrank.bundle import read_manifest
from raskrank.checkpoint import read_checkpoint
from raskrank.errors import CheckpointError, InputError, NonFiniteScore
from raskrank.manifest import FILES, MANIFEST, TOKENIZER, Source
from raskrank.measuring import FreshProcess, fresh_process
from raskrank.options import BackendName
from raskrank.reranker import Reranker
from raskrank.settings import choose

BUNDLE_FILES = (MANIFEST, *FILES)
CHECKPOINT_FILES = ("config.json", TOKENIZER, "*.safetensors")


class Ranking(NamedTuple):
    """order: positions of the documents, best first; those whose score is no number come last, in input order."""

    order: tuple[int, ...]
    non_finite: int


class Contender(Protocol):
    """A loaded model, and what its files say of it."""

    name: str
    runs: str  # "onnx int8", "torch fp32", ...
    origin: str  # its folder, or hub id
    reference: "Contender | None"  # the checkpoint beside which a bundle stands
    license: str | None
    parameters: int
    disk_bytes: int | None  # of the files that are read to load it; None where they are not known

    def rank(self, query: str, documents: Sequence[str]) -> Ranking:
        """Rank documents, at least one."""

    def run(self, query: str, documents: Sequence[str]) -> None:
        """What `rank` computes, once, whatever the scores are: for timing."""

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text, whole and without special tokens."""

    def start_anew(self, query: str, documents: Sequence[str]) -> FreshProcess | None:
        """What a fresh process takes to load it and score the documents; None where that is not measured."""

    def close(self) -> None:
        """Free the model."""


class CrossEncoder:
    """A bundle, or a checkpoint in PyTorch."""

    def __init__(
        self, *, bundle: Path | None = None, checkpoint: Path | None = None, reference: Contender | None = None
    ) -> None:
        """A bundle runs by itself. A checkpoint runs in PyTorch; with a bundle, as the one from which that was made.

        Raises as `Reranker.load` does.
        """
        self._checkpoint, self.reference = checkpoint, reference
        self._backend: BackendName = "torch" if checkpoint else "onnx"
        self._reranker = Reranker.load(bundle, backend=self._backend, checkpoint=checkpoint)
        info = self._reranker.info()
        self.name, self.runs = info.name, f"{info.backend} {info.precision}"
        self.license = info.license
        self._folder = checkpoint or Path(info.bundle or "")
        self.origin = str(self._folder)
        self.parameters = read_checkpoint(checkpoint).parameters if checkpoint else info.parameters or 0
        names = CHECKPOINT_FILES if checkpoint else BUNDLE_FILES
        self.disk_bytes: int | None = sum(file.stat().st_size for name in names for file in self._folder.glob(name))

    def rank(self, query: str, documents: Sequence[str]) -> Ranking:
        try:
            return Ranking(tuple(hit.index for hit in self._reranker.rank(query, documents)), 0)
        except NonFiniteScore as error:
            # A score depends on its pair alone, so that the others can be ranked by themselves.
            finite = [index for index in range(len(documents)) if index not in error.indices]
            hits = self._reranker.rank(query, [documents[index] for index in finite])
            return Ranking((*(finite[hit.index] for hit in hits), *error.indices), len(error.indices))

    def run(self, query: str, documents: Sequence[str]) -> None:
        with suppress(NonFiniteScore):
            self._reranker.rank(query, documents)

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        tokenizer = Tokenizer.from_file(str(self._folder / TOKENIZER))
        tokenizer.no_truncation()
        tokenizer.no_padding()
        return [len(encoding.ids) for encoding in tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)]

    def start_anew(self, query: str, documents: Sequence[str]) -> FreshProcess:
        # A checkpoint alone: that it is the bundle's is known by now, and the time of the digests is not PyTorch's.
        bundle = None if self._checkpoint else self._folder
        threads, backend = cpu.usable_cpus(), self._backend
        return fresh_process(
            bundle, threads=threads, backend=backend, checkpoint=self._checkpoint, query=query, texts=documents
        )

    def close(self) -> None:
        self._reranker.close()


@contextmanager
def loaded(
    models: Sequence[str | os.PathLike[str]], *, against_torch: bool, bi_encoder: str | None = None
) -> Iterator[list[Contender]]:
    """The contenders, all in memory until the block ends.

    models: each a bundle as `Reranker.load` takes it, or the folder of a checkpoint; none: the bundle that it takes without
    one. against_torch: the checkpoint of each bundle too, before the first bundle that was made from it. Names that are not
    clear without it have the folder after them. Raises InputError for a model that is there twice, and as `Reranker.load`.
    """
    folders = [choose(model).path for model in models] or [choose(None).path]
    for folder, count in Counter(folder.resolve() for folder in folders).items():
        if count > 1:
            raise InputError(f"{folder} is there {count} times; name each model once")
    with ExitStack() as stack:
        found: list[Contender] = []
        references: dict[tuple[str, int], CrossEncoder] = {}

        def add(contender: Contender) -> None:
            stack.callback(contender.close)
            found.append(contender)

        for folder in folders:
            if _is_checkpoint(folder):
                add(CrossEncoder(checkpoint=folder))
                continue
            reference = None
            if against_torch:
                manifest, _ = read_manifest(folder)
                key = manifest.source.weights_sha256, manifest.max_length
                if key not in references:
                    references[key] = CrossEncoder(bundle=folder, checkpoint=_source_folder(folder, manifest.source))
                    add(references[key])
                reference = references[key]
            add(CrossEncoder(bundle=folder, reference=reference))
        if bi_encoder is not None:
            from raskrank.compare.bi_encoder import BiEncoder

            add(BiEncoder(bi_encoder))
        _tell_apart(found)
        if not all(contender.runs.startswith("onnx ") for contender in found):
            _give_torch_all_cores(stack)
        yield found


def _is_checkpoint(folder: Path) -> bool:
    return (folder / "config.json").is_file() and not (folder / MANIFEST).is_file()


def _source_folder(bundle: Path, source: Source) -> Path:
    from raskrank.torch_backend import local_checkpoint

    try:
        return local_checkpoint(source.model, source.revision)
    except CheckpointError as error:
        raise CheckpointError(
            f"{bundle}: its checkpoint {source.model} is not on this machine; leave out --against torch, or name the "
            "checkpoint's folder as a MODEL"
        ) from error


def _give_torch_all_cores(stack: ExitStack) -> None:
    """As many threads as bundles have, until the stack ends; by itself PyTorch does not see a container's quota."""
    import torch

    stack.callback(torch.set_num_threads, torch.get_num_threads())
    torch.set_num_threads(cpu.usable_cpus())


def _tell_apart(contenders: Sequence[Contender]) -> None:
    counts = Counter((contender.name, contender.runs) for contender in contenders)
    for contender in contenders:
        if counts[contender.name, contender.runs] > 1:
            contender.name += f" ({contender.origin})"
