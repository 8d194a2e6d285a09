"""Worker threads that take runs from a queue, one core each."""

import atexit
import threading
import weakref
from collections.abc import Callable, Sequence
from queue import SimpleQueue
from typing import TypeVar

import numpy as np

from raskrank.backend import Backend, Float32Array
from raskrank.encoding import EncodedPair
from raskrank.errors import ClosedError
from raskrank.planning import Run, plan
from raskrank.process import calls, threads
from raskrank.process.calls import Calls
from raskrank.process.fork import Owner
from raskrank.process.work import Work

Result = TypeVar("Result")
Tickets = SimpleQueue[Work[Run] | None]

_live: "weakref.WeakSet[Workers]" = weakref.WeakSet()


class Workers:
    """A pool of up to `threads` threads, made when first needed. Several callers may share it; each waits for its own runs.

    An interrupt in a caller, at any point, leaves the pool usable.
    """

    def __init__(self, threads: int) -> None:
        self.threads = threads
        self._calls, self._tickets = Calls(), Tickets()
        self._pool: list[threading.Thread] = []
        self._ended, self._first_end = False, threading.Lock()
        self._owner = Owner()
        weakref.finalize(self, self._tickets.put, None).atexit = False
        _live.add(self)

    def call(self, function: Callable[[], Result]) -> Result:
        """`function()`, which `close` in another thread waits for. Raises ClosedError after `close`."""
        return self._calls.enter(function)

    def lacking(self, wanted: int) -> int:
        """How many threads `run` would start for so many runs."""
        return max(0, min(self.threads, wanted) - len(self._pool))

    def run(self, work: Callable[[Run], None], runs: Sequence[Run]) -> None:
        """Call `work` once for each run, in order as threads become free, and wait.

        The first exception, or a KeyboardInterrupt of the caller, stops the rest: runs in flight end, no other is started.
        """
        self.call(lambda: self._run(Work(work, runs), min(self.threads, len(runs))))

    def _run(self, work: Work[Run], wanted: int) -> None:
        try:
            self._grow(wanted)
            helpers = min(len(self._pool), wanted)
            for _ in range(helpers):
                self._tickets.put(work)
            if self._ended:  # looked at last: a ticket that comes after the end is not taken
                raise ClosedError("this Reranker was closed while it was in use")
            work.complete(alone=not helpers)
        finally:
            work.stopped = True  # at once: an interrupt may come before the next line
            work.settle()

    def _grow(self, wanted: int) -> None:
        """Start the threads that are lacking. Where the system allows fewer, or none, that has to do."""
        if len(self._pool) < wanted and not self._ended:
            tickets = self._tickets  # and not self, which goes where nobody uses it
            threads.start(lambda: _serve(tickets), wanted, "raskrank", daemon=True, pool=self._pool)

    def close(self) -> bool:
        """Refuse further calls and wait for those of other threads. False if closed before, or loaded before a fork."""
        if not self._owner.is_here:
            return False
        self._calls.close()
        self._ended = True
        self._tickets.put(None)
        for thread in list(self._pool):
            thread.join()
        return self._first_end.acquire(blocking=False)


def _serve(tickets: Tickets) -> None:
    """A worker: takes part in one work after another until there comes None, which it leaves for the others."""
    while (work := tickets.get()) is not None:
        work.take_part()
        del work
    tickets.put(None)


@atexit.register
def _end() -> None:
    """No thread may be in native code when Python ends: daemon threads are killed as they return from it, which aborts."""
    calls.refuse_all()
    calls.loads.close()
    for workers in list(_live):
        workers.close()


def planned(backend: Backend, lengths: Sequence[int], cores: int) -> list[Run]:
    """`plan` for a backend."""
    size, groups, min_share = backend.hidden_size, backend.groups, backend.min_share
    return plan(lengths, cores=cores, hidden_size=size, groups=groups, min_share=min_share)


def run_pairs(
    backend: Backend,
    workers: Workers,
    encoded: Sequence[EncodedPair],
    advance: Callable[[int], None] | None = None,
    counts: Sequence[int] | None = None,
) -> Float32Array:
    """float32 (n): the logit of each pair, in order. advance: called from worker threads with the pairs a run has done.

    counts: what each pair counts for `advance`. Default: one.
    """
    logits = np.zeros(len(encoded), np.float32)

    def work(run: Run) -> None:
        members = [encoded[index] for index in run.indices]
        input_ids = np.stack([pair.input_ids for pair in members])  # (B, L)
        token_type_ids = np.stack([pair.token_type_ids for pair in members])  # (B, L)
        logits[list(run.indices)] = backend.logits(input_ids, token_type_ids, threads=run.threads)
        done = len(run.indices) if counts is None else sum(counts[index] for index in run.indices)
        if advance is not None and done:
            advance(done)

    lengths = [len(pair.input_ids) for pair in encoded]
    workers.run(work, planned(backend, lengths, backend.concurrency))
    return logits
