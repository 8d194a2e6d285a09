"""Checkpoints and bundles to measure on: nano, and the exact architectures of two published models with seeded weights."""

import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from tokenizers import Tokenizer

from raskrank import RaskrankError
from raskrank.gate import Thresholds
from raskrank.manifest import MANIFEST, Manifest, Precision
from raskrank.samples import DEFAULT

if TYPE_CHECKING:
    from raskrank_export.quantization import ActivationScheme

ROOT = Path(__file__).parents[2]
WORK = ROOT / "build" / "bench"
SHARED = ROOT.parent / "shared" / "data"
ARCHITECTURES = {"minilm": "ms-marco-MiniLM-L-6-v2", "bge": "bge-reranker-base-BAAI"}
MODELS = ("nano", *ARCHITECTURES)
LOOSE = Thresholds(min_tau=-1, min_top1=0, max_drift=1, max_mean_drift=1)  # seeded weights rank nothing
HELP = f"one of {', '.join(MODELS)}, or a checkpoint folder"


def checkpoint(model: str) -> Path:
    """The folder of a checkpoint: nano, minilm or bge (made when first asked for), or a path of one's own.

    The architectures need the published config and tokenizer from ../shared; FileNotFoundError says so.
    """
    if model == "nano":
        return ROOT / "export" / "nano"
    if model not in ARCHITECTURES:
        return Path(model).resolve()
    source = SHARED / "tokenizers" / ARCHITECTURES[model]
    if not source.is_dir():
        raise FileNotFoundError(f"{model} needs the published config and tokenizer in {source}")
    folder = WORK / model
    if not (folder / "model.safetensors").is_file():
        sys.path.append(str(ROOT / "tests"))
        from builders import seeded_checkpoint

        seeded_checkpoint(folder, source)
    return folder


def bundle(model: str, precision: Precision, scheme: "ActivationScheme | None" = None) -> Path:
    """The bundle of `checkpoint(model)`, exported when first asked for, and anew where the format has changed since."""
    source = checkpoint(model)
    folder = WORK / f"{source.name}-{precision}{'' if scheme is None else f'-{scheme}'}"
    if not _readable(folder):
        shutil.rmtree(folder, ignore_errors=True)
        from raskrank_export import export

        WORK.mkdir(parents=True, exist_ok=True)
        export(
            str(source),
            folder,
            precision=precision,
            scheme=scheme,
            samples=None if model == "nano" else some_samples(WORK, every=6),
            thresholds=LOOSE,
        )
    return folder


def some_samples(folder: Path, every: int) -> Path:
    """A file in `folder` with every `every`-th sample query: PyTorch takes minutes for all of them with a large model."""
    file = folder / "samples.jsonl"
    file.write_text("\n".join(DEFAULT.read_text("utf-8").splitlines()[::every]), "utf-8")
    return file


def _readable(folder: Path) -> bool:
    try:
        manifest(folder)
    except (OSError, RaskrankError):
        return False
    return True


def manifest(folder: Path) -> Manifest:
    """Of a bundle."""
    return Manifest.from_json((folder / MANIFEST).read_text("utf-8"))


def plain_tokenizer(model: str) -> Tokenizer:
    """The checkpoint's tokenizer; it neither truncates nor pads, so that it counts."""
    tokenizer = Tokenizer.from_file(str(checkpoint(model) / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer
