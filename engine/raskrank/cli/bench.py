"""`raskrank bench`, from its arguments to what it prints."""

import argparse
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory

from raskrank.cli.shared import form_of
from raskrank.documents import read_documents
from raskrank.errors import InputError
from raskrank.extras import need_exporter
from raskrank.measure.bench import measure
from raskrank.measure.bench_report import to_dict, to_text
from raskrank.measure.contenders import PLAIN, PlainExport
from raskrank.measure.passages import QUERY, Workload, from_samples, from_texts
from raskrank.measure.progress import step
from raskrank.printable import safe_lines
from raskrank.process import threads
from raskrank.settings import choose_for_command
from raskrank.terminal import Steps, is_terminal, say, show, to_json

MAX_PASSAGES = 1000  # more say nothing new, and Kendall's tau compares each with each


def run(arguments: argparse.Namespace) -> int:
    """Measure, print, and return the exit code. --texts: passages of the user's; default: some made from our samples."""
    against = arguments.against or ()
    for what in against:
        need_exporter(f"--against {what}")
    if arguments.passages > MAX_PASSAGES:
        raise InputError(f"--passages: expected at most {MAX_PASSAGES}, got {arguments.passages}")
    if arguments.checkpoint is not None and not against:
        raise InputError("--checkpoint: only --against uses one; add that, or leave it out")
    source, workloads = _workloads(arguments)
    bundles = [choose_for_command(model, say).path for model in arguments.models or [None]]
    checkpoint = None if arguments.checkpoint is None else Path(arguments.checkpoint)
    progress = Steps(sys.stderr) if is_terminal(sys.stderr) else None
    with _plain_export(bundles[0], checkpoint, progress) if "plain" in against else nullcontext() as plain:
        found = measure(
            bundles,
            workloads,
            QUERY if arguments.query is None else arguments.query,
            source=source,
            seconds=arguments.seconds,
            threads=threads.choose(arguments.threads).number,
            backend=arguments.backend,
            against_torch="torch" in against,
            plain=plain,
            checkpoint=checkpoint,
            progress=progress,
        )
    show(to_json(to_dict(found), indent=2) if arguments.json else safe_lines(to_text(found)))
    return 0


@contextmanager
def _plain_export(bundle: Path, checkpoint: Path | None, progress: Steps | None) -> Iterator[PlainExport]:
    """That of the checkpoint that the bundle was made from, in a temporary folder until the block ends."""
    from raskrank_export.plain import plain_export

    with TemporaryDirectory(prefix="raskrank-") as scratch:
        folder = Path(scratch) / "plain"
        with step(progress, f"make {PLAIN}"):
            made = plain_export(bundle, folder, checkpoint=checkpoint)
        yield PlainExport(folder=folder, checkpoint=made.checkpoint, made=made.by)


def _workloads(arguments: argparse.Namespace) -> tuple[str, list[Workload]]:
    """Where the passages are from, for the report, and the passages."""
    if arguments.texts is None:
        for option in ("field", "title_field", "format"):
            if getattr(arguments, option) is not None:
                raise InputError(f"--{option.replace('_', '-')}: only --texts uses it; name a file with texts, or leave it out")
        return "made from our samples in Norwegian and English", from_samples(arguments.passages)
    name, documents = read_documents(arguments.texts, form_of(arguments))
    if not documents:
        raise InputError(f"{name} holds no text; expected one a line, or another form that `rank` reads")
    used = min(arguments.passages, len(documents))
    part = f"{used} of {len(documents)}" if used < len(documents) else f"all {used}"
    return f"{part} texts of {name}", from_texts([document.text for document in documents], arguments.passages)
