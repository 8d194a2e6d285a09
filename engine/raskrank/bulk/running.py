"""A part from its rows to its file, and all parts one after another."""

import os
import socket
import time
from collections.abc import Callable
from contextlib import closing
from typing import Any

from raskrank.bulk.job import Job
from raskrank.bulk.journal import Journal
from raskrank.bulk.part import Part, Reader, Record
from raskrank.bulk.plan import Plan, place_of, reader_of
from raskrank.bulk.scoring import score_batch
from raskrank.bulk.writing import whole_file
from raskrank.reranker import Reranker


def score_part(
    reranker: Reranker, reader: Reader[Any], part: Part, place: str, job: Job, done: Callable[[int], None] = lambda _: None
) -> Record:
    """Score a part and write its file, whole or not at all. place: of that file, below the output. done: hears of rows."""
    start = time.perf_counter()
    pairs = unscored = truncated = tokens = 0
    file_place = job.output / place
    with whole_file(file_place) as file:
        with closing(reader.writer(file)) as writer:
            for batch in reader.batches(part):
                added, read = score_batch(reranker, batch, job.settings)
                writer.write(batch, added)
                scored = sum(one.score is not None for one in added)
                pairs, unscored, tokens = pairs + scored, unscored + len(added) - scored, tokens + read
                truncated += sum(bool(one.truncated) for one in added)
                done(len(added))
        size = file.tell()
    return Record(
        part=place,
        bytes=size,
        pairs=pairs,
        unscored=unscored,
        truncated=truncated,
        tokens=tokens,
        seconds=round(time.perf_counter() - start, 3),
        worker=f"{socket.gethostname()}:{os.getpid()}",
    )


def run_here(plan: Plan, reranker: Reranker, journal: Journal, done: Callable[[int], None]) -> None:
    """Score the parts that are not in the journal, in order. done: hears of rows that are scored.

    Raises InputError and NonFiniteScore for a row, RaskrankError for a file that cannot be written: what is done stays.
    """
    job, current = plan.job, -1
    for part in plan.parts:
        place = place_of(part, plan.sources)
        if place in journal.done:
            continue
        if part.source != current:
            current, reader = part.source, reader_of(plan.sources[part.source], job.settings)
        journal.add(score_part(reranker, reader, part, place, job, done))
