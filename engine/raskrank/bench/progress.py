"""How a benchmark tells where it is."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from raskrank.terminal import Steps


@contextmanager
def step(progress: Steps | None, name: str, total: int | None = None) -> Iterator[Callable[[int], None]]:
    """A step of the progress, if there is one to be shown; gives what counts its `total` units."""
    if progress is None:
        yield lambda _: None
        return
    progress.start(name, total)
    start = time.perf_counter()
    try:
        yield progress.advance
    finally:
        progress.finish(time.perf_counter() - start)
