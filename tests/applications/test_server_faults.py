"""The application without a socket: before its model is loaded, where that fails, and what engine or client do wrong."""

import asyncio
import json
import logging
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
import uvicorn  # noqa: F401  needs the extra server

from callers import SECRET
from raskrank import Reranker
from raskrank.errors import ClosedError, InferenceError, InputError, NonFiniteScore
from raskrank.server.app import Application
from raskrank.server.bodies import parsed
from raskrank.server.options import ServerOptions
from serving import DOCUMENTS, QUERY, Answer

BODY = json.dumps({"query": QUERY, "documents": DOCUMENTS}).encode()
TEI = json.dumps({"query": QUERY, "texts": DOCUMENTS}).encode()
Calls = Callable[..., Coroutine[Any, Any, Answer]]


def run(test: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(test, 60))


@asynccontextmanager
async def running(application: Application) -> AsyncIterator[Calls]:
    """Starts and stops it as a server does; gives a function that sends it a request."""
    events, done = asyncio.Queue[str](), asyncio.Queue[str]()

    async def receive() -> dict[str, Any]:
        return {"type": await events.get()}

    async def send(message: Any) -> None:
        done.put_nowait(message["type"])

    life = asyncio.create_task(application({"type": "lifespan", "state": {}}, receive, send))
    events.put_nowait("lifespan.startup")
    assert await done.get() == "lifespan.startup.complete"

    async def call(method: str, path: str, pieces: Sequence[bytes] = (b"",), *, ends: bool = True) -> Answer:
        return await _call(application, method, path, list(pieces), ends=ends)

    yield call
    events.put_nowait("lifespan.shutdown")
    assert await done.get() == "lifespan.shutdown.complete"
    await life


async def _call(application: Application, method: str, path: str, pieces: list[bytes], *, ends: bool) -> Answer:
    """ends: whether the body does; else nothing comes after the pieces."""
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        if not pieces:
            await asyncio.Event().wait()
        piece = pieces.pop(0)
        return {"type": "http.request", "body": piece, "more_body": bool(pieces) or not ends}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "method": method, "path": path, "raw_path": path.encode(), "root_path": "", "query_string": b""}
    await application({**scope, "headers": [], "scheme": "http", "server": ("a", 80), "http_version": "1.1"}, receive, send)
    headers = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
    return Answer(sent[0]["status"], headers, b"".join(message.get("body", b"") for message in sent[1:]))


async def until_ready(call: Calls) -> None:
    while (await call("GET", "/ready")).status != 200:
        await asyncio.sleep(0.01)


def test_it_lives_before_it_is_ready() -> None:
    async def test() -> None:
        loaded = threading.Event()

        def load() -> Reranker:
            loaded.wait()
            return Reranker.load()

        async with running(Application(load)) as call:
            assert (await call("GET", "/health")).status == 200
            for answer in (await call("GET", "/ready"), await call("GET", "/info"), await call("POST", "/rerank", [TEI])):
                assert (answer.status, answer.headers["retry-after"], answer.json["error_type"]) == (503, "1", "Unhealthy")
            loaded.set()
            await until_ready(call)
            assert (await call("POST", "/rerank", [TEI])).status == 200

    run(test())


def test_a_model_that_cannot_be_loaded_is_told_to_whoever_asked() -> None:
    async def test() -> None:
        failures: list[BaseException | None] = []

        def load() -> Reranker:
            raise InputError("no such bundle")

        application = Application(load, started=lambda task: failures.append(task.exception()))
        async with running(application) as call:
            while not failures:
                await asyncio.sleep(0.01)
            assert (await call("GET", "/ready")).status == 503
        assert isinstance(failures[0], InputError)

    run(test())


@pytest.mark.parametrize(
    ("error", "tei", "others"),
    [
        (InferenceError("out of memory"), 424, 500),
        (NonFiniteScore("1 of 3 scores are NaN or infinite, at 1", [1]), 424, 500),
        (ClosedError("closed"), 503, 503),
        (RuntimeError(SECRET), 500, 500),
        (KeyError(SECRET), 500, 500),
    ],
)
def test_what_the_engine_raises(
    error: Exception, tei: int, others: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail(*_: object, **__: object) -> None:
        raise error

    async def test() -> None:
        async with running(Application(Reranker.load)) as call:
            await until_ready(call)
            monkeypatch.setattr(Reranker, "arank", fail)
            answers = [await call("POST", "/rerank", [body]) for body in (TEI, BODY)]
            assert [answer.status for answer in answers] == [tei, others]
            assert SECRET not in "".join(answer.body.decode() for answer in answers)
            metrics = (await call("GET", "/metrics")).body.decode()
            assert "raskrank_queue_tokens 0.0" in metrics

    caplog.set_level(logging.DEBUG)
    run(test())
    assert SECRET not in caplog.text


def test_a_body_that_comes_too_slowly_is_given_up() -> None:
    async def test() -> None:
        async with running(Application(Reranker.load, options=ServerOptions(body_timeout=0.1))) as call:
            await until_ready(call)
            answer = await call("POST", "/v1/rerank", [BODY[:10]], ends=False)
            assert (answer.status, answer.json["error"]["code"]) == (408, 408)

    run(test())


def test_a_body_may_come_in_pieces() -> None:
    async def test() -> None:
        async with running(Application(Reranker.load)) as call:
            await until_ready(call)
            whole = await call("POST", "/rerank", [TEI])
            pieces = await call("POST", "/rerank", [TEI[place : place + 1] for place in range(len(TEI))])
            assert pieces.body == whole.body

    run(test())


def test_the_loop_goes_on_while_a_large_body_is_parsed() -> None:
    async def test() -> None:
        start = last = time.perf_counter()
        longest = 0.0

        def look() -> None:
            nonlocal last, longest
            now = time.perf_counter()
            last, longest = now, max(longest, now - last)

        async def tick() -> None:
            while True:
                await asyncio.sleep(0)
                look()

        ticking = asyncio.create_task(tick())
        await parsed(b"[" + b'{"a":[1]},' * 200_000 + b"0]", ServerOptions(max_documents=10**6))
        look()
        total = time.perf_counter() - start
        ticking.cancel()
        assert longest < total / 2  # Python's own parser holds all threads from the first value to the last

    run(test())
