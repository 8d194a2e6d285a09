"""The benchmark itself: models in turn on the same passages, within a time budget."""

import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from raskrank import cpu
from raskrank.backend import Float32Array
from raskrank.measure import fresh
from raskrank.measure.bench_result import Benchmark, Model, Result, Speed
from raskrank.measure.contenders import PLAIN, PlainExport, loaded_for_bench
from raskrank.measure.cross_encoder import CrossEncoder
from raskrank.measure.fresh import FreshProcess
from raskrank.measure.passages import FEW, Workload
from raskrank.measure.progress import step
from raskrank.measure.timing import MIN_ROUNDS, interleaved
from raskrank.options import BackendName
from raskrank.parity import kendall_tau
from raskrank.terminal import Steps

MAX_ROUNDS = 40  # enough for a 95th percentile that is not the longest round
FRESH_SHARE = 0.2  # of the time, for fresh processes


def measure(
    bundles: Sequence[Path],
    workloads: Sequence[Workload],
    query: str,
    *,
    source: str,
    seconds: float,
    threads: int,
    backend: BackendName | None = None,
    against_torch: bool = False,
    plain: PlainExport | None = None,
    checkpoint: Path | None = None,
    progress: Steps | None = None,
) -> Benchmark:
    """Load the models, measure fresh processes, then every workload.

    bundles: at least one; the others are compared with the first. workloads: as the functions in `passages` make them.
    source: where the passages are from, for the report. seconds: for all of it; a workload of which three rounds would take
    longer than its share gets fewer passages. threads: cores for each model. backend: of the bundles, as in `Reranker.load`.
    against_torch: also run the checkpoint of the first bundle in PyTorch. plain: its plain export, to run too. checkpoint: its
    folder. Default: where the manifest says.

    Raises as `Reranker.load` and `Reranker.score` do.
    """
    began = time.perf_counter()

    def left() -> float:
        return seconds - (time.perf_counter() - began)

    # Few passages, for which PyTorch too takes little time, show what memory is used as well as many.
    few = [workload for workload in workloads if workload.kind == workloads[0].kind and len(workload.passages) <= FEW][-1]
    loading = loaded_for_bench(
        bundles,
        threads=threads,
        backend=backend,
        against_torch=against_torch,
        plain=plain,
        checkpoint=checkpoint,
        progress=progress,
    )
    with loading as contenders:
        bench = Bench(contenders, query, progress)
        pace = bench.pace(workloads[0])
        fresh_passages, processes = bench.fresh_processes(few, pace, left() * FRESH_SHARE)
        results = bench.measure(workloads, pace, left)
    versions = {package: version for model in contenders.values() for package, version in model.info.versions.items()}
    measured = {result.kind for result in results}
    return Benchmark(
        cpu=cpu.model_name(),
        instruction_sets=cpu.instruction_sets(),
        usable_cores=cpu.usable_cpus(),
        threads=threads,
        versions={"Python": platform.python_version(), **versions},
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        source=source,
        fresh_passages=fresh_passages,
        models=tuple(
            _model(label, contender, processes[label], plain if label == PLAIN else None)
            for label, contender in contenders.items()
        ),
        results=tuple(results),
        left_out=tuple(workload.name for workload in workloads if workload.kind not in measured),
        seconds=time.perf_counter() - began,
    )


def fit(passages: int, round_s: float, share_s: float) -> tuple[int, int]:
    """How many of the passages, at least 1, and how many counted rounds of them, 3 to 40, end within share_s seconds.

    round_s: seconds that a round of all passages is expected to take. One round more is not counted.
    """
    least = round_s * (1 + MIN_ROUNDS)
    if least > share_s:
        return max(1, int(passages * share_s / least)), MIN_ROUNDS
    return passages, min(MAX_ROUNDS, int(share_s / round_s) - 1)


@dataclass(frozen=True)
class Bench:
    """Loaded models by label, the first of which the others are compared with, and the query that passages are scored for."""

    contenders: Mapping[str, CrossEncoder]
    query: str
    progress: Steps | None = None

    def pace(self, workload: Workload) -> dict[str, float]:
        """Seconds that each model takes for a token, from the second of two rounds of one passage."""
        one = workload.sample(1)
        return _pace(self._speeds(f"try {one.name}", one, rounds=1, budget_s=None))

    def fresh_processes(
        self, few: Workload, pace: Mapping[str, float], budget_s: float
    ) -> tuple[int, Mapping[str, FreshProcess]]:
        """What a fresh process of each model needs, after the number of passages of `few` that fit the budget."""
        passages, _ = fit(len(few.passages), self._expected(few, pace), budget_s)
        texts = few.sample(passages).passages
        starts = {label: partial(model.start_anew, self.query, texts) for label, model in self.contenders.items()}
        with step(self.progress, "fresh processes", fresh.PROCESSES * len(starts)) as advance:
            return passages, fresh.medians(starts, budget_s=budget_s, advance=advance)

    def measure(self, workloads: Sequence[Workload], pace: Mapping[str, float], left: Callable[[], float]) -> list[Result]:
        """Each workload in turn, at least the first. pace: for the first. left: gives the seconds that are left.

        A workload is left out if no time is left for it. If the time allows no more passages of it than the one before had,
        the result of that one stands for both.
        """
        results: list[Result] = []
        for number, full in enumerate(workloads):
            last = results[-1] if results and results[-1].kind == full.kind else None
            if results and last is None:
                if left() <= 0:
                    continue
                pace = self.pace(full)  # short passages take longer for each token
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
        """Seconds of a round of all models."""
        return sum(
            pace[label] * sum(model.pair_lengths(self.query, workload.passages)) for label, model in self.contenders.items()
        )

    def _speeds(self, name: str, workload: Workload, rounds: int, budget_s: float | None) -> tuple[Speed, ...]:
        scores: dict[str, Float32Array] = {}

        def score(label: str, contender: CrossEncoder) -> None:
            scores[label] = contender.score(self.query, workload.passages)

        functions = {label: partial(score, label, contender) for label, contender in self.contenders.items()}
        with step(self.progress, name, (1 + rounds) * len(functions)) as advance:
            timings = interleaved(functions, rounds=rounds, budget_s=budget_s, advance=advance)
        first = next(iter(scores.values()))
        return tuple(
            Speed(
                label=label,
                timing=timings[label],
                lengths=tuple(sorted(contender.pair_lengths(self.query, workload.passages))),
                kendall_tau=kendall_tau(first, scores[label]) if len(first) > 1 else None,
            )
            for label, contender in self.contenders.items()
        )


def _pace(speeds: Sequence[Speed]) -> dict[str, float]:
    return {speed.label: 1 / speed.tokens_per_s for speed in speeds}


def _model(label: str, contender: CrossEncoder, process: FreshProcess, plain: PlainExport | None) -> Model:
    info, manifest = contender.info, contender.manifest
    return Model(
        label=label,
        name=info.name,
        backend=info.backend,
        precision=info.precision,
        scheme=manifest.recipe.scheme if manifest else None,
        plain=plain.made if plain else None,
        folder=str(plain.checkpoint if plain else contender.folder),
        bundle_bytes=sum(file.size for file in manifest.files.values()) if manifest else None,
        fresh=process,
    )
