"""Worker threads that take runs from the calls in flight, one core each."""

import atexit
import threading
import weakref
from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from raskrank.backend import Backend, Float32Array
from raskrank.encoding import EncodedPair
from raskrank.errors import ClosedError
from raskrank.pace import Pace
from raskrank.planning import GROUP_TOKENS, Run, plan
from raskrank.process import calls, threads
from raskrank.process.callers import Callers
from raskrank.process.calls import Calls
from raskrank.process.fork import Owner
from raskrank.process.line import Line
from raskrank.process.until import Until
from raskrank.process.work import Work

Result = TypeVar("Result")

# Tokens of a run that tells how fast this machine is where nothing was measured yet: enough to tell, and soon over.
FIRST_TOKENS = 32

_live: "weakref.WeakSet[Workers]" = weakref.WeakSet()


class Workers:
    """A pool of up to `threads` threads, made when first needed. Several callers may share it; each waits for its own runs.

    Calls in flight have turns of GROUP_TOKENS tokens, so that a short one is not held up by a long one. An interrupt in a
    caller, at any point, leaves the pool usable. pace: of all its runs. callers: for calls that an event loop waits for.
    """

    def __init__(self, threads: int) -> None:
        self.threads, self.pace, self.callers = threads, Pace(), Callers()
        self._calls, self._line = Calls(), Line[Run](GROUP_TOKENS)
        self._pool: list[threading.Thread] = []
        self._ended, self._first_end = False, threading.Lock()
        self._owner = Owner()
        weakref.finalize(self, self._line.end).atexit = False
        _live.add(self)

    def call(self, function: Callable[[], Result]) -> Result:
        """`function()`, which `close` in another thread waits for. Raises ClosedError after `close`."""
        return self._calls.enter(function)

    def expect(self, backend: Backend, pairs: int) -> None:
        """So many pairs are about to be run: where they are fewer than the threads, they are going to share them."""
        if pairs < self.threads and not self._calls.several:
            backend.expect(self.threads - pairs)

    def lacking(self, wanted: int) -> int:
        """How many threads `run` would start for so many runs."""
        return max(0, min(self.threads, wanted) - len(self._pool))

    def run(
        self,
        work: Callable[[Run], None],
        runs: Sequence[Run],
        until: Until | None = None,
        may_begin: Callable[[Run], bool] = lambda _: True,
    ) -> None:
        """Call `work` once for each run, in order as threads become free, and wait. A single run of the only call is made in
        the caller's thread: handing it on takes a tenth as long as a short pair.

        The first exception, a KeyboardInterrupt of the caller, or the end of `until` stops the rest, and so does a run that
        `may_begin` refuses: runs in flight end, no other is started.
        """
        item = Work(work, runs, cost=lambda run: run.length * len(run.indices), may_begin=may_begin)
        self.call(lambda: self._run(item, len(runs), until or Until()))

    def _run(self, work: Work[Run], runs: int, until: Until) -> None:
        try:
            until.tells(work.stop)
            wanted = 0 if runs == 1 and not self._calls.several else min(self.threads, runs)
            self._grow(wanted)
            helpers = min(len(self._pool), wanted)
            self._line.join(work, helpers)
            if self._ended:  # looked at last: a place that comes after the end is not taken
                raise ClosedError("this Reranker was closed while it was in use")
            work.complete(alone=not helpers, seconds_left=until.left)
        finally:
            work.stopped = True  # at once: an interrupt may come before the next line
            work.settle()

    def _grow(self, wanted: int) -> None:
        """Start the threads that are lacking. Where the system allows fewer, or none, that has to do."""
        if len(self._pool) < wanted and not self._ended:
            threads.start(self._line.serve, wanted, "raskrank", daemon=True, pool=self._pool)

    def close(self) -> bool:
        """Refuse further calls and wait for those of other threads. False if closed before, or loaded before a fork."""
        if not self._owner.is_here:
            return False
        self._calls.close()
        self.callers.close()
        self._ended = True
        self._line.end()
        for thread in list(self._pool):
            thread.join()
        return self._first_end.acquire(blocking=False)


@atexit.register
def _end() -> None:
    """No thread may be in native code when Python ends: daemon threads are killed as they return from it, which aborts."""
    calls.refuse_all()
    calls.loads.close()
    for workers in list(_live):
        workers.close()


class Logits(NamedTuple):
    """Of n pairs. done: False where a deadline came before; the logit there is NaN."""

    logits: Float32Array  # (n,)
    done: npt.NDArray[np.bool_]  # (n,)


def planned(backend: Backend, lengths: Sequence[int], cores: int, *, in_order: bool = False) -> list[Run]:
    """`plan` for a backend."""
    size, groups, min_share = backend.hidden_size, backend.groups, backend.min_share
    return plan(lengths, cores=cores, hidden_size=size, groups=groups, min_share=min_share, in_order=in_order)


def run_pairs(
    backend: Backend,
    workers: Workers,
    encoded: Sequence[EncodedPair],
    advance: Callable[[int], None] | None = None,
    counts: Sequence[int] | None = None,
) -> Float32Array:
    """float32 (n): the logit of each pair, in order.

    advance: called from worker threads with the pairs that a run has done. counts: as how many each of them counts. Default: 1.
    """
    return run_until(Until(), backend, workers, encoded, advance, counts).logits


def run_until(
    until: Until,
    backend: Backend,
    workers: Workers,
    encoded: Sequence[EncodedPair],
    advance: Callable[[int], None] | None = None,
    counts: Sequence[int] | None = None,
) -> Logits:
    """As `run_pairs`, or as many of the pairs as are done in time: with a deadline they are taken in order, and no run begins
    that is not expected to end before it. Raises Stopped where the call was stopped."""
    results = Logits(np.full(len(encoded), np.nan, np.float32), np.zeros(len(encoded), np.bool_))
    pace = workers.pace

    def work(run: Run) -> None:
        members = [encoded[index] for index in run.indices]
        input_ids = np.stack([pair.input_ids for pair in members])  # (B, L)
        token_type_ids = np.stack([pair.token_type_ids for pair in members])  # (B, L)
        begin, places = until.clock(), list(run.indices)
        results.logits[places] = backend.logits(input_ids, token_type_ids, threads=run.threads)
        pace.note(run.work(backend.hidden_size), until.clock() - begin)
        results.done[places] = True
        counted = len(places) if counts is None else sum(counts[index] for index in places)
        if advance is not None and counted:
            advance(counted)

    def in_time(run: Run) -> bool:
        return pace.expected(run.work(backend.hidden_size)) < until.left()

    lengths = [len(pair.input_ids) for pair in encoded]
    if not until.limited:
        workers.run(work, planned(backend, lengths, backend.concurrency), until)
    elif encoded:
        if not pace.known:
            _learn_pace(until, backend, workers, encoded[0])
        workers.run(work, planned(backend, lengths, backend.concurrency, in_order=True), until, in_time)
        if not results.done.any():
            pace.doubt()
    until.check()
    return results


def _learn_pace(until: Until, backend: Backend, workers: Workers, pair: EncodedPair) -> None:
    """A first run, of a few tokens and for nothing else, since a deadline needs to know how long the next ones take."""
    input_ids, token_type_ids = (ids[None, :FIRST_TOKENS] for ids in (pair.input_ids, pair.token_type_ids))  # (1, L)

    def work(run: Run) -> None:
        begin = until.clock()
        backend.logits(input_ids, token_type_ids)
        workers.pace.note(run.work(backend.hidden_size), until.clock() - begin)

    workers.run(work, [Run(input_ids.shape[1], (0,), 1)], until)
