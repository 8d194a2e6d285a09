"""Threads that make calls for event loops, so that a loop goes on while a call waits for its runs."""

import contextvars
import math
import threading
import weakref
from collections.abc import Callable
from contextlib import suppress
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from raskrank.errors import ClosedError, InferenceError
from raskrank.process import memory, threads
from raskrank.process.until import Until

if TYPE_CHECKING:
    import asyncio

Result = TypeVar("Result")

# Calls of event loops that are in progress together; further ones wait until one of these is over. Each has a thread, which
# mostly waits: more would take memory, and make no call faster.
MAX_CALLERS = 32


class _Job(Generic[Result]):
    """A call, which whoever claims it first makes: a caller's thread, or the loop itself once its deadline has come."""

    def __init__(self, function: Callable[[], Result], loop: "asyncio.AbstractEventLoop") -> None:
        self._function: Callable[[], Result] | None = function
        self._context, self._loop = contextvars.copy_context(), loop
        self.future: asyncio.Future[Result] = loop.create_future()
        self._claimed = threading.Lock()  # taken, and never waited for nor given back

    def claim(self) -> Callable[[], Result] | None:
        """The function, for the first who asks."""
        if not self._claimed.acquire(blocking=False):
            return None
        function, self._function = self._function, None
        return function

    def make(self) -> None:
        """The call, unless somebody has claimed it. Raises nothing."""
        if (function := self.claim()) is None:
            return
        try:
            result = self._context.run(function)
        except BaseException as error:  # noqa: BLE001  it reaches whoever awaits
            self._tell(self.future.set_exception, error)
        else:
            self._tell(self.future.set_result, result)

    def _tell(self, settle: Callable[[Any], None], outcome: object) -> None:
        def tell() -> None:
            if not self.future.done():  # cancelled
                settle(outcome)

        with suppress(RuntimeError):  # the loop was closed meanwhile
            self._loop.call_soon_threadsafe(tell)


class Callers:
    """Up to MAX_CALLERS threads, made as calls come and kept until `close`. Event loops of several threads may share them."""

    def __init__(self) -> None:
        self._jobs: SimpleQueue[_Job[Any] | None] = SimpleQueue()
        self._unfinished: set[_Job[Any]] = set()
        self._pool: list[threading.Thread] = []
        self._closed = False
        weakref.finalize(self, self._jobs.put, None).atexit = False

    async def call(self, function: Callable[[], Result], until: Until) -> Result:
        """`function()` in one of the threads, with this task's context variables.

        until: what the function heeds. It is stopped as soon as nobody waits any longer, as when the task is cancelled. A
        function that still waits for a thread at its deadline is called by the loop, and has to return at once.

        Raises what the function raises, ClosedError after `close`, and InferenceError where no thread can be started.
        """
        import asyncio  # not for nothing: most processes have no event loop

        loop = asyncio.get_running_loop()
        job = _Job(function, loop)

        def end() -> None:
            until.expire()
            job.make()

        self._give(job)
        timer = None if (seconds := until.left()) == math.inf else loop.call_later(seconds, end)
        try:
            return await job.future
        finally:
            until.stop()
            job.claim()  # of one that nobody has begun, what it was given is let go of
            if timer is not None:
                timer.cancel()

    def close(self) -> None:
        """Refuse further calls, and wait until the threads have ended."""
        self._closed = True
        self._jobs.put(None)
        for thread in list(self._pool):
            thread.join()

    def _give(self, job: _Job[Any]) -> None:
        self._unfinished.add(job)
        self._jobs.put(job)
        try:
            self._grow(min(len(self._unfinished), MAX_CALLERS))
            if self._closed:  # looked at last: a job that comes after the end is not taken
                raise ClosedError("this Reranker is closed; load it again")
        except BaseException:
            job.claim()
            self._unfinished.discard(job)
            raise

    def _grow(self, wanted: int) -> None:
        """Start the threads that are lacking. Where the system allows fewer, that has to do; where it allows none, raise."""
        lacking = wanted - len(self._pool)
        if lacking <= 0 or self._closed:
            return
        try:
            memory.need(lacking * memory.THREAD, "a thread for a call")
        except InferenceError:
            if not self._pool:
                raise
            return
        jobs, unfinished = self._jobs, self._unfinished  # and not self, which goes where nobody uses it
        threads.start(lambda: _serve(jobs, unfinished), wanted, "raskrank-caller", daemon=True, pool=self._pool)
        if not self._pool:
            raise InferenceError("no thread could be started for a call: raise the limit on threads, or call rank in your own")


def _serve(jobs: "SimpleQueue[_Job[Any] | None]", unfinished: "set[_Job[Any]]") -> None:
    """A thread: makes one call after another until there comes None, which it leaves for the others."""
    while (job := jobs.get()) is not None:
        job.make()
        unfinished.discard(job)
        del job
    jobs.put(None)
