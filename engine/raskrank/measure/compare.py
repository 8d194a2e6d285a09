"""The comparison: each model in fresh processes, then on the same tasks, then all in turn on the clock."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import fmean

import numpy as np

from raskrank.backend import Float32Array
from raskrank.measure import fresh
from raskrank.measure.candidates import Task
from raskrank.measure.cascade import CascadeContender
from raskrank.measure.contender import Contender, Ranking
from raskrank.measure.cross_encoder import CrossEncoder
from raskrank.measure.fresh import FreshProcess
from raskrank.measure.progress import step
from raskrank.measure.quality import DEPTH, Quality, quality
from raskrank.measure.timing import Timing, interleaved
from raskrank.parity import kendall_tau
from raskrank.terminal import Steps

COUNTS = (10, 100)  # passages of one timed call
ROUNDS = 20  # with fewer, the 95th percentile is just the longest
BUDGET_S = 30.0  # for each model and count; large models get fewer rounds
NOT_STATED = "not stated"  # language of a query, where the data has one for other queries only


@dataclass(frozen=True, kw_only=True)
class About:
    """What was compared, where and when."""

    data: str
    queries: int
    candidates: int  # the most that a query had
    machine: str
    date: str
    versions: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class Judged:
    """How well a model ranks, and how many tokens a passage has on average."""

    quality: Quality
    tokens: float


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """Of a bundle with its checkpoint, over all queries."""

    tau: float  # the mean of Kendall's tau of the two orders, in [-1, 1]
    top1: float  # the share of queries with the same best passage, in [0, 1]


@dataclass(frozen=True, kw_only=True)
class Overlap:
    """Of a cascade with its last model alone, over all queries."""

    alone: int  # place of that model in the results
    top: float  # the mean share of the last model's DEPTH best documents that are among the cascade's, in [0, 1]
    top1: float  # the share of queries with the same best passage, in [0, 1]


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
    overlap: Overlap | None  # of a cascade
    calls: Mapping[int, Timing]  # by number of passages
    fresh: FreshProcess | None  # None for what is no single cross-encoder


def measure(contenders: Sequence[Contender], tasks: Sequence[Task], progress: Steps | None = None) -> list[Result]:
    """Measure loaded models on the same tasks, at least one. The results are in the order of the contenders."""
    started = _start_anew(contenders, tasks, progress)
    rankings = [_rank_all(contender, tasks, progress) for contender in contenders]
    calls = {count: _time_calls(contenders, tasks, count, progress) for count in COUNTS}
    results = []
    for index, contender in enumerate(contenders):
        alone = contenders.index(contender.alone) if isinstance(contender, CascadeContender) else None
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
                overlap=None if alone is None else overlap(alone, rankings[alone], rankings[index]),
                calls={count: timings[str(index)] for count, timings in calls.items()},
                fresh=started.get(str(index)),
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


def overlap(alone: int, reference: Sequence[Ranking], rankings: Sequence[Ranking]) -> Overlap:
    """How far a cascade gives what its last model, whose rankings `reference` are, finds alone. alone: as in Overlap."""
    pairs = [(first.order, second.order) for first, second in zip(reference, rankings, strict=True)]
    return Overlap(
        alone=alone,
        top=fmean(len({*first[:DEPTH]} & {*second[:DEPTH]}) / len(first[:DEPTH]) for first, second in pairs),
        top1=fmean(float(first[0] == second[0]) for first, second in pairs),
    )


def timed_passages(tasks: Sequence[Task], count: int) -> list[str]:
    """The first `count` different documents of the tasks, repeated from the first if there are fewer."""
    return list(itertools.islice(itertools.cycle(_passages(tasks)), count))


def _passages(tasks: Sequence[Task]) -> list[str]:
    return list(dict.fromkeys(document for task in tasks for document in task.documents))


def _start_anew(contenders: Sequence[Contender], tasks: Sequence[Task], progress: Steps | None) -> dict[str, FreshProcess]:
    """By the contender's index."""
    query, documents = tasks[0].query, timed_passages(tasks, max(COUNTS))
    starts = {
        str(index): partial(contender.start_anew, query, documents)
        for index, contender in enumerate(contenders)
        if isinstance(contender, CrossEncoder)  # the others are here for their quality and the time of their calls
    }
    with step(progress, "fresh processes", fresh.PROCESSES * len(starts)) as advance:
        return fresh.medians(starts, advance=advance)


def _rank_all(contender: Contender, tasks: Sequence[Task], progress: Steps | None) -> list[Ranking]:
    rankings = []
    with step(progress, f"ranking with {contender.name}, {contender.runs}", len(tasks)) as advance:
        for task in tasks:
            rankings.append(contender.rank(task.query, task.documents))
            advance(1)
    return rankings


def _time_calls(
    contenders: Sequence[Contender], tasks: Sequence[Task], count: int, progress: Steps | None
) -> dict[str, Timing]:
    """By the contender's index."""
    query, documents = tasks[0].query, timed_passages(tasks, count)
    functions = {str(index): partial(contender.run, query, documents) for index, contender in enumerate(contenders)}
    with step(progress, f"timing {count} passages", (ROUNDS + 1) * len(functions)) as advance:
        return interleaved(functions, rounds=ROUNDS, budget_s=BUDGET_S * len(functions), advance=advance)


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
