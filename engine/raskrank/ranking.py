"""What a ranking is made of."""

from collections.abc import Iterable
from typing import NamedTuple


class Ranked(NamedTuple):
    """A document's place in a ranking.

    index: its position in the caller's list, from 0.
    score: after the model's activation, or the logit itself with `raw_scores`.
    truncated: whether query and document were too long to be read to their ends; with windows, whether a part of them is in no
        window.
    span: with windows, the characters [start, end) of the caller's document that the score is of. None without.
    """

    index: int  # type: ignore[assignment]  # hides tuple.index, which nobody needs here
    score: float
    truncated: bool
    span: tuple[int, int] | None = None


class Ranking(list[Ranked]):
    """A list of `Ranked`, and what it took to make it. Equal to any list of the same hits; a slice of it is a plain list.

    partial: whether some of the documents were not scored before a deadline.
    tokens: that the model read, special tokens included. Pairs that were there twice count once, those from the cache not at
        all.
    tokenize_seconds, score_seconds: spent on making tokens and on running the model. Of a call with more than 512 pairs the
        two go on side by side, so that their sum may be more than the call took.
    """

    def __init__(
        self,
        hits: Iterable[Ranked] = (),
        *,
        partial: bool = False,
        tokens: int = 0,
        tokenize_seconds: float = 0.0,
        score_seconds: float = 0.0,
    ) -> None:
        super().__init__(hits)
        self.partial, self.tokens = partial, tokens
        self.tokenize_seconds, self.score_seconds = tokenize_seconds, score_seconds
