"""What a call of `rank` wants, from its arguments."""

from dataclasses import dataclass
from typing import Self

import numpy as np

from raskrank import texts
from raskrank.backend import Float32Array
from raskrank.process.until import Until
from raskrank.ranking import Ranking
from raskrank.scoring import Outcome, Request
from raskrank.windows import as_windows


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """Arguments of `rank`, checked. Its deadline counts from when this is made. most, least: hits, and their score."""

    most: int | None
    raw: bool
    least: float | None
    request: Request

    @classmethod
    def of(cls, top_k: object, raw_scores: object, score_threshold: object, long_documents: object, deadline: object) -> Self:
        """Raises InputError."""
        until = Until(None if deadline is None else texts.seconds(deadline, "deadline"))
        return cls(
            most=None if top_k is None else texts.positive(top_k, "top_k"),
            raw=texts.flag(raw_scores, "raw_scores"),
            least=None if score_threshold is None else texts.number(score_threshold, "score_threshold"),
            request=Request(windows=as_windows(long_documents), until=until),
        )

    def ranking(self, outcome: Outcome, scores: Float32Array) -> Ranking:
        """scores: float32 (n), of the outcome's logits."""
        order = np.argsort(-outcome.logits, kind="stable")  # NaN, which is not scored, comes last
        if self.least is not None:
            order = order[scores[order].astype(np.float64) >= self.least]
        return outcome.ranking(scores, order[: self.most].tolist())
