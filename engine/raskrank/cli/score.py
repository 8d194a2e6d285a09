"""`raskrank score`."""

import argparse
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from raskrank import license
from raskrank.bulk.job import Columns, Job, Model, Settings
from raskrank.bulk.journal import Journal
from raskrank.bulk.plan import Plan, place_of
from raskrank.bulk.running import run_here
from raskrank.bulk.summary import Summary
from raskrank.bundle import read_manifest
from raskrank.cli.shared import choose, windows_of
from raskrank.errors import InputError
from raskrank.extras import need
from raskrank.terminal import Bar, duration, is_terminal, say, show, to_json

SAID_EVERY = 60.0  # seconds between lines about progress, where no terminal shows a bar


def run(arguments: argparse.Namespace) -> int:
    start, job = time.perf_counter(), _job(arguments)
    if arguments.ray is not None:
        need("--ray", "ray", "ray", "pyarrow")
    choice = choose(arguments)
    manifest, digest = read_manifest(choice.path)
    model = Model(
        bundle=choice.path.absolute(),
        manifest_sha256=digest,
        backend=arguments.backend,
        ignore_target=arguments.ignore_target,
        map_weights=arguments.map_weights,
    )
    plan = Plan(job)
    with Journal(job.output, plan.asked(model)) as journal:
        earlier = {*journal.done}
        try:
            machines = _score(arguments, plan, model, journal)
        except BaseException:
            if journal.done:
                say(f"{len(journal.done)} of {len(plan.parts)} parts are done; the same command goes on from there")
            raise
    if note := license.note(manifest.name, manifest.source.license):
        say(note)
    summary = Summary.of(
        [record for name, record in journal.done.items() if name not in earlier],
        earlier_parts=len(earlier),
        seconds=time.perf_counter() - start,
        machines=machines,
        price_per_hour=arguments.price_per_hour,
    )
    show(to_json(summary.to_dict(), indent=2) if arguments.json else str(summary))
    return 0


def _job(arguments: argparse.Namespace) -> Job:
    *inputs, output = map(Path, arguments.paths)
    if not inputs:
        swallowed = f"; {arguments.ray} was taken for the address of a cluster: write --ray at the end, or --ray=ADDRESS"
        raise InputError(f"OUTPUT is missing: score INPUT... OUTPUT{swallowed if arguments.ray else ''}")
    return Job(
        inputs=tuple(path.absolute() for path in inputs),
        output=output.absolute(),
        format=arguments.format,
        part_rows=arguments.part_rows,
        settings=Settings(
            columns=Columns(query=arguments.query_column, document=arguments.document_column, prefix=arguments.prefix),
            windows=windows_of(arguments),
            raw_scores=arguments.raw_scores,
            bad_rows=arguments.bad_rows,
        ),
    )


def _score(arguments: argparse.Namespace, plan: Plan, model: Model, journal: Journal) -> int:
    """Score what is left, and return how many machines did."""
    left = sum(part.rows for part in plan.parts if place_of(part, plan.sources) not in journal.done)
    if not left:
        return 1
    if arguments.ray is not None:
        from raskrank.bulk.cluster import connected, run_on

        with connected(arguments.ray or None, arguments.threads) as cluster:
            say(f"Ray: {cluster.machines} x machine, {cluster.actors} x actor of {cluster.cores} threads")
            with _progress(plan.rows, plan.rows - left) as progress:
                run_on(cluster, plan, model, journal, progress.done)
            return cluster.machines
    with (
        model.load(arguments.threads) as reranker,
        _progress(plan.rows, plan.rows - left) as progress,
        reranker.progress(progress.advance),
    ):
        run_here(plan, reranker, journal, progress.done)
    return 1


class _Progress:
    """How many of the rows are done, shown meanwhile. `advance` is called from several threads, for rows of a batch."""

    def __init__(self, show: Callable[[int], None]) -> None:
        self._show, self._shown, self._lock = show, 0, threading.Lock()

    def advance(self, rows: int) -> None:
        with self._lock:
            self._shown += rows
            self._show(rows)

    def done(self, rows: int) -> None:
        """A batch is done, of which some rows have been shown."""
        with self._lock:
            self._show(rows - self._shown)
            self._shown = 0


@contextmanager
def _progress(total: int, done: int) -> Iterator[_Progress]:
    if is_terminal(sys.stderr):
        with Bar("scoring", total, sys.stderr, done=done, rate=True) as bar:
            yield _Progress(bar.advance)
    else:
        yield _Progress(_Lines(total, done).advance)


class _Lines:
    """A line every so often."""

    def __init__(self, total: int, done: int) -> None:
        self._total, self._earlier, self._done = total, done, done
        self._start = self._said = time.monotonic()

    def advance(self, rows: int) -> None:
        self._done += rows
        now = time.monotonic()
        if now - self._said < SAID_EVERY or self._done == self._earlier:
            return
        self._said, rate = now, (self._done - self._earlier) / (now - self._start)
        left = duration((self._total - self._done) / rate)
        say(f"{self._done:,} of {self._total:,} pairs, {rate:,.1f}/s, {left} left")
