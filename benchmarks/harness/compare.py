"""Raskrank and its peers side by side: speed, start, memory, threads, and the share of what the machine could do.

    python -m benchmarks.harness.environments        once: an environment for each group of peers
    python -m benchmarks.peers [--model minilm]      about a quarter of an hour on two cores

Writes build/bench/results/MODEL.json, and from it a page (.md) and a chart (.png). Workloads that are not measured unless
asked for: long-100 and mixed-1000, which take peers minutes a round.
"""

import argparse
import platform
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, replace
from datetime import UTC, datetime
from fnmatch import fnmatch
from pathlib import Path

from benchmarks.harness import discovery, environments, exports, limits, results, speed, start, workloads
from benchmarks.harness.contender import OURS, Contender, Setup
from benchmarks.harness.models import HELP, WORK, bundle, checkpoint, manifest, plain_tokenizer
from benchmarks.harness.report import write_report
from benchmarks.harness.results import Limits, Participant, Result, Share
from benchmarks.harness.speed import Running
from benchmarks.harness.workers import WorkerError, WorkerProcess
from raskrank import cpu

PARTS = ("speed", "start", "threads", "limits")


def main() -> None:
    arguments = parse()
    cores = cpu.usable_cpus()
    setup = discovery.setup(arguments.model, cores)
    chosen = [
        contender
        for contender in discovery.contenders(setup)
        if contender.name == OURS or not arguments.only or any(fnmatch(contender.name, pattern) for pattern in arguments.only)
    ]
    chosen = prepare(setup, chosen)
    result = describe(arguments.model, chosen, cores)
    measured = [workload for workload in workloads.WORKLOADS if workload.name in arguments.workloads]
    if "speed" in arguments.parts:
        compare_speed(result, chosen, measured, cores, arguments)
    if "start" in arguments.parts:
        cold = [contender for contender in chosen if contender.cold and not result["contenders"][contender.name]["problem"]]
        result["start"], problems = start.measure(cold, cores, arguments.start_rounds, say)
        for name, problem in problems.items():
            result["contenders"][name]["problem"] = problem
    if "threads" in arguments.parts or "limits" in arguments.parts:
        compare_threads(result, chosen[0], cores, arguments)
    if "limits" in arguments.parts:
        result["limits"] = measure_limits(result, arguments.model, cores)
    results.write(result, arguments.output)
    print(arguments.output, *write_report(result, arguments.output.parent, arguments.output.stem), sep="\n")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [workload.name for workload in workloads.WORKLOADS]
    usual = [workload.name for workload in workloads.WORKLOADS if workload.usual]
    parser.add_argument("--model", default="nano", help=HELP)
    parser.add_argument("--workloads", nargs="+", choices=names, default=usual, metavar="NAME", help=", ".join(names))
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS, metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--only", nargs="+", metavar="NAME", help="these peers beside ours; * stands for anything")
    parser.add_argument("--rounds", type=int, help="of every workload, instead of each one's own number")
    parser.add_argument("--start-rounds", type=int, default=3)
    parser.add_argument("--output", type=Path, help="the result file; default build/bench/results/MODEL.json")
    arguments = parser.parse_args()
    arguments.output = arguments.output or WORK / "results" / f"{checkpoint(arguments.model).name}.json"
    return arguments


def say(line: str) -> None:
    print(f"{datetime.now():%H:%M:%S}  {line}", file=sys.stderr, flush=True)


def prepare(setup: Setup, chosen: Sequence[Contender]) -> list[Contender]:
    """The peers' files are made; who cannot be measured has its reason."""
    problems: dict[Path, str | None] = {}

    def problem(contender: Contender) -> str | None:
        if reason := contender.problem or environments.problem(contender.environment):
            return reason
        if (export := contender.export) is None:
            return None
        if export.folder not in problems:
            say(f"files of {export.folder.name}")
            problems[export.folder] = exports.make(export, setup.checkpoint)
        return problems[export.folder]

    return [replace(contender, problem=problem(contender)) for contender in chosen]


