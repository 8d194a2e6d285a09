"""One contender in a process of its own, in the environment it needs: JSON lines on standard input and output.

    PYTHON -m benchmarks.harness.worker FILE FUNCTION OPTIONS

FUNCTION of FILE, which is a peer's, loads it; OPTIONS are its keyword arguments as a JSON object. Requests and replies:

    {"do": "load"}                                            -> {"seconds", "probabilities"}
    {"do": "score", "query", "documents", "batch_size"}       -> {"seconds", "scores", "at"}
    {"do": "memory"}                                          -> {"resident", "private"} in bytes
    {"do": "versions", "packages"}                            -> {"versions": {package: version}}

"private" is memory written to, which the kernel cannot drop. "seconds" is the call alone, measured here; "at" is the clock
when the scores were there, seconds since 1970; "probabilities" says whether scores lie in [0, 1], else they are logits. What
fails answers {"error": "..."}. Stand-alone: no Raskrank.
"""

import json
import os
import sys
import time
import warnings
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.harness.calls import Call
from benchmarks.harness.contender import Loaded

Reply = dict[str, Any]


class Worker:
    """Answers requests; what was loaded stays between them."""

    def __init__(self, load: Callable[..., Loaded], options: dict[str, Any]) -> None:
        self._load, self._options = load, options
        self._loaded: Loaded | None = None

    def answer(self, request: dict[str, Any]) -> Reply:
        handlers = {"load": self._do_load, "score": self._do_score, "memory": self._do_memory, "versions": self._do_versions}
        try:
            return handlers[request["do"]](request)
        except Exception as error:  # noqa: BLE001  whatever a peer raises is its result
            return {"error": f"{type(error).__name__}: {error}"}

    def _do_load(self, _: dict[str, Any]) -> Reply:
        start = time.perf_counter()
        self._loaded = self._load(**self._options)
        return {"seconds": time.perf_counter() - start, "probabilities": self._loaded.probabilities}

    def _do_score(self, request: dict[str, Any]) -> Reply:
        if self._loaded is None:
            raise RuntimeError("score before load")
        start = time.perf_counter()
        scores = self._loaded.score(request["query"], request["documents"], request["batch_size"])
        seconds = time.perf_counter() - start
        return {"seconds": seconds, "at": time.time(), "scores": [float(score) for score in scores]}

    def _do_memory(self, _: dict[str, Any]) -> Reply:
        lines = Path("/proc/self/smaps_rollup").read_text("ascii").splitlines()[1:]
        fields = {name: int(value) * 1024 for name, value, *_ in map(str.split, lines)}
        return {"resident": fields["Rss:"], "private": fields["Private_Dirty:"]}

    def _do_versions(self, request: dict[str, Any]) -> Reply:
        return {"versions": {package: version(package) for package in request["packages"]}}


def main() -> None:
    # Some libraries print: what they say goes to standard error, the real standard output carries replies alone.
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    warnings.simplefilter("ignore")
    file, function, options = sys.argv[1:]
    worker = Worker(Call(file, function).find(), json.loads(options))
    for line in sys.stdin:
        replies.write(json.dumps(worker.answer(json.loads(line))) + "\n")
        replies.flush()


if __name__ == "__main__":
    main()
