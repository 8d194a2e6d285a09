"""Worker threads that take runs from a queue, one core each."""

import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait

import numpy as np

from raskrank.backend import Backend, Float32Array
from raskrank.encoding import EncodedPair
from raskrank.planning import Run, plan


class Workers:
    """A pool of `threads` threads. Several callers may share it; each call waits for its own runs."""

    def __init__(self, threads: int) -> None:
        self.threads = threads
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="raskrank")

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

        futures = [self._pool.submit(drain) for _ in range(min(self.threads, len(runs)))]
        try:
            for future in futures:
                future.result()
        except BaseException:
            stopped.set()
            wait(futures)  # nothing of this call runs on after it has raised
            raise

    def close(self) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)


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
    workers.run(work, plan(lengths, cores=backend.concurrency, hidden_size=backend.hidden_size))
    return logits
