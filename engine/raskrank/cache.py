"""Scores that were computed before, the most recently used of them, in bounded memory."""

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Sequence
from typing import NamedTuple

from raskrank.scored import Scored

# What an entry is counted as: its key of 32 bytes, its values, and its share of the table, as tests/test_cache.py measures
# them with tracemalloc.
ENTRY_BYTES = 512
DIGEST_BYTES = 32


class Counts(NamedTuple):
    """hits, misses: pairs that were found, and that were not. size: bytes that are counted now."""

    hits: int
    misses: int
    size: int


class ScoreCache:
    """Maps digests of pairs to what they scored. Holds no text. May be used from several threads.

    It belongs to one loaded model, so that the same pair has the same bits: `identity` says which.
    """

    def __init__(self, most_bytes: int, identity: str) -> None:
        """most_bytes: what it may take, ENTRY_BYTES an entry; less than that keeps nothing."""
        self._most, self._identity = most_bytes // ENTRY_BYTES, identity.encode()
        self._entries: OrderedDict[bytes, Scored] = OrderedDict()  # least recently used first
        self._hits = self._misses = 0
        self._lock = threading.Lock()

    def keys(self, pairs: Sequence[tuple[str, str]], settings: str) -> list[bytes]:
        """The key of each (query, document) pair. settings: whatever else of the call changes a score."""
        prefix = _digest(self._identity, settings.encode())
        queries = {query: _digest(query.encode()) for query in {query for query, _ in pairs}}
        return [_digest(prefix, queries[query], _digest(document.encode())) for query, document in pairs]

    def find(self, keys: Sequence[bytes]) -> list[Scored | None]:
        """What is known of each, which makes them the most recently used."""
        with self._lock:
            found = [self._entries.get(key) for key in keys]
            for key, scored in zip(keys, found, strict=True):
                if scored is not None:
                    self._entries.move_to_end(key)
            missing = found.count(None)
            self._hits, self._misses = self._hits + len(keys) - missing, self._misses + missing
        return found

    def keep(self, key: bytes, scored: Scored) -> None:
        """As the most recently used; the least recently used make room."""
        with self._lock:
            self._entries[key] = scored
            self._entries.move_to_end(key)
            while len(self._entries) > self._most:
                self._entries.popitem(last=False)

    def counts(self) -> Counts:
        with self._lock:
            return Counts(self._hits, self._misses, len(self._entries) * ENTRY_BYTES)


def _digest(*parts: bytes) -> bytes:
    """Of parts of which all but one have a fixed length."""
    found = hashlib.blake2b(digest_size=DIGEST_BYTES)
    for part in parts:
        found.update(part)
    return found.digest()
