"""Work in a thread of its own, for what lets go of the GIL: hashing a file, loading a graph, tokenizing many texts."""

import threading
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, wait
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def beside(function: Callable[[], Result]) -> "Future[Result]":
    """Starts `function` in a new thread, or runs it at once where there can be none, as while Python exits."""
    future: Future[Result] = Future()

    def run() -> None:
        try:
            future.set_result(function())
        except BaseException as error:  # noqa: BLE001  it reaches whoever asks for the result
            future.set_exception(error)

    try:
        threading.Thread(target=run, name="raskrank-beside").start()
    except RuntimeError:
        run()
    return future


def ahead(function: Callable[[Item], Result], items: Sequence[Item]) -> Generator[Result]:
    """`function` of each item, in order; the next is computed while the caller is busy with the one before.

    Close the generator, and nothing of it runs on.
    """
    following: Future[Result] | None = None
    try:
        for index, item in enumerate(items):
            result = function(item) if following is None else following.result()
            following = None
            if index + 1 < len(items):
                following = beside(lambda item=items[index + 1]: function(item))  # type: ignore[misc]
            yield result
    finally:
        if following is not None:
            wait([following])
