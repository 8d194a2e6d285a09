"""How an export tells where it is."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol


class Progress(Protocol):
    """Receives the steps of an export. `start` opens a step, `advance` counts units of it, `finish` closes it."""

    def start(self, step: str, total: int | None) -> None:
        """A step named `step` begins, of `total` units if they can be counted."""

    def advance(self, units: int) -> None:
        """So many more units of the step are done. Called from worker threads, too."""

    def finish(self, seconds: float) -> None:
        """The step is over, whether it succeeded or raised, after so many seconds."""


class Silent:
    """Shows nothing."""

    def start(self, step: str, total: int | None) -> None:
        pass

    def advance(self, units: int) -> None:
        pass

    def finish(self, seconds: float) -> None:
        pass


class Clock:
    """Times steps, and passes them on."""

    def __init__(self, progress: Progress) -> None:
        self.progress = progress
        self.seconds: dict[str, float] = {}

    @contextmanager
    def step(self, name: str, total: int | None = None) -> Iterator[None]:
        self.progress.start(name, total)
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = round(time.perf_counter() - start, 3)
            self.progress.finish(self.seconds[name])
