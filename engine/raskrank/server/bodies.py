"""A request's body: read within its limits, and parsed so that the event loop goes on."""

import asyncio
import json
from collections.abc import Callable
from typing import Any, NoReturn

from starlette.requests import ClientDisconnect, Request

from raskrank.server.options import ServerOptions
from raskrank.server.problems import Problem

# Bytes from which on parsing moves to a thread. A smaller body takes less than a millisecond.
LARGE = 128 * 1024
# A body that is too large is read to its end, and dropped, up to so many times the limit: a client that still sends is told why
# only if it is let finish.
PATIENCE = 8
# Of JSON, for each document that a request may have; a document that is an object may have fields that are ignored.
VALUES_PER_DOCUMENT = 100


class Gone(Exception):
    """The client has left; nobody reads an answer."""


async def read_body(request: Request, options: ServerOptions, take: Callable[[int], None]) -> bytes:
    """The body. take: called with the size of each piece before it is kept. Raises Problem (413, 408, 429), Gone."""
    pieces, size = [], 0
    try:
        async with asyncio.timeout(options.body_timeout):
            async for piece in request.stream():
                size += len(piece)
                if size <= options.max_body:
                    take(len(piece))
                    pieces.append(piece)
                elif size > PATIENCE * options.max_body:
                    break
    except TimeoutError:
        raise Problem(408, f"the body took more than {options.body_timeout:g} seconds") from None
    except ClientDisconnect:
        raise Gone from None
    if size > options.max_body:
        raise Problem(413, f"the body has more than the {options.max_body} bytes that this server takes")
    return b"".join(pieces)


async def parsed(data: bytes, options: ServerOptions) -> object:
    """What the JSON says. Raises Problem: 400."""
    if len(data) < LARGE:
        return parse(data, json.JSONDecoder(parse_constant=_refuse))
    return await asyncio.to_thread(parse, data, _Bounded(VALUES_PER_DOCUMENT * options.max_documents))


def parse(data: bytes, decoder: json.JSONDecoder) -> object:
    """JSON of RFC 8259: UTF-8, no NaN, no infinity. Raises Problem."""
    try:
        value: object = decoder.decode(data.decode("utf-8-sig"))
    except json.JSONDecodeError as error:
        raise Problem(400, f"the body is not valid JSON at character {error.pos}") from None
    except UnicodeDecodeError as error:
        raise Problem(400, f"the body is not UTF-8 at byte {error.start}") from None
    except (ValueError, RecursionError):
        raise Problem(
            400, "the body is not JSON that this server takes: a number that is none, too deep, or too many values"
        ) from None
    return value


class _Bounded(json.JSONDecoder):
    """Lets other threads run between one value and the next, which the decoder in C does not, and stops at too many of them.

    Strings, of which honest bodies consist, are still read in C: 8 MiB in 15 ms. Without this, 8 MiB of `{"a":0,...` held all
    threads for half a second.
    """

    def __init__(self, values: int) -> None:
        super().__init__(parse_constant=_refuse)
        self._left = values
        library: Any = json
        array, record = library.decoder.JSONArray, library.decoder.JSONObject
        self.parse_array = lambda state, scan: array(state, self._counting(scan))
        self.parse_object = lambda state, strict, scan, *more: record(state, strict, self._counting(scan), *more)
        self.scan_once = library.scanner.py_make_scanner(self)

    def _counting(self, scan: Callable[[str, int], object]) -> Callable[[str, int], object]:
        def counted(text: str, place: int) -> object:
            self._left -= 1
            if self._left < 0:
                raise ValueError
            return scan(text, place)

        return counted


def _refuse(_: str) -> NoReturn:
    raise ValueError
