"""Work for several threads, whose state is right after an interrupt at any point of the caller's.

Python's own locks, conditions and futures are not: a KeyboardInterrupt inside their methods leaves them held for good. So the
caller's side has nothing that is held. It waits on a SimpleQueue, which is C, and looks at the state again whatever woke it.
"""

import threading
from collections import deque
from collections.abc import Callable, Iterable
from queue import SimpleQueue
from typing import Generic, TypeVar

Item = TypeVar("Item")


class Work(Generic[Item]):
    """`do` for each item, in order. Whoever asked for it waits; threads take part. The first error stops the rest."""

    def __init__(self, do: Callable[[Item], None], items: Iterable[Item]) -> None:
        self._do, self._items = do, deque(items)
        self.stopped = False
        self._errors: list[BaseException] = []
        self._inside: set[int] = set()  # threads that may be at an item
        self._left: SimpleQueue[None] = SimpleQueue()  # one entry whenever a thread is no longer inside

    def take_part(self) -> None:
        """In a thread that no signal interrupts. Returns when there is nothing left to begin; raises nothing."""
        self._inside.add(threading.get_ident())  # first: whoever stops the work looks here after that
        try:
            self._drain()
        except BaseException as error:  # noqa: BLE001  it reaches whoever waits
            self._errors.append(error)
            self.stopped = True
        finally:
            self._inside.discard(threading.get_ident())
            self._left.put(None)

    def complete(self, *, alone: bool = False) -> None:
        """Wait until all is done, or do it `alone` in this thread. Raises the first error.

        An exception in this thread, such as KeyboardInterrupt, stops the rest: what is begun ends, and then it is raised.
        """
        try:
            if alone:
                self._drain()
            while self._unfinished():
                self._left.get()
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
        return bool(not self.stopped and self._items) or bool(self._inside)

    def _drain(self) -> None:
        while not self.stopped:
            try:
                item = self._items.popleft()
            except IndexError:
                return
            self._do(item)
