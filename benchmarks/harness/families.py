"""A checkpoint of every family that is exported, in a size of choice, with seeded weights and the builders' vocabulary."""

import sys
from pathlib import Path

from benchmarks.harness.models import ROOT, WORK, checkpoint

HEAD_WIDTH, POSITIONS = 64, 512
# Made by tests/modernbert.py, and of which one layer in three is global.
MODERNBERT = ("modernbert", "ettin")


def names() -> tuple[str, ...]:
    """Of the families of tests/builders.py."""
    sys.path.append(str(ROOT / "tests"))
    from builders import Family

    return tuple(Family.__args__)  # type: ignore[attr-defined]


def folder_of(model: str, layers: int, hidden: int) -> Path:
    """The folder of a family's checkpoint, made when first asked for; of another model, as `models.checkpoint`."""
    if model not in names():
        return checkpoint(model)
    folder = WORK / f"{model}-{layers}-{hidden}"
    if not (folder / "config.json").is_file():  # written last
        heads = max(1, hidden // HEAD_WIDTH)
        (_modernbert if model in MODERNBERT else _bert)(folder, model, layers, hidden, heads)
    return folder


def _bert(folder: Path, model: str, layers: int, hidden: int, heads: int) -> None:
    from builders import Family, tiny_checkpoint

    families: dict[str, Family] = {name: name for name in Family.__args__}  # type: ignore[attr-defined]
    tiny_checkpoint(
        folder,
        families[model],
        layers=layers,
        hidden=hidden,
        heads=heads,
        intermediate=4 * hidden,
        positions=POSITIONS,
    )


def _modernbert(folder: Path, model: str, layers: int, hidden: int, heads: int) -> None:
    from modernbert import modernbert_checkpoint, modular_checkpoint

    make = modular_checkpoint if model == "ettin" else modernbert_checkpoint
    make(
        folder,
        num_hidden_layers=layers,
        hidden_size=hidden,
        num_attention_heads=heads,
        intermediate_size=3 * hidden // 2,  # gated: two products of this width, as the published ones
        local_attention=128,
        max_position_embeddings=POSITIONS,
    )
