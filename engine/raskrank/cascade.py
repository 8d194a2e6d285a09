"""Models in a row: a small one prunes for a strong one."""

from collections.abc import Collection, Generator, Sequence
from types import TracebackType
from typing import Any, NamedTuple, Self

from raskrank import texts
from raskrank.errors import InputError
from raskrank.info import Info
from raskrank.ranking import Ranking
from raskrank.reranker import Reranker
from raskrank.texts import Limits
from raskrank.wanted import Wanted
from raskrank.windows import LongDocuments

# The Rerankers have limits of their own.
_NO_LIMITS = Limits(max_documents=2**62, max_text_chars=2**62)
# Seconds of a stage for which no time is left: it scores nothing, and says so.
_NONE_LEFT = 1e-9


class _Call(NamedTuple):
    """Of one stage: `reranker.rank(query, documents, **options)`."""

    reranker: Reranker
    documents: list[Any]
    options: dict[str, Any]


class Cascade:
    """Rerankers in a row: each but the last passes on the documents that it finds best, and the last one ranks those.

    It may be used from several threads and event loops, as its Rerankers may, by themselves too. It has nothing of its own that
    would need closing: `close`, or leaving it as a context manager, closes the Rerankers that it was given. Who goes on using
    one of them leaves the Cascade as it is, and closes the Rerankers.
    """

    def __init__(self, rerankers: Sequence[Reranker], keep: Sequence[int]) -> None:
        """rerankers: from the fastest to the strongest, at least one.
        keep: for each of them but the last, how many documents it passes on: at least 1, and no more than the one before.

        Raises InputError for anything else.
        """
        if isinstance(rerankers, Reranker) or not isinstance(rerankers, Sequence) or not rerankers:
            raise InputError(f"rerankers: expected a list of at least one Reranker, got {_kind(rerankers)}")
        for place, reranker in enumerate(rerankers):
            if not isinstance(reranker, Reranker):
                raise InputError(f"rerankers[{place}]: expected a Reranker, got {type(reranker).__name__}")
        if isinstance(keep, str | bytes) or not isinstance(keep, Sequence):
            raise InputError(f"keep: expected a list of numbers, such as [30], got {type(keep).__name__}")
        if len(keep) != len(rerankers) - 1:
            raise InputError(
                f"keep: expected {len(rerankers) - 1} numbers, one for each Reranker but the last, got {len(keep)}"
            )
        self._rerankers = tuple(rerankers)
        self._keep = [texts.positive(number, f"keep[{place}]") for place, number in enumerate(keep)]
        for place in range(1, len(self._keep)):
            if self._keep[place] > self._keep[place - 1]:
                raise InputError(
                    f"keep[{place}]: expected at most {self._keep[place - 1]}, as many as the one before passes on"
                )

    def rank(
        self,
        query: str,
        documents: Collection[str],
        top_k: int | None = None,
        *,
        raw_scores: bool = False,
        score_threshold: float | None = None,
        long_documents: LongDocuments = "truncate",
        deadline: float | None = None,
    ) -> Ranking:
        """As `Reranker.rank`, of the documents that come to the last Reranker, `keep[-1]` at most. The others are left out.

        Scores, truncation, spans, and what `raw_scores`, `score_threshold` and `top_k` mean are the last Reranker's; documents
        to which it gives the same logit stay in the order of the one before. `long_documents` is for each of them. One that
        would pass on all documents is passed over.

        deadline: in seconds, for all of them together. Each may take its share of what is left: of two, the first one has half,
            and the second one all that remains. What one has not scored in time comes behind what it has, in the order in which
            it was given. So what the last one has not scored follows in the order of the one before, its score NaN, and
            `Ranking.partial` says that one of them has not scored all. Late by as much as with each of them.

        `tokens`, `tokenize_seconds` and `score_seconds` of the answer are sums. Raises as `Reranker.rank` does.
        """
        wanted = Wanted.of(top_k, raw_scores, score_threshold, long_documents, deadline)
        steps, found = self._steps(documents, wanted, long_documents), None
        while not isinstance(step := _go_on(steps, found), Ranking):
            found = step.reranker.rank(query, step.documents, **step.options)
        return step

    async def arank(
        self,
        query: str,
        documents: Collection[str],
        top_k: int | None = None,
        *,
        raw_scores: bool = False,
        score_threshold: float | None = None,
        long_documents: LongDocuments = "truncate",
        deadline: float | None = None,
    ) -> Ranking:
        """As `rank`, for asyncio, in the way of `Reranker.arank`. Raises as that does."""
        wanted = Wanted.of(top_k, raw_scores, score_threshold, long_documents, deadline)
        steps, found = self._steps(documents, wanted, long_documents), None
        while not isinstance(step := _go_on(steps, found), Ranking):
            found = await step.reranker.arank(query, step.documents, **step.options)
        return step

    def info(self) -> tuple[Info, ...]:
        """Of each Reranker, in order: what is loaded, on which machine it runs, and why so."""
        return tuple(reranker.info() for reranker in self._rerankers)

    def close(self) -> None:
        """Close the Rerankers that it was given, once calls in other threads have ended. A second close does nothing."""
        for reranker in self._rerankers:
            reranker.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Cascade of {', '.join(map(repr, self._rerankers))}, keep={self._keep}>"

    def _steps(self, documents: object, wanted: Wanted, long_documents: LongDocuments) -> Generator[_Call, Ranking, Ranking]:
        """Each call that is to be made, and for its Ranking the next; at the end, the answer."""
        items, until = texts.as_list(documents, "documents", _NO_LIMITS), wanted.request.until
        places, found = list(range(len(items))), list[Ranking]()
        for stage, reranker in enumerate(self._rerankers):
            options: dict[str, Any] = {"long_documents": long_documents}
            if until.limited:
                options["deadline"] = max(until.left() / (len(self._rerankers) - stage), _NONE_LEFT)
            if stage < len(self._keep):
                if len(places) <= self._keep[stage]:
                    continue
                options["top_k"] = self._keep[stage]
            else:
                options |= {"top_k": wanted.most, "raw_scores": wanted.raw, "score_threshold": wanted.least}
            ranking = yield _Call(reranker, [items[place] for place in places], options)
            hits = [hit._replace(index=places[hit.index]) for hit in ranking]
            places = [hit.index for hit in hits]
            found.append(ranking)
        return Ranking(
            hits,
            partial=any(ranking.partial for ranking in found),
            tokens=sum(ranking.tokens for ranking in found),
            tokenize_seconds=sum(ranking.tokenize_seconds for ranking in found),
            score_seconds=sum(ranking.score_seconds for ranking in found),
        )


def _go_on(steps: Generator[_Call, Ranking, Ranking], found: Ranking | None) -> _Call | Ranking:
    try:
        return next(steps) if found is None else steps.send(found)
    except StopIteration as end:
        answer: Ranking = end.value
        return answer


def _kind(value: object) -> str:
    return "none" if isinstance(value, Sequence) and not value else type(value).__name__
