"""Windows over a document that is too long for the model: where they begin and end. Pure: needs no model."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from raskrank.errors import InputError
from raskrank.texts import positive, whole

# A window ends, and the next begins, up to this part of it earlier, so that no word is cut in two.
SLACK = 8


@dataclass(frozen=True, kw_only=True)
class Windows:
    """Read a long document in overlapping windows; its score is that of its best one. See `Reranker.rank`.

    max_windows: of one document, at least 1. What lies behind the last of them is not read, and the document is `truncated`.
        It bounds the cost: a document of so many windows takes as long as so many documents that fill the model, and 32
        characters at most are looked at for each token of them, or 100,000 of a document if that is more.
    overlap: tokens at least that neighbouring windows share, so that an answer on the edge of one is whole in the other; at
        least 0, and no more than half a window is shared. Windows begin and end between words where the tokenizer knows words.
    """

    max_windows: int = 16
    overlap: int = 64

    def __post_init__(self) -> None:
        object.__setattr__(self, "max_windows", positive(self.max_windows, "Windows.max_windows"))
        object.__setattr__(self, "overlap", whole(self.overlap, "Windows.overlap"))


LongDocuments = Literal["truncate", "windows"] | Windows


def as_windows(long_documents: object) -> Windows | None:
    """The argument `long_documents` checked; None where a document that is too long is cut. Raises InputError."""
    if isinstance(long_documents, Windows):
        return long_documents
    if isinstance(long_documents, str) and long_documents in ("truncate", "windows"):
        return Windows() if long_documents == "windows" else None
    raise InputError(
        f"long_documents: expected 'truncate', 'windows' or raskrank.Windows(...), got {type(long_documents).__name__}"
        + (" of another value" if isinstance(long_documents, str) else "")
    )


def cut(words: npt.NDArray[np.bool_], room: int, windows: Windows) -> list[tuple[int, int]]:
    """Tokens [begin, end) of each window, in order, for a document of one token or more.

    words: bool (n,), whether each of its tokens begins a word. room: tokens of a window, at least 1. Both ends rise from one
    to the next, every token is in a window unless there would be more than `max_windows`, and neighbours share `overlap`
    tokens or more, or half of `room` if that is less.
    """
    starts = np.flatnonzero(words)
    overlap, slack = min(windows.overlap, room // 2), room // SLACK
    found: list[tuple[int, int]] = []
    begin, count = 0, len(words)
    while len(found) < windows.max_windows:
        end = min(begin + room, count)
        if end < count:
            end = _between_words(starts, end, slack)
        found.append((begin, end))
        if end == count:
            break
        begin = _between_words(starts, end - overlap, slack)
    return found


def _between_words(starts: Sequence[int] | npt.NDArray[np.intp], place: int, slack: int) -> int:
    """The last start of a word in [place - slack, place], or `place` where there is none."""
    at = int(np.searchsorted(starts, place, side="right")) - 1
    return int(starts[at]) if at >= 0 and starts[at] >= place - slack else place
