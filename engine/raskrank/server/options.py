"""What a server is told when it starts."""

import math
from dataclasses import dataclass

from raskrank.errors import InputError
from raskrank.texts import positive


@dataclass(frozen=True, kw_only=True)
class ServerOptions:
    """Limits of a server and what it demands; the defaults are those of `raskrank serve`.

    max_body: bytes of one request's body. A larger one is answered with 413.
    max_documents: in one request. More are answered with 422.
    max_text_chars: of a query or a document. A longer one is answered with 422.
    max_wait: seconds of work that may be waiting, by the speed that is measured as the server runs. A request beyond them is
        answered with 429, unless nothing is waiting at all.
    max_tokens: the same bound in tokens, whatever the speed. Default: none, so that `max_wait` decides.
    max_requests: at work or waiting at the same time; beyond them 429.
    deadline: seconds from a request's arrival to its answer, which may be partial then. Default: none, but a request may ask.
    body_timeout: seconds from a request's arrival to the end of its body; 408 after them.
    """

    max_body: int = 8 * 1024 * 1024
    max_documents: int = 1_000
    max_text_chars: int = 200_000
    max_wait: float = 10.0
    max_tokens: int | None = None
    max_requests: int = 256
    deadline: float | None = None
    body_timeout: float = 30.0

    def __post_init__(self) -> None:
        for name in ("max_body", "max_documents", "max_text_chars", "max_requests"):
            positive(getattr(self, name), f"ServerOptions.{name}")
        if self.max_tokens is not None:
            positive(self.max_tokens, "ServerOptions.max_tokens")
        for name in ("max_wait", "body_timeout", "deadline"):
            seconds = getattr(self, name)
            if seconds is not None and not 0 < seconds < math.inf:
                raise InputError(f"ServerOptions.{name}: expected seconds above 0, got {seconds}")
