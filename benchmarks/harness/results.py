"""What a result file holds, and the few numbers that are made of it."""

import json
import math
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, TypedDict, cast

FORMAT = 1


class Machine(TypedDict):
    cpu: str
    cores: int
    instruction_sets: list[str]
    system: str
    python: str


class Participant(TypedDict):
    """A contender; problem: why it was not measured, or not in every workload."""

    setting: str
    versions: dict[str, str]
    problem: str | None


class Timing(TypedDict):
    """Seconds of each round; tau and drift against PyTorch: Kendall's tau-b, and the largest difference of scores in [0, 1]."""

    seconds: list[float]
    batch_size: int | None
    padding: float
    tau: float | None
    drift: float | None


class Measured(TypedDict):
    """A workload; tokens: of all its pairs, as the model reads them."""

    title: str
    passages: int
    tokens: int
    contenders: dict[str, Timing]


class Started(TypedDict):
    """Fresh processes: seconds to the first score; after 100 passages, bytes resident and private."""

    first: list[float]
    resident: list[int]
    private: list[int]


class Share(TypedDict):
    """Raskrank int8 beside the least seconds that the machine's peaks allow."""

    title: str
    threads: int
    limit: float
    seconds: list[float]


class Limits(TypedDict):
    """Peaks by number of threads, then by type: billions of operations a second."""

    peaks: dict[str, dict[str, float]]
    shares: list[Share]


class Result(TypedDict):
    format: int
    model: str
    architecture: str
    parameters: int
    date: str
    machine: Machine
    texts: str
    contenders: dict[str, Participant]
    workloads: dict[str, Measured]
    start: dict[str, Started]
    threads: dict[str, dict[str, list[float]]]  # Raskrank int8: seconds by workload, then by number of threads
    limits: Limits | None


def read(file: Path) -> Result:
    """Raises ValueError for a file of another format."""
    result = json.loads(file.read_text("utf-8"))
    if result.get("format") != FORMAT:
        raise ValueError(f"{file}: format {result.get('format')}, expected {FORMAT}; measure again")
    return cast(Result, result)


def write(result: Result, file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", "utf-8")


class Ratio(NamedTuple):
    """How many times as long as ours: of the medians, and the range over the rounds."""

    median: float
    low: float
    high: float


def ratio(theirs: Sequence[float], ours: Sequence[float]) -> Ratio:
    rounds = [their / our for their, our in zip(theirs, ours, strict=True)]
    return Ratio(statistics.median(theirs) / statistics.median(ours), min(rounds), max(rounds))


def p95(seconds: Sequence[float]) -> float:
    """Nearest rank: with fewer than 20 rounds the slowest."""
    return sorted(seconds)[math.ceil(0.95 * len(seconds)) - 1]


def undisturbed(seconds: Sequence[float]) -> float:
    """The slowest of the fastest tenth, at least of one: what a shared machine does when nothing else is on it."""
    return sorted(seconds)[math.ceil(0.1 * len(seconds)) - 1]
