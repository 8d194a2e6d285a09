"""Worker threads that take runs from a queue, one core each."""

import atexit
import os
import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager

import numpy as np

from raskrank.backend import Backend, Float32Array
from raskrank.encoding import EncodedPair
from raskrank.errors import ClosedError
from raskrank.planning import Run, plan

_live: "weakref.WeakSet[Workers]" = weakref.WeakSet()


class Workers:
    """A pool of `threads` threads. Several callers may share it; each call waits for its own runs."""

    def __init__(self, threads: int) -> None:
        self.threads = threads
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="raskrank")
        self._calls, self._changed, self._closed = set[tuple[int, object]](), threading.Condition(), False
        self._pid = os.getpid()
        _live.add(self)

    @contextmanager
    def call(self) -> Iterator[None]:
        """Encloses a call of one thread, which `close` in another thread waits for. Raises ClosedError after `close`."""
        call = (threading.get_ident(), object())
        try:
            with self._changed:
                if self._closed:
                    raise ClosedError("this Reranker is closed; load it again")
                self._calls.add(call)
            yield
        finally:
            with self._changed:
                self._calls.discard(call)
                self._changed.notify_all()

    def run(self, work: Callable[[Run], None], runs: Sequence[Run]) -> None:
        """Call `work` once for each run, in order as threads become free, and wait.

        The first exception, or a KeyboardInterrupt of the caller, stops the rest: runs in flight end, no other is started.
        """
        queue, stopped = deque(runs), threading.Event()

        def drain() -> None:
            while not stopped.is_set():
                try:
                    run = queue.popleft()
                except IndexError:
                    return
                try:
                    work(run)
                except BaseException:
                    stopped.set()
                    raise

        futures: list[Future[None]] = []
        try:
            try:
                for _ in range(min(self.threads, len(runs))):
                    futures.append(self._pool.submit(drain))
            except RuntimeError as error:
                # A daemon thread must be out of native code when Python exits, or the process aborts.
                if self._closed or threading.current_thread().daemon:
                    raise ClosedError(f"Python is exiting, or this Reranker was closed: {error}") from error
                drain()  # Python is exiting, or has no more threads: the caller does the work itself
            for future in futures:
                future.result()
        except BaseException:
            stopped.set()
            wait(futures)  # nothing of this call runs on after it has raised
            raise

    def close(self) -> bool:
        """Refuse further calls and wait for those of other threads. False if closed before, or loaded before a fork."""
        if self._pid != os.getpid():
            return False
        with self._changed:
            first, self._closed = not self._closed, True
            self._changed.wait_for(lambda: all(thread == threading.get_ident() for thread, _ in self._calls))
        self._pool.shutdown()
        return first


@atexit.register
def _close_all() -> None:
    for workers in list(_live):
        workers.close()


def run_pairs(
    backend: Backend, workers: Workers, encoded: Sequence[EncodedPair], advance: Callable[[int], None] | None = None
) -> Float32Array:
    """float32 (n): the logit of each pair, in order. advance: called from worker threads with the pairs a run has done."""
    logits = np.zeros(len(encoded), np.float32)

    def work(run: Run) -> None:
        members = [encoded[index] for index in run.indices]
        input_ids = np.stack([pair.input_ids for pair in members])  # (B, L)
        token_type_ids = np.stack([pair.token_type_ids for pair in members])  # (B, L)
        logits[list(run.indices)] = backend.logits(input_ids, token_type_ids, spread=run.spread)
        if advance is not None:
            advance(len(run.indices))

    lengths = [len(pair.input_ids) for pair in encoded]
    workers.run(work, plan(lengths, cores=backend.concurrency, hidden_size=backend.hidden_size, groups=backend.groups))
    return logits
