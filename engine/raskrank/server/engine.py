"""The Reranker behind a server: loaded and warmed while the server already answers that it lives."""

import asyncio
import time
from collections.abc import Callable

from raskrank.info import Info
from raskrank.ranking import Ranking
from raskrank.reranker import Reranker
from raskrank.samples import read_samples
from raskrank.server.asks import Ask
from raskrank.server.gate import Gate
from raskrank.server.problems import later

WARM_SECONDS = 0.3  # a call at least is made, and then another until so much time has passed
WARM_DOCUMENTS = 32


class Engine:
    """Loads a Reranker, measures its speed, and ranks with it until it is closed. For one event loop."""

    def __init__(self, load: Callable[[], Reranker]) -> None:
        """load: called once, in a thread."""
        self._load = load
        self._loaded: Reranker | None = None
        self._warm: tuple[Reranker, Info] | None = None
        self.closing = False  # no further call is taken

    async def start(self, gate: Gate) -> Info:
        """Load, and rank samples, so that the first request is as fast as the others. Raises what loading raises."""
        self._loaded = await asyncio.to_thread(self._load)
        info = self._loaded.info()
        gate.measured(*await asyncio.to_thread(_warm_up, self._loaded))
        self._warm = self._loaded, info
        return info

    @property
    def info(self) -> Info:
        """Raises Problem: 503."""
        return self._usable()[1]

    async def rank(self, ask: Ask, deadline: float | None) -> Ranking:
        """All documents of a request, best first. deadline: seconds from now. Cancelling it stops the work.

        Raises Problem: 503; else as `Reranker.rank` does.
        """
        reranker, _ = self._usable()
        return await reranker.arank(
            ask.query, ask.documents, raw_scores=ask.raw_scores, long_documents=ask.long_documents, deadline=deadline
        )

    async def close(self) -> None:
        """Take no further call, and wait for what is begun."""
        self.closing = True
        if self._loaded is not None:
            await asyncio.to_thread(self._loaded.close)

    def _usable(self) -> tuple[Reranker, Info]:
        if self.closing:
            raise later(503, "this server is shutting down", 1)
        if self._warm is None:
            raise later(503, "the model is being loaded", 1)
        return self._warm


def _warm_up(reranker: Reranker) -> tuple[int, float]:
    """Tokens that were read, and the seconds that they took."""
    documents = [document for sample in read_samples() for document in sample.documents][:WARM_DOCUMENTS]
    query = read_samples()[0].query
    reranker.rank(query, documents)  # starts the threads
    start, tokens = time.perf_counter(), 0
    while not tokens or time.perf_counter() < start + WARM_SECONDS:
        tokens += reranker.rank(f"{query} {tokens}", documents).tokens  # another each time: scores may be cached
    return tokens, time.perf_counter() - start
