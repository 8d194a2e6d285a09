"""The comparison itself: each model in a fresh process, then on the same tasks, then all in turn on the clock."""

import functools
import itertools
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from statistics import fmean, median

import numpy as np

from raskrank.backend import Float32Array
from raskrank.compare.candidates import Task
from raskrank.compare.contenders import Contender, Ranking
from raskrank.compare.quality import Quality, quality
from raskrank.measuring import FreshProcess, Timing, interleaved
from raskrank.parity import kendall_tau
from raskrank.terminal import Bar

COUNTS = (10, 100)  # passages of one timed call
ROUNDS = 20  # the fewest of which a 95th percentile is not just the longest
BUDGET_S = 30.0  # a model and count; large models get fewer rounds
STARTS = 3  # fresh processes of a model; of their numbers the median counts
NOT_STATED = "not stated"  # language of a query, where the data has it for others only

Progress = Callable[[str, int], AbstractContextManager[Bar | None]]  # what is done, and its number of units


@dataclass(frozen=True, kw_only=True)
class Judged:
    """How well a model ranks, and tokens of a passage, on average."""

    quality: Quality
    tokens: float


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """With the checkpoint: Kendall's tau of the two orders, in [-1, 1], and the share of queries with the same best passage.

    tau is the mean over the queries.
    """

    tau: float
    top1: float


@dataclass(frozen=True, kw_only=True)
class Result:
    """What is known and what was measured of a model."""

    name: str
    runs: str
    origin: str
    license: str | None
    parameters: int
    disk_bytes: int | None
    overall: Judged
    languages: Mapping[str, Judged]  # {} where the data states none
    non_finite: int  # scores that were NaN or infinite
    agreement: Agreement | None  # of a bundle, where its checkpoint was run too
    calls: Mapping[int, Timing]  # by number of passages
    fresh: FreshProcess | None


def measure(contenders: Sequence[Contender], tasks: Sequence[Task], progress: Progress) -> list[Result]:
    """Measure loaded models on the same tasks, at least one. The results are in the order of the contenders."""
    fresh = _start_anew(contenders, tasks, progress)
    rankings = [_rank_all(contender, tasks, progress) for contender in contenders]
    calls = {count: _time_calls(contenders, tasks, count, progress) for count in COUNTS}
    results = []
    for index, contender in enumerate(contenders):
        texts, reference = _passages(tasks), contender.reference
        tokens = dict(zip(texts, contender.count_tokens(texts), strict=True))
        ranked = list(zip(tasks, rankings[index], strict=True))
        results.append(
            Result(
                name=contender.name,
                runs=contender.runs,
                origin=contender.origin,
                license=contender.license,
                parameters=contender.parameters,
                disk_bytes=contender.disk_bytes,
                overall=_judge(ranked, tokens),
                languages=_judge_languages(ranked, tokens),
                non_finite=sum(ranking.non_finite for ranking in rankings[index]),
                agreement=agreement(rankings[contenders.index(reference)], rankings[index]) if reference else None,
                calls={count: timings[index] for count, timings in calls.items()},
                fresh=fresh[index],
            )
        )
    return results


def agreement(reference: Sequence[Ranking], rankings: Sequence[Ranking]) -> Agreement:
    """How far two models agree on the same tasks, of at least two documents each."""
    pairs = [(first.order, second.order) for first, second in zip(reference, rankings, strict=True)]
    return Agreement(
        tau=fmean(kendall_tau(_places(first), _places(second)) for first, second in pairs),
        top1=fmean(float(first[0] == second[0]) for first, second in pairs),
    )


def timed_passages(tasks: Sequence[Task], count: int) -> list[str]:
    """The first `count` different documents of the tasks; again from the first if there are fewer."""
    return list(itertools.islice(itertools.cycle(_passages(tasks)), count))


def _passages(tasks: Sequence[Task]) -> list[str]:
    return list(dict.fromkeys(document for task in tasks for document in task.documents))


def _rank_all(contender: Contender, tasks: Sequence[Task], progress: Progress) -> list[Ranking]:
    rankings = []
    with progress(f"ranking with {contender.name}, {contender.runs}", len(tasks)) as bar:
        for task in tasks:
            rankings.append(contender.rank(task.query, task.documents))
            if bar:
                bar.advance(1)
    return rankings


def _time_calls(contenders: Sequence[Contender], tasks: Sequence[Task], count: int, progress: Progress) -> list[Timing]:
    documents = timed_passages(tasks, count)
    functions = {
        str(index): functools.partial(contender.run, tasks[0].query, documents) for index, contender in enumerate(contenders)
    }
    with progress(f"timing {count} passages", (ROUNDS + 1) * len(contenders)) as bar:
        budget = BUDGET_S * len(contenders)
        timings = interleaved(functions, rounds=ROUNDS, budget_s=budget, advance=bar.advance if bar else None)
    return list(timings.values())


def _start_anew(contenders: Sequence[Contender], tasks: Sequence[Task], progress: Progress) -> list[FreshProcess | None]:
    """Medians for each contender; in turns, as the calls are timed."""
    documents = timed_passages(tasks, max(COUNTS))
    started: list[list[FreshProcess]] = [[] for _ in contenders]
    with progress("fresh processes", STARTS * len(contenders)) as bar:
        for _ in range(STARTS):
            for row, contender in zip(started, contenders, strict=True):
                if fresh := contender.start_anew(tasks[0].query, documents):
                    row.append(fresh)
                if bar:
                    bar.advance(1)
    return [_median(row) if row else None for row in started]


def _median(row: Sequence[FreshProcess]) -> FreshProcess:
    resident = [fresh.resident_bytes for fresh in row if fresh.resident_bytes is not None]
    private = [fresh.private_bytes for fresh in row if fresh.private_bytes is not None]
    return FreshProcess(
        first_score_s=median(fresh.first_score_s for fresh in row),
        resident_bytes=round(median(resident)) if resident else None,
        private_bytes=round(median(private)) if private else None,
    )


def _judge(ranked: Sequence[tuple[Task, Ranking]], tokens: Mapping[str, int]) -> Judged:
    """tokens: of each document."""
    return Judged(
        quality=quality([[task.grades[index] for index in ranking.order] for task, ranking in ranked]),
        tokens=fmean(tokens[text] for text in _passages([task for task, _ in ranked])),
    )


def _judge_languages(ranked: Sequence[tuple[Task, Ranking]], tokens: Mapping[str, int]) -> dict[str, Judged]:
    groups: dict[str | None, list[tuple[Task, Ranking]]] = {}
    for task, ranking in ranked:
        groups.setdefault(task.language, []).append((task, ranking))
    if set(groups) == {None}:
        return {}
    named = {language or NOT_STATED: group for language, group in groups.items()}
    return {language: _judge(named[language], tokens) for language in sorted(named)}


def _places(order: Sequence[int]) -> Float32Array:
    """float32 (n): for each document its place in the order."""
    places = np.empty(len(order), np.float32)
    places[list(order)] = np.arange(len(order), dtype=np.float32)
    return places
