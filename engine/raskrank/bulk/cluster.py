"""The same on Ray Data: parts for actors with cores of their own, on all machines of a cluster.

The parts are what they are in one process, and so is the output. An actor writes the file of a part, and what comes back to the
journal is a line. An actor that dies is replaced, and the part that it had is given to another.
"""

import json
import logging
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any, NamedTuple

from raskrank import Reranker
from raskrank.bulk import cores
from raskrank.bulk.job import Job, Model
from raskrank.bulk.journal import Journal
from raskrank.bulk.part import Part, Reader, Record
from raskrank.bulk.plan import Plan, place_of, reader_of
from raskrank.bulk.running import score_part
from raskrank.bulk.sources import Source
from raskrank.bulk.writing import remove_stale
from raskrank.cpu import usable_cpus
from raskrank.errors import InputError, MissingFile, RaskrankError

REACH_SECONDS = 10.0  # within which a head node answers
_NO_CLUSTER = "--ray: no cluster of Ray at {} ({}); start one with: ray start --head, or leave out the address"


class Cluster(NamedTuple):
    """Machines with CPUs for Ray. cores: of an actor. actors: on all of them."""

    machines: int
    cores: int
    actors: int


@contextmanager
def connected(address: str | None, threads: int | None) -> Iterator[Cluster]:
    """A cluster of Ray while the block runs.

    address: of one that runs, or "auto" for that of this machine. Default: RAY_ADDRESS, else one that is started here, for as
    long as the block. threads: cores of an actor. Default: see `cores.share`.

    Raises InputError where there is no cluster at the address, or none with so many cores. Needs the extra ray.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # it would report to its makers
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    import ray.data

    logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # tracebacks of what is raised below

    address = address or os.environ.get("RAY_ADDRESS") or "local"
    _check_reachable(address)
    own: dict[str, Any] = {"num_cpus": usable_cpus(), "include_dashboard": False} if address == "local" else {}
    try:
        with _nothing_said():
            ray.init(address, log_to_driver=False, logging_level="ERROR", **own)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise InputError(_NO_CLUSTER.format(address[:100], type(error).__name__)) from None
    try:
        counts = [int(node["Resources"].get("CPU", 0)) for node in ray.nodes() if node["Alive"]]
        machines = [count for count in counts if count]
        if not machines:
            raise InputError("--ray: the cluster has no CPU for anything")
        each, actors = cores.share(machines) if threads is None else (threads, sum(count // threads for count in machines))
        if not actors:
            raise InputError(f"--threads: no machine of the cluster has {threads} cores; the largest has {max(machines)}")
        yield Cluster(len(machines), each, actors)
    finally:
        ray.shutdown()


def _check_reachable(address: str) -> None:
    """Ray itself would try for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdecimal():
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=REACH_SECONDS).close()
        except (OSError, OverflowError) as error:
            raise InputError(_NO_CLUSTER.format(address[:100], type(error).__name__)) from None


@contextmanager
def _nothing_said() -> Iterator[None]:
    """What native code of Ray says of its own start, past Python, on the descriptor of standard error, is lost."""
    try:
        kept = os.dup(2)
    except OSError:  # there is none
        yield
        return
    null = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(null, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(null)


def run_on(cluster: Cluster, plan: Plan, model: Model, journal: Journal, done: Callable[[int], None]) -> None:
    """As `run_here`, on a cluster; parts are done in any order. done: hears of the rows of a part that is done."""
    import ray.data
    import ray.exceptions
    from ray.data import ActorPoolStrategy, DataContext

    left = [part for part in plan.parts if place_of(part, plan.sources) not in journal.done]
    if not left:
        return
    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    rows = {place_of(part, plan.sources): part.rows for part in left}
    # A block for each part, and one block at a time for each actor: what dies with it is a part.
    blocks = ray.data.from_items([part._asdict() for part in left], override_num_blocks=len(left))
    outcomes = blocks.map_batches(
        PartScorer,
        fn_constructor_kwargs={"job": plan.job, "sources": plan.sources, "model": model, "threads": cluster.cores},
        batch_size=1,
        num_cpus=cluster.cores,
        compute=ActorPoolStrategy(size=min(cluster.actors, len(left)), max_tasks_in_flight_per_actor=1),
    )
    try:
        for outcome in outcomes.iter_rows():
            if outcome["error"]:
                raise _ERRORS.get(outcome["kind"], RaskrankError)(outcome["error"])
            record = Record(**json.loads(outcome["record"]))
            journal.add(record)
            done(rows[record.part])
    except ray.exceptions.RayError as error:  # its text is pages long
        raise RaskrankError(f"--ray: the cluster has ended the work ({type(error).__name__}); see Ray's own logs") from error
    remove_stale(plan.job.output)  # of actors that died


_ERRORS: dict[str, type[RaskrankError]] = {"InputError": InputError, "MissingFile": MissingFile}


class PartScorer:
    """An actor: scores the parts that it is given, and writes their files. What is wrong with a part, or with the bundle on its
    machine, is an answer, too: what an actor raises Ray would try again, and print."""

    def __init__(self, job: Job, sources: list[Source], model: Model, threads: int) -> None:
        cores.stay_on_a_node(threads)
        self._job, self._sources, self._current = job, sources, -1
        self._reader: Reader[Any] | None = None
        self._model, self._threads = model, threads
        self._reranker: Reranker | None = None

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[str]]:
        (part,) = (Part(*map(int, values)) for values in zip(*(batch[name] for name in Part._fields), strict=True))
        try:
            if self._reranker is None:
                self._reranker = self._model.load(self._threads)
            record = score_part(self._reranker, self._reader_of(part), part, place_of(part, self._sources), self._job)
        except RaskrankError as error:
            return {"record": [""], "error": [f"{error} (on {socket.gethostname()})"], "kind": [type(error).__name__]}
        return {"record": [json.dumps(asdict(record))], "error": [""], "kind": [""]}

    def _reader_of(self, part: Part) -> Reader[Any]:
        if self._reader is None or part.source != self._current:
            self._reader, self._current = reader_of(self._sources[part.source], self._job.settings), part.source
        return self._reader
