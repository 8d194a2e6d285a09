"""What a million pairs cost with `raskrank score`, and how much of it is not the model.

    python -m benchmarks.studies.bulk [--model nano|minilm|bge|FOLDER] [--pairs 2000]

A sample of pairs, queries of our samples each with passages of mixed length, none twice, is written to JSON Lines, and to
Parquet where pyarrow is installed, which is then what the command scores, in a process of its own. From its seconds without the
start follow those of 10^6 pairs and more, on machines like this one and for pairs like these: they are reckoned, not measured.

What a pair costs in time of one core, for all and for each thing beside the model alone, holds also where others use the
machine, which its seconds do not. "The engine beside them" is what one process does in Python for each pair, one pair after
another whatever its cores: no number of cores makes one process faster than that.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.harness import workloads
from benchmarks.harness.models import HELP, ROOT, bundle
from raskrank import Reranker, cpu
from raskrank.backend import Backend, Float32Array, Int64Array
from raskrank.bulk.job import Job
from raskrank.bulk.part import Added
from raskrank.bulk.plan import Plan, reader_of
from raskrank.bulk.writing import whole_file
from raskrank.running import Workers
from raskrank.samples import read_samples
from raskrank.scoring import CHUNK_PAIRS, Request, Scorer

SIZES = (10**6, 10**8, 10**9)
MACHINES = (1, 10, 100)
TRIES = 3  # of what is beside the model: seconds in all

Pairs = list[tuple[str, str]]


class Free:
    """A backend that costs nothing."""

    name = "free"

    def __init__(self, like: Backend) -> None:
        self.hidden_size, self.groups, self.min_share = like.hidden_size, like.groups, like.min_share
        self.concurrency = like.concurrency

    def logits(self, input_ids: Int64Array, token_type_ids: Int64Array, *, threads: int = 1) -> Float32Array:  # noqa: ARG002
        return np.zeros(len(input_ids), np.float32)

    def expect(self, helpers: int) -> None:
        pass

    def close(self) -> None:
        pass


def sample(count: int) -> Pairs:
    queries = [sample.query for sample in read_samples()]
    return [(queries[number % len(queries)], text) for number, text in enumerate(workloads.passages(count))]


def write(pairs: Pairs, folder: Path) -> list[Path]:
    """The files with these pairs; the last is what is to be scored."""
    folder.mkdir()
    rows = [{"id": number, "query": query, "document": text} for number, (query, text) in enumerate(pairs)]
    files = [folder / "pairs.jsonl"]
    files[0].write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")
    if find_spec("pyarrow") is not None:
        import pyarrow as pa
        from pyarrow import parquet

        files.append(folder / "pairs.parquet")
        parquet.write_table(pa.Table.from_pylist(rows), files[-1])
    return files


def score(model: Path, file: Path) -> dict[str, Any]:
    """What the command says of itself."""
    output = file.parent / "scored"
    command = [sys.executable, "-m", "raskrank", "score", str(file), str(output), "--bundle", str(model), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env={**os.environ, "COLUMNS": "80"})
    said: dict[str, Any] = json.loads(done.stdout)
    return said


def copy(file: Path) -> None:
    """Find the parts of a file, read them, and write them with a score that costs nothing."""
    plan = Plan(Job(inputs=(file,), output=file.parent / "copied"))
    for part in plan.parts:
        reader = reader_of(plan.sources[part.source], plan.job.settings)
        with whole_file(plan.job.output / f"{part.piece}") as written:
            writer = reader.writer(written)
            for batch in reader.batches(part):
                writer.write(batch, [Added(0.5, False, None)] * len(batch.queries))
            writer.close()


def beside_the_model(model: Path, pairs: Pairs) -> None:
    """Tokenizing, and all else that the engine does with a model that costs nothing."""
    with Reranker.load(model, threads=1) as reranker:
        loaded = reranker._loaded
        chunks = [pairs[start : start + CHUNK_PAIRS] for start in range(0, len(pairs), CHUNK_PAIRS)]
        tokenizing = say("  tokenizing", len(pairs), lambda: [loaded.encoder.encode(chunk) for chunk in chunks])
        workers = Workers(1)
        engine = Scorer(replace(loaded, backend=Free(loaded.backend)), workers, None, None)
        with_tokenizing = busy(lambda: engine.score(pairs, Request()))
        workers.close()
    print_cost("  the engine beside them", len(pairs), with_tokenizing - tokenizing)


def busy(function: Callable[[], object]) -> float:
    """Seconds of one core that it takes in this process: the least of TRIES."""
    seconds = []
    for _ in range(TRIES):
        start = time.process_time()
        function()
        seconds.append(time.process_time() - start)
    return min(seconds)


def say(what: str, pairs: int, function: Callable[[], object]) -> float:
    seconds = busy(function)
    print_cost(what, pairs, seconds)
    return seconds


def print_cost(what: str, pairs: int, seconds: float) -> None:
    print(f"{what:<40}{seconds / pairs * 1e6:10,.0f} µs", flush=True)


def of_children() -> float:
    """Seconds of one core that processes took which this one has started and which have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def reckoned(rate: float) -> list[str]:
    """Lines of a table: hours, and days, for each size on so many machines."""
    lines = [" ".join([f"{'pairs':>8}", *(f"{f'{number} x machine':>20}" for number in MACHINES)])]
    for size in SIZES:
        hours = [size / rate / 3600 / number for number in MACHINES]
        cells = [f"{each:,.1f} h" if each < 48 else f"{each / 24:,.1f} days" for each in hours]
        lines.append(" ".join([f"{size:8.0e}", *(f"{cell:>20}" for cell in cells)]))
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="nano", help=HELP)
    parser.add_argument("--pairs", type=int, default=2000, help="of the sample (default: %(default)s)")
    arguments = parser.parse_args()
    model = ROOT / "engine" / "raskrank" / "nano" if arguments.model == "nano" else bundle(arguments.model, "int8")
    pairs = sample(arguments.pairs)
    with tempfile.TemporaryDirectory() as name:
        before = of_children()
        start = score(model, write(pairs[:1], Path(name, "one"))[-1])["seconds"]
        starting = of_children() - before
        files = write(pairs, Path(name, "all"))
        said = score(model, files[-1])
        all_busy = of_children() - before - 2 * starting
        seconds, count = said["seconds"] - start, said["pairs"]
        cores, size = cpu.usable_cpus(), files[0].stat().st_size / count
        print(f"{arguments.model} on {cores} cores of {cpu.model_name()}, {', '.join(cpu.instruction_sets())}")
        print(f"{count:,} pairs of {said['tokens'] / count:.0f} tokens and {size:.0f} bytes of JSON each\n")
        rate, tokens = count / seconds, said["tokens"] / seconds
        print(f"raskrank score, {files[-1].suffix[1:]}: {rate:,.0f} pairs/s, {tokens:,.0f} tokens/s")
        print(f"before its first pair: {start:.1f} s\n")
        print("time of one core for a pair")
        print_cost("all", count, all_busy)
        for file in files:
            say(f"  finding parts, reading, writing: {file.suffix[1:]}", count, partial(copy, file))
        beside_the_model(model, pairs)
        print(f"\nreckoned from the sample's pairs in a second: {rate:,.0f}\n", *reckoned(rate), sep="\n")
        rate = cores * count / all_busy
        print(f"\nreckoned from the time of a core, if all {cores} were free: {rate:,.0f}\n", *reckoned(rate), sep="\n")


if __name__ == "__main__":
    main()
