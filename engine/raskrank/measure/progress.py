"""The steps of a measurement, shown while they run."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from raskrank.printable import plain
from raskrank.terminal import Steps


@contextmanager
def step(progress: Steps | None, name: str, total: int | None = None) -> Iterator[Callable[[int], None]]:
    """Show a step until the block ends; gives what to call with the units done, of `total`. progress None shows nothing."""
    if progress is None:
        yield lambda _: None
        return
    progress.start(plain(name), total)
    start = time.perf_counter()
    try:
        yield progress.advance
    finally:
        progress.finish(time.perf_counter() - start)
