"""Warm speed: contenders side by side in one run, each once a round, so that whatever else happens meets all of them."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from benchmarks.harness.contender import Contender
from benchmarks.harness.padding import padding_waste
from benchmarks.harness.results import Measured, Timing
from benchmarks.harness.workers import Scored, WorkerError, WorkerProcess
from benchmarks.harness.workloads import Workload, texts
from raskrank.activation import sigmoid
from raskrank.backend import Float32Array
from raskrank.parity import kendall_tau

# Agreement is measured against the first of these that runs.
REFERENCES = ("transformers torch", "sentence-transformers torch")
PAUSE = 0.1  # seconds between turns, in which the threads of the one before go to sleep
# All are loaded at once. Where less than this is left after a turn, who holds more than that starts anew before its next one.
MEMORY_LEFT, MEMORY_HELD = 6 << 30, 2 << 30
HOPELESS = 1.5  # a batch size whose first call takes this many times the fastest so far is not tried again
TRIALS = 2  # calls for each batch size that is tried, after one that is not counted

Say = Callable[[str], None]  # progress, a line at a time


@dataclass
class Running:
    """A contender in its process; problem: why it left the run."""

    contender: Contender
    process: WorkerProcess
    probabilities: bool
    problem: str | None = None
    away: bool = False  # has let go of its memory, and has to load again

    def score(self, query: str, documents: list[str], batch_size: int | None) -> Scored | None:
        """None once it has left; who fails leaves, and the others go on."""
        if self.problem is not None:
            return None
        try:
            if self.away:
                self.process.load()
                self.process.score(query, documents, batch_size)  # a first call is slower, and not what is compared
            scored = self.process.score(query, documents, batch_size)
            self.away = memory_left() < MEMORY_LEFT and self.process.memory()["resident"] > MEMORY_HELD
            if self.away:
                self.process.restart()
            return scored
        except WorkerError as error:
            self.problem = str(error)
            self.process.close()
            return None
        finally:
            time.sleep(PAUSE)


def memory_left() -> int:
    """Bytes that processes can still take."""
    fields = dict(line.split(":") for line in Path("/proc/meminfo").read_text("ascii").splitlines())
    return int(fields["MemAvailable"].split()[0]) * 1024


def measure(
    workload: Workload, running: Sequence[Running], tokenizer: Tokenizer, max_length: int, rounds: int, say: Say
) -> Measured:
    """Everyone once a round, after a round that is not counted and whose scores are compared."""
    query, documents = texts(workload, tokenizer)
    sizes: dict[str, int | None] = {}
    for entry in running:
        if entry.contender.batch_sizes:
            say(f"{workload.name}: the best batch size of {entry.contender.name}")
        sizes[entry.contender.name] = _best_batch_size(entry, query, documents)
    seconds: dict[str, list[float]] = {entry.contender.name: [] for entry in running}
    scores: dict[str, Float32Array] = {}
    for number in range(rounds + 1):
        say(f"{workload.name}: round {number} of {rounds}")
        for entry in running:
            name = entry.contender.name
            scored = entry.score(query, documents, sizes[name])
            if scored is not None and number:
                seconds[name].append(round(scored.seconds, 6))
            elif scored is not None:
                scores[name] = _in_unit_interval(scored.scores, entry.probabilities)
    tokens = lengths(query, documents, tokenizer, max_length)
    characters = [len(query) + len(document) for document in documents]
    reference = next((scores[name] for name in REFERENCES if name in scores), None)
    timings: dict[str, Timing] = {}
    for contender in (entry.contender for entry in running if entry.problem is None):
        name, size = contender.name, sizes[contender.name]
        tau, drift = (None, None) if reference is None else _agreement(reference, scores[name])
        waste = padding_waste(contender.batching, size or contender.size, tokens, characters)
        timings[name] = Timing(seconds=seconds[name], batch_size=size, padding=waste, tau=tau, drift=drift)
    return Measured(title=workload.title, passages=len(documents), tokens=sum(tokens), contenders=timings)


def _in_unit_interval(scores: list[float], probabilities: bool) -> Float32Array:
    array = np.array(scores, np.float32)
    return array if probabilities else sigmoid(array)


def _agreement(reference: Float32Array, scores: Float32Array) -> tuple[float | None, float]:
    """Kendall's tau, None for a single passage, and the largest difference."""
    tau = kendall_tau(reference, scores) if len(scores) > 1 else None
    return tau, float(np.abs(reference - scores).max())


def lengths(query: str, documents: list[str], tokenizer: Tokenizer, max_length: int) -> list[int]:
    """Tokens of each pair as a model reads it: special tokens included, cut at `max_length`."""
    return [min(len(pair), max_length) for pair in tokenizer.encode_batch([(query, document) for document in documents])]


def _best_batch_size(entry: Running, query: str, documents: list[str]) -> int | None:
    """The fastest of those that are to be tried, None where the contender chooses."""
    best, fastest = None, math.inf
    for size in [size for size in entry.contender.batch_sizes if size <= max(len(documents), 1)]:
        first = entry.score(query, documents, size)
        if first is None or first.seconds > HOPELESS * fastest:
            continue
        trials = [entry.score(query, documents, size) for _ in range(TRIALS)]
        times = [trial.seconds for trial in trials if trial is not None]
        if times and min(times) < fastest:
            best, fastest = size, min(times)
    return best
