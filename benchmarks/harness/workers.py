"""Contenders as processes: one request at a time, each with a deadline."""

import json
import os
import signal
import subprocess
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

from benchmarks.harness import environments
from benchmarks.harness.calls import Call
from benchmarks.harness.contender import Contender
from benchmarks.harness.models import ROOT, WORK

LOGS = WORK / "logs"
DEADLINE = 600.0  # seconds for one request: 1,000 passages in PyTorch take minutes


class WorkerError(Exception):
    """A contender failed; the message is one line and says how."""


class Scored(NamedTuple):
    seconds: float
    scores: list[float]
    at: float  # the clock when the scores were there, seconds since 1970


class WorkerProcess:
    """A worker (worker.py) in its environment's Python. Use as a context manager, or `close` it.

    started: the clock when the process was started, seconds since 1970.
    """

    def __init__(self, name: str, python: Path, call: Call, options: dict[str, Any], threads: int) -> None:
        LOGS.mkdir(parents=True, exist_ok=True)
        self._command = [str(python), "-m", "benchmarks.harness.worker", *call, json.dumps(options)]
        self._threads = threads
        self._log = LOGS / f"{name.replace(' ', '-').replace(',', '')}.log"
        self._process = self._start()

    @classmethod
    def of(cls, contender: Contender, threads: int) -> Self:
        python = environments.python(contender.environment)
        return cls(contender.name, python, Call.of(contender.load), contender.options, threads)

    def _start(self) -> subprocess.Popen[str]:
        self.started = time.time()
        with self._log.open("wb") as log:
            return subprocess.Popen(
                self._command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env=_environment(self._threads),
                cwd=ROOT,
            )

    def restart(self) -> None:
        """A new process in place of this one: what it held is free again. It has to load again."""
        self.close()
        self._process = self._start()

    def load(self) -> bool:
        """Whether the contender's scores are probabilities; else they are logits."""
        return bool(self._ask({"do": "load"})["probabilities"])

    def score(self, query: str, documents: list[str], batch_size: int | None = None) -> Scored:
        reply = self._ask({"do": "score", "query": query, "documents": documents, "batch_size": batch_size})
        return Scored(reply["seconds"], reply["scores"], reply["at"])

    def memory(self) -> dict[str, int]:
        """Bytes: resident, and private, which no other process shares."""
        return self._ask({"do": "memory"})

    def versions(self, packages: tuple[str, ...]) -> dict[str, str]:
        versions: dict[str, str] = self._ask({"do": "versions", "packages": packages})["versions"]
        return versions

    def close(self) -> None:
        with self._process:  # closes the pipes, waits
            self._process.kill()  # it has nothing to save

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        if self._process.stdin is None or self._process.stdout is None:
            raise WorkerError("the worker has no pipes")
        late = threading.Event()

        def stop() -> None:
            late.set()
            self._process.kill()

        alarm = threading.Timer(DEADLINE, stop)
        alarm.start()
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        finally:
            alarm.cancel()
        if not line:
            code = self._process.wait(timeout=60)
            if late.is_set():
                raise WorkerError(f"no answer within {DEADLINE:.0f} s")
            killed = "killed, probably for the memory it took" if code == -signal.SIGKILL else f"exit code {code}"
            raise WorkerError(f"the process ended: {killed}; {self._last_words()}")
        reply: dict[str, Any] = json.loads(line)
        if "error" in reply:
            raise WorkerError(" ".join(str(reply["error"]).split())[:300])
        return reply

    def _last_words(self) -> str:
        lines = self._log.read_text("utf-8", errors="replace").strip().splitlines()
        return lines[-1][:300] if lines else "it said nothing"


def _environment(threads: int) -> dict[str, str]:
    """The caller's, offline; libraries without a setting for threads read it here, and count the host's cores otherwise."""
    settings = {
        "OMP_NUM_THREADS": str(threads),
        "ORT_INTRA_OP_NUM_THREADS": str(threads),
        "ORT_DISABLE_TELEMETRY": "1",
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
        "HF_DATASETS_OFFLINE": "1",
    }
    return {**os.environ, **settings}
