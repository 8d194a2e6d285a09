"""Loading the models that are measured side by side."""

from collections import Counter
from collections.abc import Container, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import chain, count
from pathlib import Path

from raskrank.bundle import read_manifest
from raskrank.errors import CheckpointError, InputError
from raskrank.manifest import MANIFEST, Source
from raskrank.measure.cascade import CascadeContender
from raskrank.measure.contender import Contender
from raskrank.measure.cross_encoder import CrossEncoder
from raskrank.measure.progress import step
from raskrank.options import BackendName
from raskrank.terminal import Steps

PYTORCH, PLAIN = "PyTorch", "plain export"  # labels of the checkpoint in a benchmark


@dataclass(frozen=True, kw_only=True)
class PlainExport:
    """A checkpoint as another exporter alone makes a graph of it, in fp32, in a bundle's form."""

    folder: Path  # of that bundle
    checkpoint: Path  # its folder
    made: str  # by what, and of what: "optimum-onnx 0.1.0"


@contextmanager
def loaded_for_bench(
    bundles: Sequence[Path],
    *,
    threads: int,
    backend: BackendName | None = None,
    against_torch: bool = False,
    plain: PlainExport | None = None,
    checkpoint: Path | None = None,
    progress: Steps | None = None,
) -> Iterator[Mapping[str, CrossEncoder]]:
    """The bundles in order, then the checkpoint of the first as asked for, in memory until the block ends.

    The keys are labels: the names of their folders, numbered where a name is taken, PYTORCH and PLAIN. threads: of each of
    them. backend: of the bundles, as in `Reranker.load`. plain: of that checkpoint. checkpoint: its folder. Default: where the
    first bundle's manifest says. Raises as `Reranker.load` does.
    """
    with ExitStack() as stack:
        found: dict[str, CrossEncoder] = {}
        for bundle in bundles:
            label = _unique(bundle.resolve().name, {PYTORCH, PLAIN, *found})
            with step(progress, f"load {label}"):
                found[label] = CrossEncoder(bundle=bundle, backend=backend, threads=threads)
            stack.callback(found[label].close)
        if against_torch:
            with step(progress, f"load {PYTORCH}"):
                folder = checkpoint or _local_checkpoint(read_manifest(bundles[0])[0].source)
                found[PYTORCH] = CrossEncoder(bundle=bundles[0], checkpoint=folder, threads=threads)
            stack.callback(found[PYTORCH].close)
            _set_torch_threads(threads, stack)
        if plain is not None:
            with step(progress, f"load {PLAIN}"):
                found[PLAIN] = CrossEncoder(bundle=plain.folder, backend="onnx", threads=threads)
            stack.callback(found[PLAIN].close)
        yield found


@contextmanager
def loaded_for_comparison(
    folders: Sequence[Path],
    *,
    threads: int,
    backend: BackendName | None = None,
    against_torch: bool = False,
    cascade: Sequence[int] = (),
    others: Sequence[Contender] = (),
) -> Iterator[Sequence[Contender]]:
    """The models in order, in memory until the block ends.

    folders: each of a bundle, or of a checkpoint, which runs in PyTorch. threads: of each of them. backend: of the bundles,
    as in `Reranker.load`. against_torch: also the checkpoint of each bundle, once, in front of the first bundle that was made
    from it. cascade: also the models in a row, each but the last passing on so many documents. others: added at the end, and
    closed with the models. Where two share a name and a backend, their folders are added to their names.

    Raises InputError for a model that is there twice, CheckpointError for a checkpoint that is not on this machine, and as
    `Reranker.load` does.
    """
    for folder, times in Counter(folder.resolve() for folder in folders).items():
        if times > 1:
            raise InputError(f"{folder} is there {times} times; name each model once")
    with ExitStack() as stack:
        found: list[Contender] = []
        models: list[CrossEncoder] = []
        references: dict[tuple[str, int], CrossEncoder] = {}  # by digest of the weights, and max_length

        def add(contender: Contender) -> None:
            stack.callback(contender.close)
            found.append(contender)

        for folder in folders:
            if _is_checkpoint(folder):
                models.append(CrossEncoder(checkpoint=folder, threads=threads))
                add(models[-1])
                continue
            reference = None
            if against_torch:
                manifest, _ = read_manifest(folder)
                key = manifest.source.weights_sha256, manifest.max_length
                if key not in references:
                    checkpoint = _reference_folder(folder, manifest.source)
                    references[key] = CrossEncoder(bundle=folder, checkpoint=checkpoint, threads=threads)
                    add(references[key])
                reference = references[key]
            models.append(CrossEncoder(bundle=folder, backend=backend, reference=reference, threads=threads))
            add(models[-1])
        _tell_apart(found)
        if cascade:
            add(CascadeContender(models, cascade))
        for other in others:
            add(other)
        _tell_apart(others)
        if any(contender.backend in ("torch", "bi-encoder") for contender in found):
            _set_torch_threads(threads, stack)
        yield found


def _set_torch_threads(threads: int, stack: ExitStack) -> None:
    """For PyTorch in this process, until the stack ends. Left alone it does not see a container's quota."""
    import torch

    stack.callback(torch.set_num_threads, torch.get_num_threads())
    torch.set_num_threads(threads)


def _local_checkpoint(source: Source) -> Path:
    from raskrank.torch_backend import local_checkpoint

    return local_checkpoint(source.model, source.revision)


def _reference_folder(bundle: Path, source: Source) -> Path:
    try:
        return _local_checkpoint(source)
    except CheckpointError as error:
        raise CheckpointError(
            f"{bundle}: its checkpoint {source.model} is not on this machine; leave out --against torch, or name the "
            "checkpoint's folder as a MODEL"
        ) from error


def _is_checkpoint(folder: Path) -> bool:
    return (folder / "config.json").is_file() and not (folder / MANIFEST).is_file()


def _unique(name: str, taken: Container[str]) -> str:
    names = chain([name], (f"{name} ({number})" for number in count(2)))
    return next(name for name in names if name not in taken)


def _tell_apart(contenders: Sequence[Contender]) -> None:
    counts = Counter((contender.name, contender.runs) for contender in contenders)
    for contender in contenders:
        if counts[contender.name, contender.runs] > 1:
            contender.name += f" ({contender.origin})"
