"""The application: which path leads where."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Message, Receive, Scope, Send

from raskrank.info import Info
from raskrank.reranker import Reranker
from raskrank.server import openapi, pages, replies
from raskrank.server.asks import Dialect
from raskrank.server.engine import Engine
from raskrank.server.gate import Gate
from raskrank.server.information import information
from raskrank.server.keys import Keys
from raskrank.server.metrics import Metrics
from raskrank.server.options import ServerOptions
from raskrank.server.problems import Problem
from raskrank.server.reranking import Reranking

# Pages run no script but their own, ask no other host, and stand in no other's frame.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {"x-content-type-options": "nosniff", "referrer-policy": "no-referrer", "content-security-policy": POLICY}


class Application:
    """An ASGI application that loads a model when its server starts, and closes it when that ends.

    Any ASGI server runs it that knows lifespans, in one process: a second one would load a model of its own.
    """

    def __init__(
        self,
        load: Callable[[], Reranker],
        *,
        keys: Keys | None = None,
        options: ServerOptions | None = None,
        started: Callable[["asyncio.Task[Info]"], None] | None = None,
    ) -> None:
        """load: makes the Reranker; called once, in a thread. keys: that requests have to show; by default none.

        started: called when the model is ready, or has failed to load, with the task that did it.
        """
        self._options, self._keys = options or ServerOptions(), keys or Keys()
        self._engine, self._gate, self._started = Engine(load), Gate(self._options), started
        self._metrics = Metrics(self._gate)
        reranking = Reranking(self._engine, self._gate, self._keys, self._metrics, self._options)
        described = openapi.document(self._options, keys=bool(self._keys))
        self._app = Starlette(
            routes=[
                *(Route(path, reranking.post, methods=["POST"]) for path in openapi.RERANK),
                Route("/info", self._info),
                Route("/health", _alive),
                Route("/ready", self._ready),
                Route("/metrics", self._page_of_metrics),
                Route("/openapi.json", _fixed(replies.encoded(described), "application/json")),
                *(Route(path, _fixed(*page)) for path, page in pages.pages(described, keys=bool(self._keys)).items()),
            ],
            lifespan=self._lifespan,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message["headers"], *_encoded(HEADERS)]}
            await send(message)

        await self._app(scope, receive, with_headers)

    @asynccontextmanager
    async def _lifespan(self, _: Starlette) -> AsyncIterator[None]:
        starting = asyncio.create_task(self._start())
        if self._started is not None:
            starting.add_done_callback(self._started)
        try:
            yield
        finally:
            self._engine.closing = True
            with suppress(Exception):  # whoever passed `started` has it
                await starting
            await self._engine.close()

    async def _start(self) -> Info:
        info = await self._engine.start(self._gate)
        self._metrics.serves(info)
        return info

    async def _info(self, request: Request) -> Response:
        try:
            self._keys.check(dict(request.scope["headers"]).get(b"authorization"))
            return JSONResponse(information(self._engine.info, self._options))
        except Problem as problem:
            return _refusal(problem)

    async def _ready(self, _: Request) -> Response:
        try:
            return JSONResponse({"status": "ready", "model": self._engine.info.name})
        except Problem as problem:
            return _refusal(problem)

    async def _page_of_metrics(self, request: Request) -> Response:
        content, media_type = self._metrics.page(request.headers.get("accept", ""))
        return Response(content, headers={"content-type": media_type})


def _refusal(problem: Problem) -> Response:
    return JSONResponse(replies.error(problem, Dialect.TEXTS), problem.status, headers=problem.headers)


async def _alive(_: Request) -> Response:
    return JSONResponse({"status": "alive"})


def _fixed(content: bytes, media_type: str) -> Callable[[Request], Awaitable[Response]]:
    async def answer(_: Request) -> Response:
        return Response(content, media_type=media_type)

    return answer


def _encoded(headers: Mapping[str, str]) -> list[tuple[bytes, bytes]]:
    return [(name.encode(), value.encode()) for name, value in headers.items()]
