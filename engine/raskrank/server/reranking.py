"""POST /rerank: key -> body -> ask -> gate -> engine -> reply."""

import asyncio
import logging
import time
from collections.abc import Coroutine
from typing import Any, TypeVar

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive

from raskrank.errors import ClosedError, InputError, RaskrankError
from raskrank.ranking import Ranking
from raskrank.server import replies
from raskrank.server.asks import Ask, Dialect, dialect_of, read_ask
from raskrank.server.bodies import LARGE, Gone, parsed, read_body
from raskrank.server.engine import Engine
from raskrank.server.estimate import estimated_tokens
from raskrank.server.gate import Gate, Room
from raskrank.server.keys import Keys
from raskrank.server.metrics import Metrics, outcome_of
from raskrank.server.options import ServerOptions
from raskrank.server.problems import Problem, later

Result = TypeVar("Result")
JSON = "application/json"
# Bodies of the largest size that may be held at the same time.
LARGEST_BODIES = 8
CLIENT_LEFT = 499  # nginx's, for a log; nobody reads it

logger = logging.getLogger(__name__)


class Reranking:
    """The endpoint, and what its requests share."""

    def __init__(self, engine: Engine, gate: Gate, keys: Keys, metrics: Metrics, options: ServerOptions) -> None:
        self._engine, self._gate, self._keys, self._metrics, self._options = engine, gate, keys, metrics, options
        self._room = Room(LARGEST_BODIES * options.max_body)

    async def post(self, request: Request) -> Response:
        """A ranking, or an error in the dialect of the request."""
        arrived, dialect = time.perf_counter(), dialect_of(None, request.url.path)
        try:
            self._keys.check(dict(request.scope["headers"]).get(b"authorization"))
            model = self._engine.info.name  # before a body is read: 503
            with self._room.taking() as take:
                body = await parsed(await read_body(request, self._options, take), self._options)
                dialect = dialect_of(body, request.url.path)
                ask = read_ask(body, dialect, request.headers.get("prefer", ""), self._options)
                del body
                hits = await until_gone(request.receive, self._ranked(ask, arrived))
                return await self._answer(ask, hits, model, arrived)
        except Gone:
            self._metrics.refused("disconnected")
            return Response(status_code=CLIENT_LEFT)
        except Problem as problem:
            return self._refuse(problem, dialect)
        except RaskrankError as error:
            return self._refuse(_problem_of(error, dialect), dialect)
        except Exception as error:  # noqa: BLE001  what it says may hold a text of the request
            logger.error("a request failed: %s%s", type(error).__name__, _place(error))
            return self._refuse(Problem(500, "internal error"), dialect)

    async def _ranked(self, ask: Ask, arrived: float) -> Ranking:
        with self._gate.admitted(estimated_tokens(ask, self._engine.info.max_length)) as read:
            left = None if ask.deadline is None else ask.deadline - (time.perf_counter() - arrived)
            if left is not None and left <= 0:
                raise _late()
            hits = await self._engine.rank(ask, left)
            read(hits.tokens)
        if hits.partial and all(hit.score != hit.score for hit in hits):
            raise _late()
        if not ask.truncate and any(hit.truncated for hit in hits):
            raise self._too_long(ask, hits)
        return hits

    def _too_long(self, ask: Ask, hits: Ranking) -> Problem:
        cut = sorted(hit.index for hit in hits if hit.truncated)
        name = "texts" if ask.dialect is Dialect.TEXTS else "documents"
        named = ", ".join(f"{name}[{index}]" for index in cut[:10]) + (", ..." if len(cut) > 10 else "")
        most = self._engine.info.max_length
        return Problem(422, f"{named}: more than {most} tokens with the query, and truncate is false", param="truncate")

    async def _answer(self, ask: Ask, hits: Ranking, model: str, arrived: float) -> Response:
        answer = replies.ranking(ask, hits, model)
        large = ask.return_texts and sum(map(len, ask.documents)) > LARGE
        content = await asyncio.to_thread(replies.encoded, answer) if large else replies.encoded(answer)
        total = time.perf_counter() - arrived
        self._metrics.ranked(hits, total)
        return Response(content, headers=replies.timing_headers(ask, hits, total=total), media_type=JSON)

    def _refuse(self, problem: Problem, dialect: Dialect) -> Response:
        self._metrics.refused(outcome_of(problem.status))
        content = replies.encoded(replies.error(problem, dialect))
        return Response(content, problem.status, headers=problem.headers, media_type=JSON)


async def until_gone(receive: Receive, work: Coroutine[Any, Any, Result]) -> Result:
    """What `work` returns or raises; cancels it and raises Gone if the client leaves before that."""
    task, gone = asyncio.ensure_future(work), asyncio.ensure_future(_gone(receive))
    try:
        await asyncio.wait((task, gone), return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise Gone
        return task.result()
    finally:
        task.cancel()
        gone.cancel()
        await asyncio.gather(task, gone, return_exceptions=True)


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _late() -> Problem:
    return Problem(504, "no document could be scored before the deadline", param="deadline")


def _problem_of(error: RaskrankError, dialect: Dialect) -> Problem:
    """Of what the engine raises; its messages hold no text."""
    if isinstance(error, InputError):
        return Problem(422, str(error))
    if isinstance(error, ClosedError):
        return later(503, "this server is shutting down", 1)
    logger.error("a request failed: %s", error)
    return Problem(424 if dialect is Dialect.TEXTS else 500, str(error))


def _place(error: BaseException) -> str:
    """Where an error came up, without what it says."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return "" if trace is None else f" in {trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}"