def describe(model: str, chosen: Sequence[Contender], cores: int) -> Result:
    """A result with nothing measured yet."""
    ours = manifest(bundle(model, "int8"))
    return Result(
        format=results.FORMAT,
        model=checkpoint(model).name,
        architecture=ours.architecture,
        parameters=ours.parameters,
        date=datetime.now(UTC).date().isoformat(),
        machine={
            "cpu": cpu.model_name(),
            "cores": cores,
            "instruction_sets": list(cpu.instruction_sets()),
            "system": f"{platform.system()} {platform.release().partition('-')[0]}",
            "python": platform.python_version(),
        },
        texts=workloads.source(),
        contenders={
            contender.name: Participant(setting=contender.setting, versions={}, problem=contender.problem)
            for contender in chosen
        },
        workloads={},
        start={},
        threads={},
        limits=None,
    )


def compare_speed(
    result: Result,
    chosen: Sequence[Contender],
    measured: Sequence[workloads.Workload],
    cores: int,
    arguments: argparse.Namespace,
) -> None:
    """All contenders loaded at once, one at work at a time."""
    tokenizer, max_length = plain_tokenizer(arguments.model), manifest(bundle(arguments.model, "int8")).max_length
    with ExitStack() as stack:
        running = [entry for contender in chosen if (entry := launch(stack, contender, cores, result)) is not None]
        for workload in measured:
            rounds = arguments.rounds or workload.rounds
            result["workloads"][workload.name] = speed.measure(workload, running, tokenizer, max_length, rounds, say)
            results.write(result, arguments.output)
        for entry in running:
            result["contenders"][entry.contender.name]["problem"] = entry.problem


def launch(stack: ExitStack, contender: Contender, threads: int, result: Result) -> Running | None:
    """A contender in its process, loaded; None with the reason in the result."""
    about = result["contenders"][contender.name]
    if about["problem"] is not None:
        return None
    say(f"load {contender.name}")
    process = WorkerProcess.of(contender, threads)
    stack.callback(process.close)
    try:
        probabilities = process.load()
        about["versions"] = process.versions(contender.packages)
    except WorkerError as error:
        about["problem"] = str(error)
        return None
    return Running(contender, process, probabilities)


def compare_threads(result: Result, ours: Contender, cores: int, arguments: argparse.Namespace) -> None:
    """Raskrank with 1, 2, 4 ... threads up to all cores, interleaved: the single pair, and the main workload."""
    tokenizer, max_length = plain_tokenizer(arguments.model), manifest(bundle(arguments.model, "int8")).max_length
    with ExitStack() as stack:
        running = []
        for count in thread_counts(cores):
            contender = replace(ours, name=str(count), options={**ours.options, "threads": count})
            process = WorkerProcess.of(contender, count)
            stack.callback(process.close)
            running.append(Running(contender, process, process.load()))
        for workload in workloads.WORKLOADS:
            if workload.name in (workloads.PAIR, workloads.MAIN):
                rounds = arguments.rounds or workload.rounds
                timings = speed.measure(workload, running, tokenizer, max_length, rounds, say)["contenders"]
                result["threads"][workload.name] = {count: timing["seconds"] for count, timing in timings.items()}


def thread_counts(cores: int) -> list[int]:
    """1, 2, 4 ... below `cores`, and `cores` itself."""
    return [count for count in (2**power for power in range(cores.bit_length())) if count < cores] + [cores]


def measure_limits(result: Result, model: str, cores: int) -> Limits:
    """Peaks on one thread and on all, and the share of the limit that Raskrank reaches: one pair on one, the rest on all."""
    dimensions, tokenizer = limits.Dimensions.read(checkpoint(model)), plain_tokenizer(model)
    max_length = manifest(bundle(model, "int8")).max_length
    say("matrix peaks")
    peaks = {threads: limits.measure_peaks(threads) for threads in dict.fromkeys((1, cores))}
    shares = []
    for name, threads in ((workloads.PAIR, 1), (workloads.MAIN, cores)):
        workload = next(workload for workload in workloads.WORKLOADS if workload.name == name)
        lengths = speed.lengths(*workloads.texts(workload, tokenizer), tokenizer, max_length)
        limit = limits.limit_seconds(dimensions, lengths, peaks[threads])
        seconds = result["threads"][name][str(threads)]
        shares.append(Share(title=workload.title, threads=threads, limit=limit, seconds=seconds))
    return Limits(peaks={str(threads): asdict(peak) for threads, peak in peaks.items()}, shares=shares)


if __name__ == "__main__":
    main()
