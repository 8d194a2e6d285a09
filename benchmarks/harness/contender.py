"""What a peer's file says of itself, and what it is told. Stand-alone: it is imported where there is no Raskrank."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.harness.padding import Batching

OURS = "Raskrank int8"  # every ratio is to this contender
BATCH = 32  # where a library leaves the choice to its user: sentence-transformers' default, common in others' documentation

# (query, documents, batch size or None for the contender's own) -> a score for each document, in input order
Score = Callable[[str, list[str], int | None], Iterable[float]]


class Loaded(NamedTuple):
    score: Score
    probabilities: bool  # scores lie in [0, 1]; else they are logits


@dataclass(frozen=True, kw_only=True)
class Setup:
    """What contenders are made for.

    model: as it was asked for, see models.checkpoint. model_type: of the checkpoint's config.json, such as "bert". max_length:
    tokens of a pair. threads: cores to use. instruction_sets: of this CPU, as raskrank.cpu names them. files: where peers
    keep what they export from this checkpoint. calibration: a JSONL file of {"text", "query", "document"} for static int8.
    """

    model: str
    checkpoint: Path
    model_type: str
    max_length: int
    threads: int
    instruction_sets: tuple[str, ...]
    files: Path
    calibration: Path


@dataclass(frozen=True, kw_only=True)
class Export:
    """Files that a peer runs, made once for a checkpoint's weights.

    make: writes them to `folder`, which is there and empty. It is called in `environment` with the keyword arguments
    `folder`, a string, and `options`. after: is made before.
    """

    folder: Path
    environment: str
    make: Callable[..., None]
    options: dict[str, Any]
    after: "Export | None" = None


@dataclass(frozen=True, kw_only=True)
class Contender:
    """What is measured, how it is run, and what a reader has to know of it.

    load: called in `environment` with the keyword arguments `options`, which are JSON. environment: the name of a file in
    benchmarks/environments; "" is Raskrank's own. setting: in words, for the report. packages: whose versions are reported.
    size: of the batches that it makes by itself. batch_sizes: tried for each workload, the fastest is measured; () where it
    is not asked. cold: measured in fresh processes too. problem: why it cannot take this checkpoint.
    """

    name: str
    load: Callable[..., Loaded]
    setting: str
    batching: Batching
    packages: tuple[str, ...]
    options: dict[str, Any] = field(default_factory=dict)
    environment: str = ""
    export: Export | None = None
    size: int = BATCH
    batch_sizes: tuple[int, ...] = ()
    cold: bool = False
    problem: str | None = None
