"""The command line, a function a command. The only engine file that knows the exporter, and only inside a command."""

import argparse
import logging
import os
import shlex
import sys
import textwrap
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from raskrank import license
from raskrank.bundle import read_manifest
from raskrank.checkpoint.registry import DEFAULT_MODEL
from raskrank.cli.arguments import parse
from raskrank.documents import TITLE_FIELD, Document, Form, read_documents
from raskrank.errors import (
    InputError,
    MissingExtra,
    MissingFile,
    NonFiniteScore,
    ParityError,
    RaskrankError,
    RaskrankWarning,
)
from raskrank.extras import need
from raskrank.manifest import Manifest
from raskrank.quoting import shown
from raskrank.reranker import Ranked, Reranker
from raskrank.samples import as_pairs, read_samples
from raskrank.settings import ENVIRONMENT, Choice, choose_for_command, default_output, value_for
from raskrank.terminal import (
    Bar,
    OutputError,
    Steps,
    columns,
    is_terminal,
    open_standard_streams,
    safe_lines,
    say,
    show,
    table,
    to_json,
)

PROGRESS_DOCUMENTS = 200  # fewer are ranked before a bar says anything
# The extra, and the packages in it.
EXPORTER = ("export", "huggingface_hub", "onnx", "optimum", "safetensors", "torch", "transformers")


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code. argv: arguments without the program's name, by default the process's own."""
    try:
        open_standard_streams()
        for stream in (sys.stdout, sys.stderr):
            with suppress(AttributeError, ValueError):  # closed, or replaced by an object without an encoding
                stream.reconfigure(encoding="utf-8", errors="backslashreplace")  # type: ignore[union-attr]
        with _warnings_shown():
            return _run(sys.argv[1:] if argv is None else argv)
    except KeyboardInterrupt:
        say("interrupted")
        return 130
    except (InputError, MissingExtra, MissingFile) as error:
        say(f"error: {error}")
        return 2
    except (RaskrankError, OutputError) as error:
        say(f"error: {error}")
        return 1
    except OSError as error:
        # A path is one that was given, or lies in such a folder; without one it is the system that fails.
        say(f"error: {shown(os.fsdecode(error.filename))}: {error.strerror}" if error.filename else f"error: {error}")
        return 2 if error.filename else 1


def _run(argv: Sequence[str]) -> int:
    try:
        arguments = parse(argv)
    except SystemExit as done:  # how argparse ends --help and --version
        if not done.code:
            show("", end="")  # argparse lets what it wrote wait
        return int(done.code or 0)
    return COMMANDS[arguments.command](arguments)


def _export(arguments: argparse.Namespace) -> int:
    need("export", *EXPORTER)
    from raskrank_export import Thresholds, export

    shown = is_terminal(sys.stderr)
    if not shown:
        from huggingface_hub.utils.tqdm import disable_progress_bars

        disable_progress_bars()
    asked = {"min_tau": arguments.min_tau, "max_drift": arguments.max_drift}
    model = DEFAULT_MODEL if arguments.model is None else arguments.model
    if arguments.output is None and arguments.trim_vocab:
        raise InputError(
            "OUTPUT is missing: in the cache a trimmed bundle would stand for the whole model; name a folder for it"
        )
    output = default_output(model, arguments.precision) if arguments.output is None else Path(arguments.output)
    report = export(
        model,
        output,
        precision=arguments.precision,
        scheme=arguments.scheme,
        target=arguments.target,
        revision=arguments.revision,
        max_length=arguments.max_length,
        samples=arguments.samples,
        trim_vocab=arguments.trim_vocab,
        trim_form=_form(arguments),
        accept_license=arguments.accept_license,
        thresholds=Thresholds(**{name: value for name, value in asked.items() if value is not None}),
        overwrite=arguments.overwrite,
        progress=Steps(sys.stderr) if shown else None,
    )
    if arguments.json:
        show(to_json(report.to_dict(), indent=2))
    else:
        show(safe_lines(f"{report}\nuse it with {ENVIRONMENT}={shlex.quote(value_for(model, output))}"))
    return 0


def _rank(arguments: argparse.Namespace) -> int:
    if arguments.backend == "torch":
        need("--backend torch", *EXPORTER)
    name, documents = read_documents(arguments.file, _form(arguments))
    if any(document.untold_title for document in documents):
        say(f'note: "{TITLE_FIELD}" is not ranked; --title-field {TITLE_FIELD} puts it in front of each text')
    texts = [document.text for document in documents]
    checkpoint_alone = arguments.backend == "torch" and arguments.bundle is None and arguments.checkpoint is not None
    with Reranker.load(
        None if checkpoint_alone else _choose(arguments),
        threads=arguments.threads,
        backend=arguments.backend,
        fallback=arguments.fallback,
        checkpoint=arguments.checkpoint,
        ignore_target=arguments.ignore_target,
        map_weights=arguments.map_weights,
    ) as reranker:
        with _bar("ranking", len(texts)) if len(texts) > PROGRESS_DOCUMENTS else nullcontext() as bar:
            reranker._advance = bar.advance if bar else None
            try:
                hits = reranker.rank(arguments.query, texts, top_k=arguments.top_k, raw_scores=arguments.raw_scores)
            except NonFiniteScore as error:
                raise NonFiniteScore(f"{name}: {_broken(error, documents)}", error.indices) from error
        info = reranker.info()
        if note := license.note(info.name, info.license):
            say(note)
        if arguments.json:
            show(_ranking_json(hits, documents))
        elif hits:
            show("\n".join(_ranking_table(hits, documents, info.max_length)))
        else:
            say(f"{name} holds no document")
    return 0


def _info(arguments: argparse.Namespace) -> int:
    choice = _choose(arguments)
    manifest, _ = read_manifest(choice.path)
    with Reranker.load(choice, ignore_target=arguments.ignore_target) as reranker:
        info = reranker.info()
    if arguments.json:
        show(to_json({**asdict(info), "parity": manifest.parity}, indent=2))
    else:
        show("\n".join([safe_lines(str(info)), *_parity_table(manifest)]))
    return 0


def _verify(arguments: argparse.Namespace) -> int:
    path = _choose(arguments).path
    need("verify", *EXPORTER)
    pairs = as_pairs(read_samples(None if arguments.pairs is None else Path(arguments.pairs)))
    with Reranker.load(path, checkpoint=arguments.checkpoint) as reranker:
        info = reranker.info()
        with _bar("verifying", 2 * len(pairs)) as bar:  # each is scored twice
            reranker._advance = bar.advance if bar else None
            found = reranker.verify(pairs)
    if arguments.json:
        about = {"name": info.name, "bundle": str(path), "precision": info.precision, "passed": found.passed}
        judged = {"failed": [*found.failed], "thresholds": found.thresholds, "parity": found.summary()}
        show(to_json({**about, **judged}, indent=2))
    else:
        show(str(found))
    if not found.passed:
        raise ParityError(f"{path}: the bundle differs from its checkpoint: {'; '.join(found.failed.values())}")
    return 0


def _compare(arguments: argparse.Namespace) -> int:
    if arguments.against == "torch":
        need("--against torch", *EXPORTER)
    from raskrank.cli import compare

    return compare.run(arguments)


def _bench(arguments: argparse.Namespace) -> int:
    if arguments.against == "torch":
        need("--against torch", *EXPORTER)
    from raskrank.cli import bench

    return bench.run(arguments)


def _form(arguments: argparse.Namespace) -> Form:
    return Form(format=arguments.format, field=arguments.field, title_field=arguments.title_field)


def _choose(arguments: argparse.Namespace) -> Choice:
    return choose_for_command(arguments.bundle, say)


def _parity_table(manifest: Manifest) -> list[str]:
    """What the export measured, as far as the manifest has it."""
    rows = []
    for name in ("fp32", "trimmed", "int8"):
        numbers: Any = manifest.parity.get(name)
        with suppress(TypeError, KeyError, ValueError, OverflowError):
            rows.append(
                [
                    f"onnx {name}",
                    f"{numbers['tau']:.4f}",
                    f"{numbers['top1']:.1%}",
                    f"{numbers['max_drift']:.4f}",
                    f"{numbers['mean_drift']:.4f}",
                    f"{numbers['max_logit_difference']:.2g}",
                    f"{int(numbers['pairs'])}{'*' if numbers['part'] == 'held back' else ''}",
                ]
            )
    if not rows:
        return []
    note = ["* the half of the samples that the repair of int8 was not chosen on"] if rows[-1][-1].endswith("*") else []
    header = ["", "Kendall tau", "top-1", "max drift", "mean drift", "max logit diff.", "pairs"]
    return ["", "parity with the checkpoint, as measured by the export", *table(header, rows, columns(sys.stdout)), *note]


def _ranking_json(hits: Sequence[Ranked], documents: Sequence[Document]) -> str:
    """A JSON array with one object a line."""
    rows = []
    for rank, hit in enumerate(hits, 1):
        document = documents[hit.index]
        row = {"rank": rank, "index": hit.index, document.unit: document.number, **document.extra}
        rows.append(to_json({**row, "score": hit.score, "truncated": hit.truncated, "text": document.text}))
    return "[\n" + ",\n".join(rows) + "\n]" if rows else "[]"


def _ranking_table(hits: Sequence[Ranked], documents: Sequence[Document], max_length: int) -> list[str]:
    limit, truncated = columns(sys.stdout), any(hit.truncated for hit in hits)
    marks = {False: [""], True: ["*"]} if truncated else {False: []}  # the column is there only if it says something
    rows = [
        [
            str(rank),
            f"{hit.score:.4f}",
            str(documents[hit.index].number),
            *marks[hit.truncated],
            documents[hit.index].text,
        ]
        for rank, hit in enumerate(hits, 1)
    ]
    lines = table(["rank", "score", documents[0].unit, *marks[False], "text"], rows, limit)
    if truncated:
        note = f"* not read to its end: the model reads {max_length} tokens of query and document"
        lines += ["", *textwrap.wrap(note, limit, subsequent_indent="  ")]
    return lines


def _broken(error: NonFiniteScore, documents: Sequence[Document]) -> str:
    numbers = ", ".join(str(documents[index].number) for index in error.indices[:10])
    return f"scores are NaN or infinite on {documents[0].unit}s {numbers}{', ...' if len(error.indices) > 10 else ''}"


def _bar(name: str, total: int) -> "Bar | nullcontext[None]":
    return Bar(name, total, sys.stderr) if is_terminal(sys.stderr) else nullcontext()


@contextmanager
def _warnings_shown() -> Iterator[None]:
    """The engine's log of warnings goes to standard error while a command runs."""
    handler, logger = _LogLines(logging.WARNING), logging.getLogger("raskrank")
    logger.addHandler(handler)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RaskrankWarning)  # the log has them, too
            yield
    finally:
        logger.removeHandler(handler)


class _LogLines(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        say(f"{record.levelname.lower()}: {record.getMessage()}")


COMMANDS: Mapping[str, Callable[[argparse.Namespace], int]] = {
    "export": _export,
    "rank": _rank,
    "info": _info,
    "verify": _verify,
    "compare": _compare,
    "bench": _bench,
}
