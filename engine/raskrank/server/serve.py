"""Runs the application on a socket, from its first request to SIGTERM."""

import asyncio
import logging
import os
import signal
import socket
from collections.abc import Callable

import uvicorn

from raskrank.errors import InputError
from raskrank.info import Info
from raskrank.reranker import Reranker
from raskrank.server.app import Application
from raskrank.server.keys import Keys
from raskrank.server.options import ServerOptions

# Seconds that a connection may idle: longer than the 60 after which common proxies close theirs, so that none sends a request
# into a connection that is being closed here.
KEEP_ALIVE = 75
BACKLOG = 1024  # connections that the system accepts before the server does

# What uvicorn warns of goes to this log, without a traceback: what an exception says may hold a text of a request.
logger = logging.getLogger(__name__)


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens. port: 0 for any free one. Raises InputError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # asyncio sends small answers at once, without Nagle's 40 ms, only on sockets that say that they are TCP.
    listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        if os.name == "posix":  # a port may be taken again at once after its server has ended
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((host, port))
        listening.listen(BACKLOG)
    except (OSError, OverflowError) as error:
        listening.close()
        raise InputError(f"cannot listen on {host}, port {port}: {getattr(error, 'strerror', None) or error}") from None
    return listening


def serve(
    load: Callable[[], Reranker],
    listening: socket.socket,
    *,
    keys: Keys,
    options: ServerOptions,
    grace: int,
    ready: Callable[[Info], None],
) -> None:
    """Serve until SIGTERM, then end the calls that are in flight, within `grace` seconds, and return.

    ready: called when the model is loaded and warm. Raises what `load` raises; KeyboardInterrupt after SIGINT.
    """
    failures: list[BaseException] = []

    def started(task: "asyncio.Task[Info]") -> None:
        if task.cancelled():
            return
        if (error := task.exception()) is not None:
            failures.append(error)
            server.should_exit = True
        else:
            ready(task.result())

    application = Application(load, keys=keys, options=options, started=started)
    server = uvicorn.Server(
        uvicorn.Config(
            application,
            log_config=None,
            access_log=False,  # a line for each request, with its path and query, which may hold a text
            server_header=False,
            lifespan="on",
            timeout_keep_alive=KEEP_ALIVE,
            timeout_graceful_shutdown=grace,
            backlog=BACKLOG,
        )
    )
    uvicorn_log, forward = logging.getLogger("uvicorn.error"), _Forward()
    uvicorn_log.addHandler(forward)

    def stop(*_: object) -> None:
        server.should_exit = True

    # uvicorn notes the signal, ends in peace, and sends it again to whatever handled it before; one may come earlier yet.
    before = signal.signal(signal.SIGTERM, stop)
    try:
        with listening:
            asyncio.run(server.serve(sockets=[listening]))
    finally:
        signal.signal(signal.SIGTERM, before)
        uvicorn_log.removeHandler(forward)
    if failures:
        raise failures[0]


class _Forward(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        logger.log(record.levelno, "%s", record.getMessage().partition("\n")[0])
