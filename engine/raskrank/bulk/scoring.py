"""From rows to scores."""

from collections.abc import Sequence
from typing import NamedTuple

from raskrank.bulk.job import Settings
from raskrank.bulk.part import GO_ON, NOTHING, Added, Batch
from raskrank.errors import InputError, NonFiniteScore
from raskrank.reranker import Reranker
from raskrank.texts import Limits, lone_surrogate


class Outcome(NamedTuple):
    """What each row of a batch gets, and the tokens that the model read for it."""

    added: list[Added]
    tokens: int


def score_batch(reranker: Reranker, batch: Batch, settings: Settings) -> Outcome:
    """Raises InputError for a row without texts, NonFiniteScore for one whose score is no number, unless `settings.bad_rows` is
    "null": those get nothing."""
    added = [NOTHING] * len(batch.queries)
    pairs, indices = list[tuple[str, str]](), list[int]()
    for index, (query, document) in enumerate(zip(batch.queries, batch.documents, strict=True)):
        if problem := _problem(query, settings.columns.query) or _problem(document, settings.columns.document):
            if settings.bad_rows == "stop":
                raise InputError(f"{batch.place(index)}: {problem}; {GO_ON}")
        elif isinstance(query, str) and isinstance(document, str):
            pairs.append((query, document))
            indices.append(index)
    try:
        ranking = reranker.assess(pairs, raw_scores=settings.raw_scores, long_documents=settings.windows or "truncate")
    except NonFiniteScore as error:
        broken = {indices[number] for number in error.indices}
        first = batch.place(min(broken))
        if settings.bad_rows == "stop":
            raise NonFiniteScore(f"{first}: the score is NaN or infinite; {GO_ON}", error.indices) from None
        return score_batch(reranker, _Without(batch, broken), settings)
    for index, one in zip(indices, ranking, strict=True):
        added[index] = Added(one.score, one.truncated, one.span)
    return Outcome(added, ranking.tokens)


class _Without:
    """A batch in which some rows have no texts."""

    def __init__(self, batch: Batch, rows: set[int]) -> None:
        self.queries: Sequence[object] = [None if index in rows else query for index, query in enumerate(batch.queries)]
        self.documents: Sequence[object] = batch.documents
        self.place = batch.place


def _problem(value: object, column: str) -> str:
    """Why it cannot be scored; "" where it can."""
    if value is None:
        return f'"{column}" is null'
    if not isinstance(value, str):
        return f'"{column}" is no text, but {type(value).__name__}'
    if len(value) > (limit := Limits().max_text_chars):
        return f'"{column}" has {len(value)} characters, more than {limit}'
    return "" if lone_surrogate(value) is None else f'"{column}" is not valid Unicode (a lone surrogate)'
