"""Checkpoints and bundles to measure on: nano, and the exact architectures of two published models with seeded weights."""

import sys
from pathlib import Path

from raskrank.manifest import Precision

ROOT = Path(__file__).parents[1]
WORK = ROOT / "build" / "bench"
SHARED = ROOT.parent / "shared" / "data"
ARCHITECTURES = {"minilm": "ms-marco-MiniLM-L-6-v2", "bge": "bge-reranker-base-BAAI"}
MODELS = ("nano", *ARCHITECTURES)


def checkpoint(model: str) -> Path:
    """The folder of a checkpoint: nano, minilm or bge (made when first asked for), or a path of one's own.

    The architectures need the published config and tokenizer from ../shared; FileNotFoundError says so.
    """
    if model == "nano":
        return ROOT / "export" / "nano"
    if model not in ARCHITECTURES:
        return Path(model)
    source = SHARED / "tokenizers" / ARCHITECTURES[model]
    if not source.is_dir():
        raise FileNotFoundError(f"{model} needs the published config and tokenizer in {source}")
    folder = WORK / model
    if not (folder / "model.safetensors").is_file():
        sys.path.append(str(ROOT / "tests"))
        from builders import seeded_checkpoint

        seeded_checkpoint(folder, source)
    return folder


def bundle(model: str, precision: Precision) -> Path:
    """The bundle of `checkpoint(model)`, exported when first asked for."""
    from raskrank_export import Thresholds, export

    source = checkpoint(model)
    folder = WORK / f"{source.name}-{precision}"
    if not folder.is_dir():
        # Seeded weights say nothing of quality, and the reference pass of a large model takes minutes: two short samples.
        samples = WORK / "samples.tsv"
        WORK.mkdir(parents=True, exist_ok=True)
        samples.write_text("en båt\tEin båt\nen båt\tEn bil\nnurse\tNurse\nnurse\tCar\n", "utf-8")
        loose = Thresholds(min_tau=-1, min_top1=0, max_drift=1, max_mean_drift=1)
        export(str(source), folder, precision=precision, samples=samples, thresholds=loose)
    return folder
