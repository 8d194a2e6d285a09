"""What a process of its own needs to load a model and score with it."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from raskrank.errors import InferenceError
from raskrank.options import BackendName
from raskrank.settings import as_folder

DEADLINE_S = 300.0  # longer than PyTorch takes to load and score with a large model on a slow machine
PROCESSES = 3  # of each model at most; of their numbers the median counts


@dataclass(frozen=True, kw_only=True)
class FreshProcess:
    """What a process needed. Bytes are None on systems without /proc/self/smaps_rollup; Linux has it."""

    first_score_s: float  # from the start of the process to its first score: interpreter, imports, model, tokenizer
    resident_bytes: int | None  # after scoring all texts
    private_bytes: int | None  # of these, what no other process shares and the kernel cannot drop: it was written to


def fresh_process(
    bundle: Path | None,
    *,
    threads: int | None,
    backend: BackendName | None = None,
    checkpoint: Path | None = None,
    texts: Sequence[str],
    query: str,
    timeout_s: float = DEADLINE_S,
) -> FreshProcess:
    """Start Python anew, load a model as `Reranker.load` does with these arguments, score one text, then all.

    texts: at least one; like the query they reach the process through a pipe and appear on no command line. threads: for
    backend "torch", the threads of PyTorch. Raises InferenceError if the process fails or is not done after timeout_s.
    """
    model = {
        "bundle": None if bundle is None else as_folder(bundle),
        "threads": threads,
        "backend": backend,
        "checkpoint": None if checkpoint is None else str(checkpoint),
    }
    # All texts together are a second line, which is read only after the first score.
    request = "\n".join(json.dumps(part) for part in ({**model, "query": query, "text": texts[0]}, [*texts]))
    # -P: as with the installed command, nothing is imported from the current folder.
    command = [sys.executable, "-P", "-m", "raskrank.measure.probe"]
    # Reranker.load does not set PyTorch's threads; the environment does.
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


def medians(
    starts: Mapping[str, Callable[[], FreshProcess]],
    *,
    budget_s: float | None = None,
    advance: Callable[[int], None] | None = None,
) -> dict[str, FreshProcess]:
    """Call each function in turn, up to three times, and give the medians of its numbers.

    budget_s: seconds; after the first round, one that would exceed them is left out. Default: no limit. advance: called
    with 1 after each process.
    """
    found: dict[str, list[FreshProcess]] = {name: [] for name in starts}
    began = time.perf_counter()
    for number in range(1, PROCESSES + 1):
        for name, start in starts.items():
            found[name].append(start())
            if advance is not None:
                advance(1)
        if budget_s is not None and (time.perf_counter() - began) * (number + 1) / number > budget_s:
            break
    return {name: _median(row) for name, row in found.items()}


def _median(row: Sequence[FreshProcess]) -> FreshProcess:
    resident = [fresh.resident_bytes for fresh in row if fresh.resident_bytes is not None]
    private = [fresh.private_bytes for fresh in row if fresh.private_bytes is not None]
    return FreshProcess(
        first_score_s=median(fresh.first_score_s for fresh in row),
        resident_bytes=round(median(resident)) if resident else None,
        private_bytes=round(median(private)) if private else None,
    )
