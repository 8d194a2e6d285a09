"""API keys: read from a file, and compared in constant time."""

import hashlib
import hmac
from collections.abc import Sequence
from pathlib import Path

from raskrank.errors import InputError
from raskrank.server.problems import Problem

MAX_FILE = 64 * 1024  # bytes: a file that is larger is another one


class Keys:
    """What a request has to show. Without any key every request is let in."""

    def __init__(self, keys: Sequence[str] = ()) -> None:
        self._digests = [_digest(key.encode()) for key in keys]

    @classmethod
    def read(cls, file: str) -> "Keys":
        """One key a line, all of them valid, so that one can be replaced by another without a pause.

        Raises InputError for a file that holds none, and OSError for one that cannot be read.
        """
        data = Path(file).read_bytes()
        try:
            lines = data.decode("ascii").split() if len(data) <= MAX_FILE else []
        except UnicodeDecodeError:
            lines = []
        if not lines:
            raise InputError("--api-key-file: expected a file of at most 64 KiB with one key a line, in ASCII without spaces")
        return cls(lines)

    def __bool__(self) -> bool:
        return bool(self._digests)

    def check(self, authorization: bytes | None) -> None:
        """authorization: the header's value, `Bearer KEY` or, as one client of TEI sends it, KEY. Raises Problem: 401.

        Digests are compared, so that neither the length of a key nor where a guess differs from it shows in the time.
        """
        if not self._digests:
            return
        scheme, _, rest = (authorization or b"").strip().partition(b" ")
        digest = _digest(rest.strip() if scheme.lower() == b"bearer" else (authorization or b"").strip())
        matches = [hmac.compare_digest(digest, known) for known in self._digests]  # all, also after a match
        if not any(matches):
            raise Problem(401, "expected a valid key in the header Authorization", headers={"WWW-Authenticate": "Bearer"})


def _digest(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()
