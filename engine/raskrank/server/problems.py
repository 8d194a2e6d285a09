"""What a request is refused with."""

from collections.abc import Mapping


class Problem(Exception):
    """An answer that is no ranking.

    status: of HTTP. message: what is wrong, and where; it never holds a text of the request.
    param: the field that is wrong. headers: to add, such as Retry-After.
    """

    def __init__(
        self, status: int, message: str, *, param: str | None = None, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.param = status, message, param
        self.headers = dict(headers or {})


def wrong(name: str, message: str) -> Problem:
    """A field of the body that cannot be used."""
    return Problem(422, f"{name}: {message}", param=name)


def later(status: int, message: str, seconds: int) -> Problem:
    """A request that may be sent again after so many seconds."""
    return Problem(status, message, headers={"Retry-After": str(seconds)})
