"""Measuring: functions in turn, and a model in a fresh process."""

import json
import math
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from raskrank.errors import InferenceError
from raskrank.options import BackendName
from raskrank.settings import as_folder

MIN_ROUNDS = 3  # fewer give no median that one disturbance cannot move
PAUSE_S = 0.005  # before each call: the threads of the one before may still be spinning
FRESH_PROCESS_S = 300.0  # longer than PyTorch takes to load and score with a large model on a slow machine


@dataclass(frozen=True)
class Timing:
    """What a function took. seconds: one number for each counted round, in order; at least one."""

    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    @property
    def p95(self) -> float:
        """The smallest time that at least 95% of the rounds kept within; of fewer than 20 rounds the longest."""
        return sorted(self.seconds)[math.ceil(0.95 * len(self.seconds)) - 1]

    @property
    def best(self) -> float:
        return min(self.seconds)


def interleaved(
    functions: Mapping[str, Callable[[], object]],
    *,
    rounds: int,
    budget_s: float | None = None,
    advance: Callable[[int], None] | None = None,
) -> dict[str, Timing]:
    """The times of each function, in the order given. Each round calls every function once, so that all share its weather.

    rounds: counted ones, at least 1; a round before them is not counted. budget_s: wall time of it all; a round that would
    not end within it, as the slowest one so far took, is left out, but never are fewer than 3 (or `rounds`) counted.
    advance: called with 1 after each call, those of the uncounted round too. Exceptions of the functions pass through.
    """
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    began, slowest = time.perf_counter(), 0.0
    for number in range(rounds + 1):
        start = time.perf_counter()
        if budget_s is not None and number > MIN_ROUNDS and start - began + slowest > budget_s:
            break
        for name, function in functions.items():
            time.sleep(PAUSE_S)
            before = time.perf_counter()
            function()
            after = time.perf_counter()
            if number:
                seconds[name].append(after - before)
            if advance is not None:
                advance(1)
        slowest = max(slowest, time.perf_counter() - start)
    return {name: Timing(tuple(row)) for name, row in seconds.items()}


@dataclass(frozen=True, kw_only=True)
class FreshProcess:
    """What a process of its own needed. Bytes are None where there is no /proc/self/smaps_rollup (Linux has it)."""

    first_score_s: float  # from the process's start to its first score: interpreter, imports, model, tokenizer
    resident_bytes: int | None  # after scoring all texts
    private_bytes: int | None  # of them written to: neither shared with other processes nor to be dropped by the kernel


def fresh_process(
    bundle: Path | None,
    *,
    threads: int | None,
    backend: BackendName = "onnx",
    checkpoint: Path | None = None,
    texts: Sequence[str],
    query: str,
    timeout_s: float = FRESH_PROCESS_S,
) -> FreshProcess:
    """Start Python anew, load a model as `Reranker.load` does with these arguments, score one text, then all.

    texts: at least one; they reach the process through a pipe and are on no command line. threads: with backend "torch"
    those of PyTorch. Raises InferenceError if the process fails or is not done after timeout_s.
    """
    model = {
        "bundle": None if bundle is None else as_folder(bundle),
        "threads": threads,
        "backend": backend,
        "checkpoint": None if checkpoint is None else str(checkpoint),
    }
    # The texts are a line of their own, which is read after the first score.
    request = "\n".join(json.dumps(part) for part in ({**model, "query": query, "text": texts[0]}, [*texts]))
    # -P: as with the installed command, nothing is imported from the current folder.
    command = [sys.executable, "-P", "-m", "raskrank.probe"]
    # PyTorch takes no number of threads from Reranker.load, but from here.
    torch_threads = {"OMP_NUM_THREADS": str(threads)} if backend == "torch" and threads is not None else {}
    start = time.monotonic()  # one clock for all processes
    try:
        done = subprocess.run(
            command,
            input=request,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            env={**os.environ, **torch_threads},
            timeout=timeout_s,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise InferenceError(f"a fresh process with {bundle or checkpoint} was not done after {timeout_s:g} s") from None
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise InferenceError(f"a fresh process with {bundle or checkpoint} failed: {reason}")
    measured = json.loads(done.stdout)
    return FreshProcess(
        first_score_s=measured["first_score"] - start,
        resident_bytes=measured["resident_bytes"],
        private_bytes=measured["private_bytes"],
    )
