"""`raskrank compare`, from its arguments to what it prints."""

import argparse
import platform
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from raskrank import cpu, license
from raskrank.errors import InputError
from raskrank.extras import need_exporter
from raskrank.measure.bm25 import Bm25
from raskrank.measure.candidates import Task, make_tasks
from raskrank.measure.chart import check_chart, draw_chart
from raskrank.measure.compare import About, measure
from raskrank.measure.compare_report import to_dict, to_markdown
from raskrank.measure.contender import Contender
from raskrank.measure.contenders import loaded_for_comparison
from raskrank.measure.data import Data, read_data, read_samples
from raskrank.printable import safe_lines
from raskrank.process import threads
from raskrank.settings import choose_for_command
from raskrank.terminal import Steps, is_terminal, say, show, to_json

MIN_CANDIDATES = 2  # fewer have no order
PACKAGES = {
    "native": ("tokenizers",),
    "onnx": ("onnxruntime", "tokenizers"),
    "torch": ("torch", "transformers"),
    "bi-encoder": ("sentence-transformers",),
    "bm25": ("bm25s",),
    "cascade": (),
}
OWN = "Raskrank's samples"  # the data of a call that names none


def run(arguments: argparse.Namespace) -> int:
    """Compare, print, and return the exit code. Default for --data: our own samples."""
    if arguments.against == "torch":
        need_exporter("--against torch")
    if arguments.candidates < MIN_CANDIDATES:
        raise InputError(f"--candidates: expected at least {MIN_CANDIDATES}, got {arguments.candidates}")
    _check_cascade(arguments)
    chart = None if arguments.chart is None else Path(arguments.chart)
    if chart:
        check_chart(chart)
    data = read_data(Path(arguments.data)) if arguments.data else read_samples()
    tasks = make_tasks(data, queries=arguments.queries, candidates=arguments.candidates)
    loading = loaded_for_comparison(
        [choose_for_command(model, say).path for model in arguments.models or [None]],
        threads=threads.choose(None).number,
        backend=arguments.backend,
        against_torch=arguments.against == "torch",
        cascade=arguments.cascade,
        others=_others(arguments, data),
    )
    with loading as contenders:
        for contender in contenders:
            if note := license.note(contender.name, contender.license):
                say(note)
        about = _about(arguments.data or OWN, tasks, contenders)
        results = measure(contenders, tasks, Steps(sys.stderr) if is_terminal(sys.stderr) else None)
    if chart:
        draw_chart(results, about, chart)
    show(to_json(to_dict(results, about), indent=2) if arguments.json else safe_lines(to_markdown(results, about)))
    if chart:
        say(f"the chart is in {chart}")
    return 0


def _check_cascade(arguments: argparse.Namespace) -> None:
    keep, models = arguments.cascade, len(arguments.models)
    if keep and len(keep) != models - 1:
        raise InputError(f"--cascade: expected a number for each MODEL but the last, got {len(keep)} for {models} models")
    if keep and keep[0] >= arguments.candidates:
        raise InputError(
            f"--cascade: {keep[0]} documents of {arguments.candidates} are all of them, so that nothing is pruned; "
            "name fewer, or more with --candidates"
        )


def _others(arguments: argparse.Namespace, data: Data) -> list[Contender]:
    """What the models are compared with beside one another."""
    others: list[Contender] = [Bm25(data.passages)] if arguments.bm25 else []
    if arguments.bi_encoder is not None:
        from raskrank.measure.bi_encoder import BiEncoder

        others.append(BiEncoder(arguments.bi_encoder))
    return others


def _about(data: str, tasks: Sequence[Task], contenders: Sequence[Contender]) -> About:
    backends = dict.fromkeys(contender.backend for contender in contenders)
    packages = dict.fromkeys(["raskrank", *(package for backend in backends for package in PACKAGES[backend])])
    machine = (cpu.model_name(), f"{cpu.usable_cpus()} usable CPUs", *cpu.instruction_sets())
    return About(
        data=data,
        queries=len(tasks),
        candidates=max(len(task.documents) for task in tasks),
        machine=", ".join(machine),
        date=datetime.now(UTC).date().isoformat(),
        versions={"Python": platform.python_version(), **{package: version(package) for package in packages}},
    )
