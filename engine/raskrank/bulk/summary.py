"""What a run took, and what a million pairs cost."""

from collections.abc import Collection
from dataclasses import asdict, dataclass
from typing import Any

from raskrank.bulk.part import Record
from raskrank.terminal import duration

MILLION = 1_000_000


@dataclass(frozen=True, kw_only=True)
class Summary:
    """Of one run, which may have gone on with what earlier ones left.

    parts, pairs, tokens: of this run. unscored: rows without a score. truncated: pairs that were not read to their ends.
    earlier_parts: that were done before. seconds: from the command's start to its end, loading and files included.
    machines: that worked at the same time. price_per_hour: of one machine, if it was given.
    """

    parts: int
    pairs: int
    unscored: int
    truncated: int
    tokens: int
    earlier_parts: int
    seconds: float
    machines: int = 1
    price_per_hour: float | None = None

    @classmethod
    def of(
        cls, records: Collection[Record], *, earlier_parts: int, seconds: float, machines: int, price_per_hour: float | None
    ) -> "Summary":
        """records: of this run."""
        return cls(
            parts=len(records),
            pairs=sum(record.pairs for record in records),
            unscored=sum(record.unscored for record in records),
            truncated=sum(record.truncated for record in records),
            tokens=sum(record.tokens for record in records),
            earlier_parts=earlier_parts,
            seconds=seconds,
            machines=machines,
            price_per_hour=price_per_hour,
        )

    @property
    def machine_hours_per_million(self) -> float | None:
        """Hours of one machine for a million pairs; None where none was scored."""
        return self.seconds * self.machines / 3600 * MILLION / self.pairs if self.pairs else None

    @property
    def price_per_million(self) -> float | None:
        hours = self.machine_hours_per_million
        return None if hours is None or self.price_per_hour is None else hours * self.price_per_hour

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            **asdict(self),
            "pairs_per_second": self.pairs / self.seconds if self.seconds else None,
            "machine_hours_per_million_pairs": self.machine_hours_per_million,
            "price_per_million_pairs": self.price_per_million,
        }

    def __str__(self) -> str:
        if not self.parts:
            return f"nothing was left to score: all {self.earlier_parts} parts are done"
        lines = [
            f"{self.pairs:,} pairs, {self.tokens:,} tokens, {duration(self.seconds)}: {self.pairs / self.seconds:,.1f} pairs/s",
            f"parts: {self.parts:,} written, {self.earlier_parts:,} done before",
        ]
        if self.truncated:
            lines.append(f"{self.truncated:,} pairs were too long to be read to their ends")
        if self.unscored:
            lines.append(f"{self.unscored:,} rows have no text, or no number for a score: theirs is null")
        if (hours := self.machine_hours_per_million) is not None:
            price = f", at {self.price_per_hour:g} an hour {self.price_per_million:.2f}" if self.price_per_hour else ""
            of = "this machine" if self.machines == 1 else f"one of the {self.machines} machines"
            lines.append(f"a million such pairs: {hours:.2f} hours of {of}{price}")
        return "\n".join(lines)
