"""A loaded model with its threads and its cache: what every call of a Reranker goes through."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from types import TracebackType
from typing import Self, TypeVar

from raskrank import texts
from raskrank.activation import activate
from raskrank.backend import Float32Array
from raskrank.cache import ScoreCache
from raskrank.errors import ForkError
from raskrank.info import Info, describe
from raskrank.loading import Loaded, load
from raskrank.options import Options
from raskrank.process import memory
from raskrank.process.fork import Owner
from raskrank.process.until import Until
from raskrank.reference import LazyReference
from raskrank.running import Workers
from raskrank.scoring import Outcome, Pair, Request, Scorer

Result = TypeVar("Result")


class Session:
    """From `load` to `close`, in one process. What it scores is up to Reranker, the class above it."""

    def __init__(self, options: Options, loaded: Loaded) -> None:
        self._options, self._loaded = options, loaded
        self._workers = Workers(loaded.backend.concurrency)
        self._reference = LazyReference(loaded.manifest, options.checkpoint)
        rescues = options.fallback == "torch" and loaded.backend.name != "torch"
        identity = f"{loaded.manifest_sha256} {loaded.backend.name}"
        self._cache = ScoreCache(options.cache_bytes, identity) if options.cache_bytes else None
        self._scorer = Scorer(loaded, self._workers, self._reference if rescues else None, self._cache)
        self._owner = Owner()

    @contextmanager
    def progress(self, advance: Callable[[int], None]) -> Iterator[None]:
        """A context manager: within its block, `advance` hears of every pair that this Reranker has scored, in any call.

        advance: called with the number of pairs that are newly done, from worker threads; it should be quick. A pair that is
            there twice, or that the cache knows, counts as every other. `verify` scores each pair twice.
        """
        before, self._scorer.advance = self._scorer.advance, advance
        try:
            yield
        finally:
            self._scorer.advance = before

    def info(self) -> Info:
        """What is loaded, on which machine it runs, and why so."""
        return describe(self._options, self._loaded, rescued_pairs=self._scorer.rescued, cache=self._cache)

    def close(self) -> None:
        """Free the model and its threads, once calls in other threads have ended. A second close does nothing."""
        if self._workers.close():
            self._loaded.backend.close()
            self._reference.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def __reduce__(self) -> tuple[object, ...]:
        # A process that stands in another folder or environment still loads the same bundle.
        return _reload, (type(self), replace(self._options, bundle=self._loaded.choice))

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._loaded.name} on {self._loaded.backend.name}>"

    def _with_query(self, query: object, documents: object) -> list[Pair]:
        limits = self._options.limits
        checked = texts.check_query(query, limits)
        return [(checked, document) for document in texts.check_documents(documents, limits)]

    def _checked(self, pairs: object) -> list[Pair]:
        return texts.check_pairs(pairs, self._options.limits)

    async def _aside(self, function: Callable[[], Result], until: Until) -> Result:
        self._check_process()
        return await self._workers.callers.call(function, until)

    def _outcome(self, pairs: list[Pair], request: Request) -> Outcome:
        return self._call(len(pairs) * request.most_windows, lambda: self._scorer.score(pairs, request))

    def _scores(self, logits: Float32Array, *, raw: bool) -> Float32Array:
        return logits if raw else activate(self._loaded.activation, logits)

    def _call(self, runs: int, function: Callable[[], Result]) -> Result:
        """`function()` for so many runs at most, which `close` waits for. Not a context manager: an interrupt in one could
        leave the call open."""
        self._check_process()
        side_by_side = min(self._loaded.backend.concurrency, runs)
        starting = self._workers.lacking(side_by_side)
        width, longest = self._loaded.backend.hidden_size, self._loaded.encoder.max_length
        memory.need(memory.for_call(side_by_side, width, longest, starting=starting), "a call")
        return self._workers.call(function)

    def _check_process(self) -> None:
        if not self._owner.is_here:
            raise ForkError("this Reranker was loaded before the process was forked; load it in the child process")


def _reload(kind: type[Session], options: Options) -> Session:
    return kind(options, load(options))
