"""The benchmark itself: models in turn on the same passages, within a time budget."""

import os
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from raskrank import cpu
from raskrank.backend import Float32Array
from raskrank.bench.entries import Entry, loaded
from raskrank.bench.progress import step
from raskrank.bench.report import Model, Report, Result, Speed
from raskrank.bench.workloads import FEW, Workload
from raskrank.measuring import MIN_ROUNDS, FreshProcess, fresh_process, interleaved
from raskrank.parity import kendall_tau
from raskrank.terminal import Steps

MAX_ROUNDS = 40  # enough for a 95th percentile that is not the longest round
FRESH_PROCESSES = 3  # of each model at most
FRESH_SHARE = 0.2  # of the time, after which no further round of fresh processes begins


def run(
    bundles: Sequence[str | os.PathLike[str] | None],
    workloads: Sequence[Workload],
    query: str,
    *,
    source: str,
    seconds: float,
    threads: int | None = None,
    against_torch: bool = False,
    checkpoint: str | None = None,
    progress: Steps | None = None,
) -> Report:
    """Load, measure fresh processes, then every workload.

    bundles: at least one, as for `Reranker.load`; the others are compared with the first. workloads: as `workloads` makes
    them. source: what to say of where the passages are from. seconds: wall time of it all; where three rounds of a workload
    would take longer than its share, it gets fewer passages. threads: cores for each model, by default all usable ones.
    against_torch: also the checkpoint of the first bundle in PyTorch; checkpoint: its folder, without, where the manifest says.

    Raises what `Reranker.load` and `Reranker.score` do.
    """
    began, cores = time.perf_counter(), threads or cpu.usable_cpus()

    def left() -> float:
        return seconds - (time.perf_counter() - began)

    # Memory is the same after few passages as after many, and PyTorch takes its time for them.
    few = [workload for workload in workloads if workload.kind == workloads[0].kind and len(workload.passages) <= FEW][-1]
    with loaded(bundles, threads=cores, against_torch=against_torch, checkpoint=checkpoint, progress=progress) as entries:
        bench = Bench(entries, query, progress)
        pace = bench.pace(workloads[0])
        fresh_passages, fresh = bench.fresh_processes(few, pace, cores, left() * FRESH_SHARE)
        results = bench.measure(workloads, pace, left)
        versions = {package: number for entry in entries for package, number in entry.reranker.info().versions.items()}
    return Report(
        cpu=cpu.model_name(),
        instruction_sets=cpu.instruction_sets(),
        usable_cores=cpu.usable_cpus(),
        threads=cores,
        versions={"Python": platform.python_version(), **versions},
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        source=source,
        fresh_passages=fresh_passages,
        models=tuple(_model(entry, fresh[entry.label]) for entry in entries),
        results=tuple(results),
        left_out=tuple(workload.name for workload in workloads if workload.kind not in {result.kind for result in results}),
        seconds=time.perf_counter() - began,
    )


def fit(passages: int, round_s: float, share_s: float) -> tuple[int, int]:
    """How many of the passages, at least 1, and how many counted rounds of them, 3 to 40, end within share_s.

    round_s: what a round of all passages is expected to take. One round more is not counted.
    """
    least = round_s * (1 + MIN_ROUNDS)
    if least > share_s:
        return max(1, int(passages * share_s / least)), MIN_ROUNDS
    return passages, min(MAX_ROUNDS, int(share_s / round_s) - 1)


