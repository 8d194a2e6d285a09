"""What `raskrank compare` asks of a model, whatever runs it."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol


class Ranking(NamedTuple):
    """order: positions of the documents, best first; those with a NaN or infinite score come last, in input order."""

    order: tuple[int, ...]
    non_finite: int  # how many of these there are


class Contender(Protocol):
    """A loaded model, and what its files say of it."""

    name: str
    backend: str  # "native", "onnx", "torch" or "bi-encoder"
    runs: str  # for a reader: "native int8", "torch fp32", "bi-encoder"
    origin: str  # its folder, or hub id
    reference: "Contender | None"  # of a bundle: the checkpoint that it is held against, if that is a contender too
    license: str | None
    parameters: int
    disk_bytes: int | None  # of the files that are read to load it; None where they are not known

    def rank(self, query: str, documents: Sequence[str]) -> Ranking:
        """Rank documents, at least one."""

    def run(self, query: str, documents: Sequence[str]) -> None:
        """Compute what `rank` does, once, and give nothing: for timing. NaN and infinite scores are no error."""

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text, not truncated and without special tokens."""

    def close(self) -> None:
        """Free the model."""
