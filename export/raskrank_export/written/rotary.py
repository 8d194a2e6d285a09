"""Rotary positions: query and key are turned by angles that grow with the position."""

from raskrank.checkpoint import Checkpoint
from raskrank.reimplemented.gte import rotations
from raskrank_export.passes.edit import MICROSOFT
from raskrank_export.written.writer import GraphWriter


class Rotation:
    """The angles of one base, which every layer that has it shares: as many as the checkpoint allows tokens, so that one graph
    serves every max_length."""

    def __init__(self, writer: GraphWriter, checkpoint: Checkpoint, theta: float, factor: float = 1.0) -> None:
        """theta, factor: as for `rotations`; 1 leaves the angles as they are."""
        self._writer = writer
        tables = rotations(checkpoint.max_length, checkpoint.hidden_size // checkpoint.heads, theta, factor)
        names = (f"rotation/{theta}/{part}" for part in ("cos", "sin"))
        self._tables = [writer.constant(name, table.numpy()) for name, table in zip(names, tables, strict=True)]

    def turned(self, source: str) -> str:
        """Each head's pairs of values, (B, L, H), by the angle of each position, from that of the first on: a lone first row
        is not turned, as it should be."""
        inputs = [source, self._writer.integers(0), *self._tables]
        return self._writer.node("RotaryEmbedding", inputs, f"{source}/turned", domain=MICROSOFT)
