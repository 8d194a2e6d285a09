"""Fresh processes: from a process's start to its first score, and memory after 100 passages.

The files are in the page cache, as on a server that restarts. Resident memory counts clean pages of mapped weights, which
processes share and the kernel can drop; private memory does not.
"""

from collections.abc import Sequence

from benchmarks.harness import workloads
from benchmarks.harness.contender import Contender
from benchmarks.harness.results import Started
from benchmarks.harness.speed import Say
from benchmarks.harness.workers import WorkerError, WorkerProcess

FIRST = "Oslo har 700 000 innbyggere."


def measure(contenders: Sequence[Contender], threads: int, rounds: int, say: Say) -> tuple[dict[str, Started], dict[str, str]]:
    """What was measured, and the problem of each contender that failed. A first round fills the cache and is not counted."""
    started: dict[str, Started] = {}
    problems: dict[str, str] = {}
    documents = workloads.passages(100)
    for number in range(rounds + 1):
        say(f"start: round {number} of {rounds}")
        for contender in contenders:
            name = contender.name
            if name in problems:
                continue
            rows = started.setdefault(name, Started(first=[], resident=[], private=[]))
            try:
                with WorkerProcess.of(contender, threads) as process:
                    process.load()
                    first = process.score(workloads.QUERY, [FIRST]).at - process.started
                    if number == 0:
                        continue
                    rows["first"].append(round(first, 3))
                    process.score(workloads.QUERY, documents)
                    memory = process.memory()
                    rows["resident"].append(memory["resident"])
                    rows["private"].append(memory["private"])
            except WorkerError as error:
                problems[name] = str(error)
                del started[name]
    return started, problems
