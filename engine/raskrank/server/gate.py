"""How much work may be inside: a gate counted in tokens, in front of the engine, that never queues without bound."""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from raskrank.server.options import ServerOptions
from raskrank.server.problems import later

# Tokens inside from which on the workers count as busy: what is done in idle times says nothing of their speed.
BUSY_TOKENS = 2048
# Busy seconds that the measured speed looks back on, about.
MEMORY = 10.0
# Seconds of Retry-After: clients that honour it cap it at 60.
LONGEST_WAIT = 60


class Gate:
    """Counts the estimated tokens of calls that were let in and have not ended, in the thread of the event loop alone.

    The engine gives the calls inside turns of equal cost, so that until a call of n tokens is done it has done n tokens of it,
    and of each other call as many, or all that it has if that is less. A call is let in if that is no more than the engine does
    in `options.max_wait` seconds, at the speed measured here, or no more than `options.max_tokens`: a small one also while a
    large one is at work, which it does not wait for. So of k calls inside the i-th smallest has at most 1 / (k - i + 1) of the
    bound, and all together the bound times 1 + 1/2 + ... + 1/k. One that comes to an empty gate is let in whatever its size.
    """

    def __init__(self, options: ServerOptions, clock: Callable[[], float] = time.monotonic) -> None:
        self._options, self._clock = options, clock
        self._inside: list[int] = []  # tokens of each call
        self._done_tokens, self._busy_seconds = 0.0, 0.0  # what MEMORY holds
        self._looked = clock()

    def measured(self, tokens: int, seconds: float) -> None:
        """The engine did so much in so long, with nothing else to do."""
        self._done_tokens, self._busy_seconds = float(tokens), seconds

    @property
    def tokens(self) -> int:
        """Estimated, of all calls inside."""
        return sum(self._inside)

    @property
    def requests(self) -> int:
        return len(self._inside)

    @property
    def speed(self) -> float:
        """Tokens that the engine reads in a second, while there is enough to do."""
        return self._done_tokens / self._busy_seconds if self._busy_seconds and self._done_tokens else math.inf

    @property
    def capacity(self) -> float:
        """Estimated tokens that may be done until a call is."""
        limit = self._options.max_tokens
        return self.speed * self._options.max_wait if limit is None else limit

    @contextmanager
    def admitted(self, tokens: int) -> Iterator[Callable[[int], None]]:
        """Within its block so many estimated tokens are inside. Raises Problem: 429, with the seconds until there is room.

        Gives a function to call, at the end, with the tokens that were read: fewer where pairs are equal, or a deadline came.
        """
        over = tokens + sum(min(tokens, other) for other in self._inside) - self.capacity
        if self._inside and (over > 0 or self.requests >= self._options.max_requests):
            seconds = over / self.speed if over > 0 else min(self._inside) / self.speed
            raise later(429, "too much work is waiting", min(LONGEST_WAIT, max(1, math.ceil(seconds))))
        self._look()
        self._inside.append(tokens)
        try:
            yield self._read
        finally:
            self._look()
            self._inside.remove(tokens)

    def _read(self, tokens: int) -> None:
        self._look()
        if self.tokens >= BUSY_TOKENS:
            self._done_tokens += tokens

    def _look(self) -> None:
        """Count the time since the last look, if the engine was busy, and forget as much of what is older."""
        now = self._clock()
        if self.tokens >= BUSY_TOKENS:
            passed = now - self._looked
            kept = math.exp(-passed / MEMORY)
            self._done_tokens, self._busy_seconds = self._done_tokens * kept, self._busy_seconds * kept + passed
        self._looked = now


class Room:
    """Bytes of bodies that are held at the same time, from the first one read to the end of the call."""

    def __init__(self, capacity: int) -> None:
        self._free = capacity

    @contextmanager
    def taking(self) -> Iterator[Callable[[int], None]]:
        """Gives a function that takes so many bytes more, until the block ends. It raises Problem: 429."""
        taken = 0

        def take(size: int) -> None:
            nonlocal taken
            if size > self._free:
                raise later(429, "too many large requests at the same time", 1)
            self._free -= size
            taken += size

        try:
            yield take
        finally:
            self._free += taken
