"""Who there is to measure: every file of benchmarks/peers, each peer at its documented best setting for a CPU."""

import json
from pathlib import Path

from benchmarks.harness.calls import load_file
from benchmarks.harness.contender import OURS, Contender, Setup
from benchmarks.harness.exports import calibration_file
from benchmarks.harness.models import WORK, bundle, checkpoint, manifest
from raskrank import cpu

PEERS = Path(__file__).parents[1] / "peers"


def setup(model: str, threads: int) -> Setup:
    """Makes the checkpoint and the int8 bundle where they are not there yet."""
    folder = checkpoint(model)
    return Setup(
        model=model,
        checkpoint=folder,
        model_type=json.loads((folder / "config.json").read_text("utf-8"))["model_type"],
        max_length=manifest(bundle(model, "int8")).max_length,
        threads=threads,
        instruction_sets=tuple(cpu.instruction_sets()),
        files=WORK / "peers" / folder.name,
        calibration=calibration_file(),
    )


def contenders(described: Setup, folder: Path = PEERS) -> list[Contender]:
    """Of every peer's file in the folder, in alphabetical order, but OURS before the others."""
    files = sorted(file for file in folder.glob("*.py") if not file.stem.startswith("__"))
    found: list[Contender] = [contender for file in files for contender in load_file(file).contenders(described)]
    names = [contender.name for contender in found]
    if twice := {name for name in names if names.count(name) > 1}:
        raise ValueError(f"two contenders are named {', '.join(sorted(twice))}")
    return sorted(found, key=lambda contender: contender.name != OURS)
