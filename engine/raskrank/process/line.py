"""Threads that serve several works in turn, so that a small one does not wait until a large one is done."""

from queue import SimpleQueue
from typing import Generic, TypeVar

from raskrank.process.work import Work

Item = TypeVar("Item")


class _Place(Generic[Item]):
    """Of a work in the line: one thread serves it at a time. credit: what it may cost until others have their turn."""

    def __init__(self, work: Work[Item]) -> None:
        self.work, self.credit = work, 0.0


class Line(Generic[Item]):
    """Works stand in line with a place for each thread that they can use, and go back to its end after each turn.

    A turn costs what `turn` says; a work whose item cost more passes as many turns as it owes (deficit round robin, as in
    routers). So works get equal shares, and none waits for more than a turn, or an item, of each of the others.
    Only the threads that serve, which no signal interrupts, change a place.
    """

    def __init__(self, turn: float) -> None:
        self._turn, self._ended = turn, False
        self._places: SimpleQueue[_Place[Item] | None] = SimpleQueue()

    @property
    def waiting(self) -> int:
        """How many places wait for a thread."""
        return self._places.qsize()

    def join(self, work: Work[Item], places: int) -> None:
        """Let up to `places` threads take part in the work."""
        for _ in range(places):
            self._places.put(_Place(work))

    def end(self) -> None:
        """Let the threads end, once the works that are in the line are done."""
        self._ended = True
        self._places.put(None)

    def serve(self) -> None:
        """In a thread of its own: take part in one work after another, until the end."""
        while (place := self._places.get()) is not None:
            while place.work.more:
                place.credit += self._turn
                if place.credit > 0:
                    place.credit -= place.work.take_part(place.credit)
                if place.work.more and self._hand_on(place):
                    break
            del place
        self._places.put(None)  # for the other threads

    def _hand_on(self, place: _Place[Item]) -> bool:
        """Whether the place is in the line again, and not this thread's to serve any longer."""
        if self._places.empty():
            place.credit = 0  # nobody waited meanwhile, so nobody is owed
            return False
        self._places.put(place)
        return not self._ended  # looked at last: behind the end nobody takes it
