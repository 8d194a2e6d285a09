"""Work in a thread of its own, for what lets go of the GIL: hashing a file, loading a graph, tokenizing many texts."""

from collections.abc import Callable, Generator, Iterable
from typing import Generic, TypeVar

from raskrank.process import threads
from raskrank.process.work import Work

Item = TypeVar("Item")
Result = TypeVar("Result")


class Beside(Generic[Result]):
    """A function that runs in a thread of its own. Leave it as a context manager, and nothing of it runs on."""

    def __init__(self, function: Callable[[], Result]) -> None:
        self._results: list[Result] = []
        self._work = Work(lambda function: self._results.append(function()), [function])
        self._alone = not threads.start(self._work.take_part, 1, "raskrank-beside", daemon=False)

    def result(self) -> Result:
        """Waits. Raises what the function raised."""
        if not self._results:
            self._work.complete(alone=self._alone)
        return self._results[0]

    def __enter__(self) -> "Beside[Result]":
        return self

    def __exit__(self, *_: object) -> None:
        self._work.settle()


def beside(function: Callable[[], Result]) -> Beside[Result]:
    """Starts `function` in a new thread; where there can be none, as while Python exits, whoever wants its result runs it."""
    return Beside(function)


def ahead(function: Callable[[Item], Result], items: Iterable[Item]) -> Generator[Result]:
    """`function` of each item, in order; the next is computed while the caller is busy with the one before.

    Close the generator, and nothing of it runs on.
    """
    following = iter(items)
    for item in following:
        result = function(item)
        break
    else:
        return
    for item in following:
        with beside(lambda item=item: function(item)) as computing:  # type: ignore[misc]
            yield result
            result = computing.result()
    yield result