@dataclass(frozen=True)
class Bench:
    """Loaded models, the first of which the others are compared with, and the query that passages are scored for."""

    entries: Sequence[Entry]
    query: str
    progress: Steps | None

    def pace(self, workload: Workload) -> dict[str, float]:
        """Seconds a token of each entry for one of the passages, from the second of two rounds."""
        one = workload.sample(1)
        return _pace(self._speeds(f"try {one.name}", one, rounds=1, budget_s=None))

    def fresh_processes(
        self, few: Workload, pace: Mapping[str, float], cores: int, budget_s: float
    ) -> tuple[int, dict[str, FreshProcess]]:
        """One process of each entry; where the time allows, of two or three the one in the middle by its first score.

        Gives how many of the few passages each of them scored, too.
        """
        passages, _ = fit(len(few.passages), self._expected(few, pace), budget_s)
        texts = few.sample(passages).passages
        found: dict[str, list[FreshProcess]] = {entry.label: [] for entry in self.entries}
        with step(self.progress, "fresh processes", FRESH_PROCESSES * len(self.entries)) as advance:
            start = time.perf_counter()
            for number in range(1, FRESH_PROCESSES + 1):
                for entry in self.entries:
                    process = fresh_process(
                        entry.bundle,
                        threads=cores,
                        backend=entry.backend,
                        checkpoint=entry.checkpoint,
                        texts=texts,
                        query=self.query,
                    )
                    found[entry.label].append(process)
                    advance(1)
                if (time.perf_counter() - start) * (number + 1) / number > budget_s:
                    break
        by_first_score = {label: sorted(row, key=lambda process: process.first_score_s) for label, row in found.items()}
        return passages, {label: row[len(row) // 2] for label, row in by_first_score.items()}

    def measure(self, workloads: Sequence[Workload], pace: Mapping[str, float], left: Callable[[], float]) -> list[Result]:
        """Each workload in turn, at least the first. pace: of the first.

        Left out are those for which no time is left, and those of which there is time for no more passages than the one
        before had, which then stands for both.
        """
        results: list[Result] = []
        for number, full in enumerate(workloads):
            last = results[-1] if results and results[-1].kind == full.kind else None
            if results and last is None:
                if left() <= 0:
                    continue
                pace = self.pace(full)  # short passages take longer a token
            budget_s = left() * full.share / sum(workload.share for workload in workloads[number:])
            passages, rounds = fit(len(full.passages), self._expected(full, pace), budget_s)
            if last and passages <= last.passages:
                results[-1] = replace(last, asked=len(full.passages))
                continue
            workload = full.sample(passages)
            speeds = self._speeds(f"score {workload.name}", workload, rounds, budget_s)
            pace = _pace(speeds)
            results.append(Result(kind=full.kind, asked=len(full.passages), speeds=speeds))
        return results

    def _expected(self, workload: Workload, pace: Mapping[str, float]) -> float:
        """Seconds of a round of all entries."""
        return sum(pace[entry.label] * sum(entry.lengths(self.query, workload.passages)) for entry in self.entries)

    def _speeds(self, name: str, workload: Workload, rounds: int, budget_s: float | None) -> tuple[Speed, ...]:
        scores: dict[str, Float32Array] = {}

        def scoring(entry: Entry) -> Callable[[], None]:
            def score() -> None:
                scores[entry.label] = entry.reranker.score(self.query, workload.passages)

            return score

        functions = {entry.label: scoring(entry) for entry in self.entries}
        with step(self.progress, name, (1 + rounds) * len(functions)) as advance:
            timings = interleaved(functions, rounds=rounds, budget_s=budget_s, advance=advance)
        first = scores[self.entries[0].label]
        return tuple(
            Speed(
                label=entry.label,
                timing=timings[entry.label],
                lengths=tuple(sorted(entry.lengths(self.query, workload.passages))),
                kendall_tau=kendall_tau(first, scores[entry.label]) if len(first) > 1 else None,
            )
            for entry in self.entries
        )


def _pace(speeds: Sequence[Speed]) -> dict[str, float]:
    return {speed.label: 1 / speed.tokens_per_s for speed in speeds}


def _model(entry: Entry, fresh: FreshProcess) -> Model:
    info, manifest = entry.reranker.info(), entry.manifest
    return Model(
        label=entry.label,
        name=info.name,
        backend=entry.backend,
        precision=info.precision,
        scheme=manifest.recipe.scheme if manifest else None,
        folder=str(entry.bundle or entry.checkpoint),
        bundle_bytes=sum(file.size for file in manifest.files.values()) if manifest else None,
        fresh=fresh,
    )
