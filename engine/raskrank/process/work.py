"""Work for several threads, whose state is right after an interrupt at any point of the caller's.

Python's own locks, conditions and futures are not: a KeyboardInterrupt inside their methods leaves them held for good. So the
caller's side has nothing that is held. It waits on a SimpleQueue, which is C, and looks at the state again whatever woke it.
"""

import math
import threading
from collections import deque
from collections.abc import Callable, Iterable
from queue import Empty, SimpleQueue
from typing import Generic, TypeVar

Item = TypeVar("Item")

# Seconds of one wait for a deadline, after which the time is looked at again: a queue takes no longer ones than some centuries.
LONGEST_WAIT = 3600.0


def forever() -> float:
    """The seconds that are left where nothing ends a work early."""
    return math.inf


class Work(Generic[Item]):
    """`do` for each item, in order. Whoever asked for it waits; threads take part. The first error stops the rest."""

    def __init__(
        self,
        do: Callable[[Item], None],
        items: Iterable[Item],
        *,
        cost: Callable[[Item], float] = lambda _: 1,
        may_begin: Callable[[Item], bool] = lambda _: True,
    ) -> None:
        """cost: of an item, in what `take_part` is allowed. may_begin: asked before each item; False stops the rest."""
        self._do, self._items = do, deque(items)
        self._cost, self._may_begin = cost, may_begin
        self.stopped = False
        self._errors: list[BaseException] = []
        self._inside: set[int] = set()  # threads that may be at an item
        self._left: SimpleQueue[None] = SimpleQueue()  # an entry where the last item is begun and a thread no longer inside

    @property
    def more(self) -> bool:
        """Whether there is anything left to begin."""
        return not self.stopped and bool(self._items)

    def take_part(self, allowance: float = math.inf) -> float:
        """In a thread that no signal interrupts: begin items until they have cost `allowance`, or none is left.

        Returns what they cost; raises nothing.
        """
        self._inside.add(threading.get_ident())  # first: whoever stops the work looks here after that
        spent = 0.0
        try:
            spent = self._drain(allowance)
        except BaseException as error:  # noqa: BLE001  it reaches whoever waits
            self._errors.append(error)
            self.stopped = True
        finally:
            self._inside.discard(threading.get_ident())
            if not self.more:  # looked at last: whoever stops the work meanwhile finds nobody inside
                self._left.put(None)
        return spent

    def stop(self) -> None:
        """In any thread: nothing more is begun, and whoever waits learns of it."""
        self.stopped = True
        self._left.put(None)

    def complete(self, *, alone: bool = False, seconds_left: Callable[[], float] = forever) -> None:
        """Wait until all is done, or do it `alone` in this thread. Raises the first error.

        seconds_left: no longer above 0 stops the rest. So does an exception in this thread, such as KeyboardInterrupt: what is
        begun ends, and then it is raised.
        """
        try:
            if alone:
                self._drain(math.inf)
            while self._unfinished() and (seconds := seconds_left()) > 0:
                self._wait(seconds)
        finally:
            self.stopped = True
            self.settle()
        if self._errors:
            error = self._errors[0]
            self._errors.clear()
            try:
                raise error
            finally:
                del error  # its traceback has this frame

    def settle(self) -> None:
        """Begin nothing more, and wait for what is begun. An interrupt waits too, and is raised then."""
        self.stopped = True
        interrupt: BaseException | None = None
        while self._inside:
            try:
                self._left.get()
            except BaseException as error:  # noqa: BLE001  raised below
                interrupt = error
        if interrupt is not None:
            raise interrupt

    def _unfinished(self) -> bool:
        # In this order: a thread is inside before it takes an item.
        return self.more or bool(self._inside)

    def _wait(self, seconds: float) -> None:
        try:
            self._left.get(timeout=None if seconds == math.inf else min(seconds, LONGEST_WAIT))
        except Empty:
            return

    def _drain(self, allowance: float) -> float:
        spent = 0.0
        while not self.stopped and spent < allowance:
            try:
                item = self._items.popleft()
            except IndexError:
                break
            if not self._may_begin(item):
                self.stopped = True
                break
            spent += self._cost(item)
            self._do(item)
        return spent
