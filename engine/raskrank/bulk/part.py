"""A part: some rows of a file, which are scored and written together; and what a reader of a format gives."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO, NamedTuple, Protocol, TypeVar

# Rows, and bytes of them, that are read and scored at once: enough to keep many cores busy, and what bounds memory.
BATCH_ROWS, BATCH_BYTES = 8192, 1 << 24


# What to say where a row cannot be scored.
GO_ON = 'bad_rows="null", or --bad-rows null, gives such rows a null score'


class Part(NamedTuple):
    """Rows of a file that stand together.

    source: number of the file, from 0. group: its row group, from 0; 0 where it has none. piece: of the group, from 0.
    rows: how many. first: rows before it in the group, or lines before it in the file. offset: bytes before it in such a file.
    """

    source: int
    group: int
    piece: int
    rows: int
    first: int
    offset: int

    def name(self, suffix: str) -> str:
        """Of its file of the output; by name the parts are in the order of the input."""
        return f"part-{self.source:05}-{self.group:05}-{self.piece:05}.{suffix}"


class Added(NamedTuple):
    """What a row gets. All None where its texts cannot be scored; the span only with windows."""

    score: float | None
    truncated: bool | None
    span: tuple[int, int] | None


NOTHING = Added(None, None, None)


class Batch(Protocol):
    """Rows in memory. queries, documents: what stands in the two columns, text or not."""

    @property
    def queries(self) -> Sequence[object]: ...
    @property
    def documents(self) -> Sequence[object]: ...

    def place(self, index: int) -> str:
        """Where a row stands in its file, for a message."""


Read = TypeVar("Read", bound=Batch)  # a batch of one format
Written = TypeVar("Written", bound=Batch, contravariant=True)


class Writer(Protocol[Written]):
    """Writes the rows of a part to a file."""

    def write(self, batch: Written, added: Sequence[Added]) -> None: ...
    def close(self) -> None: ...


class Reader(Protocol[Read]):
    """A file of the input. Making one checks its columns; InputError says what is wrong."""

    def parts(self, number: int, rows: int) -> Iterator[Part]:
        """The parts of this file, which has that number in the input, of at most `rows` rows each."""

    def batches(self, part: Part) -> Iterator[Read]:
        """The rows of a part."""

    def writer(self, file: BinaryIO) -> Writer[Read]:
        """For what this reader's batches hold, and what is added to it."""


@dataclass(frozen=True, kw_only=True)
class Record:
    """A part that is done. pairs: rows that have a score. seconds: from its first row to its last."""

    part: str
    bytes: int
    pairs: int
    unscored: int
    truncated: int
    tokens: int
    seconds: float
    worker: str
