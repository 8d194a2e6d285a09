"""The calls in progress, which whoever closes waits for."""

import os
import threading
import time
from collections.abc import Callable
from typing import TypeVar

from raskrank.errors import ClosedError
from raskrank.process import threads

Result = TypeVar("Result")

# Seconds between looks at a call that another thread has not ended yet.
GLANCE = 0.002

_exiting = False


class Calls:
    """Each call holds a lock of its own for as long as it runs, and is over when that is free, however it ended.

    Nothing is counted, so that an interrupt cannot leave a count wrong.
    """

    def __init__(self) -> None:
        self._held: dict[threading.Lock, tuple[int, int]] = {}  # lock of a call -> its process and thread
        self._closed = False

    def enter(self, function: Callable[[], Result]) -> Result:
        """`function()` as a call. Within a call of the same thread it is a part of that one.

        Raises ClosedError after `close`, and InferenceError in a thread whose stack is too small.
        """
        mine = (os.getpid(), threading.get_ident())
        if mine in self._running().values():
            return function()
        threads.check_stack()
        lock = threading.Lock()
        with lock:
            try:
                self._held[lock] = mine  # from here on `close` waits for it, or has set what is looked at next
                if _exiting:
                    raise ClosedError("Python is exiting")
                if self._closed:
                    raise ClosedError("this Reranker is closed; load it again")
                return function()
            finally:
                self._held.pop(
                    lock, None
                )  # should an interrupt prevent this, the lock is freed; should it prevent that, this is done

    @property
    def several(self) -> bool:
        """Whether more than one is in progress."""
        return len(self._running()) > 1

    def close(self) -> None:
        """Refuse further calls, and wait for those of other threads."""
        self._closed = True
        mine = (os.getpid(), threading.get_ident())
        for lock, caller in self._running().items():
            # Looked at and never taken: an interrupt here leaves it as it was. A forked child has none of these threads.
            while caller != mine and caller[0] == mine[0] and lock.locked():
                time.sleep(GLANCE)

    def _running(self) -> dict[threading.Lock, tuple[int, int]]:
        """Forgets those that are over."""
        for lock in list(self._held):
            if not lock.locked():  # it is never locked again
                # Should an interrupt prevent this, the lock is freed; should it prevent that, this is done.
                self._held.pop(lock, None)
        return dict(self._held)


loads = Calls()


def refuse_all() -> None:
    """Python exits: no further call, of any Reranker, and no load."""
    global _exiting
    _exiting = True
