"""Tokens that a request will cost, from its characters: known before anything is tokenized, and bounded both ways.

A pair costs max_length tokens at most, whatever its texts are, and 4 at least. Between them real text has 3 to 6 characters a
token, and is taken to have 3; a text without any order may have up to 3 times as many tokens as that.
"""

import math
from collections.abc import Sequence

from raskrank.server.asks import Ask
from raskrank.windows import Windows, as_windows

CHARS_PER_TOKEN = 3
SPECIALS = 4
# Of a text no more is read than that; see encoding.
MOST_CHARS = 100_000


def estimated_tokens(ask: Ask, max_length: int) -> int:
    """Of all pairs of a request together."""
    windows = as_windows(ask.long_documents)
    query = _tokens(ask.query)
    if windows is None:
        return _truncated(query, ask.documents, max_length)
    return sum(_in_windows(query, _tokens(document), windows, max_length) for document in ask.documents)


def _truncated(query: int, documents: Sequence[str], max_length: int) -> int:
    return sum(min(max_length, SPECIALS + query + _tokens(document)) for document in documents)


def _in_windows(query: int, document: int, windows: Windows, max_length: int) -> int:
    """The query is in each window, and its neighbours share what overlaps."""
    room = max(1, max_length - SPECIALS - min(query, max_length // 2))
    if document <= room:
        return min(max_length, SPECIALS + query + document)
    count = 1 + math.ceil((document - room) / max(1, room - min(windows.overlap, room // 2)))
    return min(count, windows.max_windows) * max_length


def _tokens(text: str) -> int:
    return math.ceil(min(len(text), MOST_CHARS) / CHARS_PER_TOKEN)
