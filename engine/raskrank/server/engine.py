"""The Reranker behind a server: loaded and warmed while the server already answers that it lives."""

import asyncio
import time
from collections.abc import Callable

from raskrank.info import Info
from raskrank.ranking import Ranking
from raskrank.reranker import Reranker
from raskrank.samples import read_samples
from raskrank.server.asks import Ask, Dialect
from raskrank.server.estimate import estimated_tokens
from raskrank.server.gate import Gate
from raskrank.server.problems import later

WARM_SECONDS = 0.3  # a call at least is made, and then another until so much time has passed
WARM_DOCUMENTS = 32


class Engine:
    """Loads a Reranker, measures its speed, and ranks with it until it is closed. For one event loop."""

    def __init__(self, load: Callable[[], Reranker]) -> None:
        """load: called once, in a thread."""
        self._load = load
        self._reranker: Reranker | None = None
        self._info: Info | None = None
        self.closing = False  # no further call is taken

    @property
    def ready(self) -> bool:
        return self._info is not None and not self.closing

    async def start(self, gate: Gate) -> Info:
        """Load, and rank samples, so that the first request is as fast as the others. Raises what loading raises."""
        self._reranker = await asyncio.to_thread(self._load)
        info = self._reranker.info()
        gate.measured(*await asyncio.to_thread(_warm, self._reranker, info.max_length))
        self._info = info
        return info

    @property
    def info(self) -> Info:
        """Raises Problem: 503."""
        self._check()
        assert self._info is not None
        return self._info

    async def rank(self, ask: Ask, deadline: float | None) -> Ranking:
        """All documents of a request, best first. deadline: seconds from now. Cancelling it stops the work."""
        self._check()
        assert self._reranker is not None
        return await self._reranker.arank(
            ask.query, ask.documents, raw_scores=ask.raw_scores, long_documents=ask.long_documents, deadline=deadline
        )

    async def close(self) -> None:
        self.closing = True
        if self._reranker is not None:
            await asyncio.to_thread(self._reranker.close)

    def _check(self) -> None:
        if self.closing:
            raise later(503, "this server is shutting down", 1)
        if self._info is None:
            raise later(503, "the model is being loaded", 1)


def _warm(reranker: Reranker, max_length: int) -> tuple[int, float]:
    """Estimated tokens, and the seconds that they took."""
    documents = [document for sample in read_samples() for document in sample.documents][:WARM_DOCUMENTS]
    query = read_samples()[0].query
    ask = Ask(dialect=Dialect.RESULTS, query=query, documents=documents)
    reranker.rank(query, documents)  # starts the threads
    start, rounds = time.perf_counter(), 0
    while not rounds or time.perf_counter() < start + WARM_SECONDS:
        reranker.rank(query, documents)
        rounds += 1
    return rounds * estimated_tokens(ask, max_length), time.perf_counter() - start
