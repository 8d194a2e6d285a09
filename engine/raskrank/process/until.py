"""When a call ends before it is done: at its deadline, or because nobody waits for it any longer."""

import math
import time
from collections.abc import Callable


class Stopped(Exception):
    """The call was stopped; nobody sees this, since nobody waits."""


class Until:
    """How long a call may go on. One for each call, whose time begins when this is made."""

    clock = staticmethod(time.monotonic)  # seconds

    def __init__(self, seconds: float | None = None) -> None:
        """seconds: until the deadline. Default: there is none."""
        self.limited = seconds is not None
        self._end = math.inf if seconds is None else self.clock() + seconds
        self._stopped = False
        self._tell: Callable[[], None] | None = None

    def left(self) -> float:
        """Seconds until the deadline, inf without one; 0 or less once it is over or the call was stopped."""
        return -math.inf if self._stopped else self._end - self.clock()

    def expire(self) -> None:
        """The deadline has come."""
        self._end = -math.inf

    def stop(self) -> None:
        """In any thread: nothing more of the call is begun."""
        self._stopped = True
        if tell := self._tell:
            tell()

    def tells(self, tell: Callable[[], None]) -> None:
        """Call `tell` when the call is stopped, or now if it was."""
        self._tell = tell
        if self._stopped:  # looked at last: it may have come meanwhile
            tell()

    def check(self) -> None:
        """Raises Stopped if the call was."""
        if self._stopped:
            raise Stopped
