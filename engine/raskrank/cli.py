"""The command line: export, rank, info, verify. The only engine file that knows the exporter, and only inside a command."""

import argparse
import importlib.util
import json
import logging
import sys
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

import raskrank
from raskrank.bundle import Manifest, read_manifest
from raskrank.errors import Corrupt, InputError, LimitError, MissingFile, NonFiniteScore, ParityError, RaskrankError
from raskrank.loading import ENVIRONMENT, bundle_path
from raskrank.parity import compare
from raskrank.reranker import Ranked, Reranker
from raskrank.terminal import Bar, Steps, columns, is_terminal, safe_lines, say, show, table, to_json
from raskrank.texts import Limits

PROGRESS_DOCUMENTS = 200  # fewer are ranked before a bar says anything
READ_BYTES = 1 << 16  # of standard input at once, what a pipe holds
VERIFY_PAIRS = 16  # compared together; only the progress bar sees the difference
EXTRA = ("huggingface_hub", "onnx", "optimum", "safetensors", "torch", "transformers")
# A threshold of the manifest -> the property of Parity, its name, and what it must be. The exporter's gate asks the same.
CHECKS: Mapping[str, Mapping[str, tuple[str, str, str]]] = {
    "fp32": {"max_fp32_logit_difference": ("max_logit_difference", "largest logit difference", "<=")},
    "int8": {
        "min_tau": ("tau", "Kendall tau", ">="),
        "min_top1": ("top1", "top-1 agreement", ">="),
        "max_drift": ("max_drift", "largest score drift", "<="),
        "max_mean_drift": ("mean_drift", "mean score drift", "<="),
    },
}
WRONG_USE = "wrong use: arguments, input that cannot be read, no such bundle"


@dataclass(frozen=True, kw_only=True)
class Document:
    """A document of the input. line: counted from 1. extra: {"id": ...} if its JSON object had one."""

    text: str
    line: int
    extra: dict[str, Any]


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code. argv: arguments without the program's name, by default the process's own."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(AttributeError, ValueError):  # closed, or replaced by an object without an encoding
            stream.reconfigure(encoding="utf-8", errors="backslashreplace")  # type: ignore[union-attr]
    try:
        with _warnings_shown():
            arguments = _parse(sys.argv[1:] if argv is None else argv)
            code: int = arguments.run(arguments)
            return code
    except SystemExit as done:  # how argparse ends --help and --version
        show("", end="")
        return int(done.code or 0)
    except KeyboardInterrupt:
        say("interrupted")
        return 130
    except (InputError, MissingFile) as error:
        say(f"error: {error}")
        return 2
    except RaskrankError as error:
        say(f"error: {error}")
        return 1
    except OSError as error:
        say(f"error: {error.filename}: {error.strerror}" if error.filename else f"error: {error}")
        return 1


def _export(arguments: argparse.Namespace) -> int:
    _need_extra("export")
    from raskrank_export import Thresholds, export

    shown = is_terminal(sys.stderr)
    if not shown:
        from huggingface_hub.utils.tqdm import disable_progress_bars

        disable_progress_bars()
    asked = {"min_tau": arguments.min_tau, "max_drift": arguments.max_drift}
    report = export(
        arguments.model,
        arguments.output,
        precision=arguments.precision,
        revision=arguments.revision,
        max_length=arguments.max_length,
        samples=arguments.samples,
        thresholds=Thresholds(**{name: value for name, value in asked.items() if value is not None}),
        overwrite=arguments.overwrite,
        progress=Steps(sys.stderr) if shown else None,
    )
    show(to_json(report.to_dict(), indent=2) if arguments.json else safe_lines(str(report)))
    return 0


def _rank(arguments: argparse.Namespace) -> int:
    if arguments.backend == "torch":
        _need_extra("--backend torch")
    name, documents = _read_documents(arguments.file)
    texts = [document.text for document in documents]
    with Reranker.load(
        arguments.bundle,
        threads=arguments.threads,
        backend=arguments.backend,
        fallback=arguments.fallback,
        checkpoint=arguments.checkpoint,
    ) as reranker:
        with _bar("ranking", len(texts)) if len(texts) > PROGRESS_DOCUMENTS else nullcontext() as bar:
            reranker._advance = bar.advance if bar else None
            try:
                hits = reranker.rank(arguments.query, texts, top_k=arguments.top_k)
            except NonFiniteScore as error:
                raise NonFiniteScore(f"{name}: {_broken(error, documents)}", error.indices) from error
        if arguments.json:
            show(_ranking_json(hits, documents))
        elif hits:
            show("\n".join(_ranking_table(hits, documents, reranker.info().max_length)))
        else:
            say(f"{name} holds no document")
    return 0


def _info(arguments: argparse.Namespace) -> int:
    manifest, _ = read_manifest(bundle_path(arguments.bundle))
    with Reranker.load(arguments.bundle) as reranker:
        info = reranker.info()
    if arguments.json:
        show(to_json({**asdict(info), "parity": manifest.parity}, indent=2))
    else:
        show("\n".join([safe_lines(str(info)), *_parity_table(manifest)]))
    return 0


def _verify(arguments: argparse.Namespace) -> int:
    path = bundle_path(arguments.bundle)
    manifest, _ = read_manifest(path)
    limits = _thresholds(manifest, path)
    _need_extra("verify")
    from raskrank_export.samples import as_pairs, read_samples

    pairs = as_pairs(read_samples(None if arguments.pairs is None else Path(arguments.pairs)))
    with Reranker.load(path, checkpoint=arguments.checkpoint) as reranker, _bar("verifying", len(pairs)) as bar:
        parts = []
        for start in range(0, len(pairs), VERIFY_PAIRS):
            parts.append(reranker.verify(pairs[start : start + VERIFY_PAIRS]))
            if bar:
                bar.advance(len(parts[-1].queries))
    parity = compare(
        pairs,
        (parts[0].reference, np.concatenate([part.reference_logits for part in parts])),
        (parts[0].candidate, np.concatenate([part.candidate_logits for part in parts])),
    )
    failed = {}
    for name, limit in limits.items():
        key, label, sign = CHECKS[manifest.precision][name]
        value = getattr(parity, key)
        if not (value >= limit if sign == ">=" else value <= limit):  # NaN fails
            failed[name] = f"{label} {value:.4g}, allowed {sign} {limit:.4g}"
    if arguments.json:
        about = {"name": manifest.name, "bundle": str(path), "precision": manifest.precision, "passed": not failed}
        show(to_json({**about, "failed": [*failed], "thresholds": limits, "parity": parity.summary()}, indent=2))
    else:
        show(str(parity))
    if failed:
        raise ParityError(f"{path}: the bundle differs from its checkpoint: {'; '.join(failed.values())}")
    if not arguments.json:
        show("passed: " + ", ".join(f"{name} {limit:.4g}" for name, limit in limits.items()))
    return 0


def _thresholds(manifest: Manifest, path: Path) -> dict[str, float]:
    """Those that the manifest records for a bundle of its precision."""
    recorded, found = manifest.parity.get("thresholds"), dict[str, float]()
    for name in CHECKS[manifest.precision]:
        value = recorded.get(name) if isinstance(recorded, dict) else None
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise Corrupt(f"{path}: the manifest records no threshold {name}; export it again")
        found[name] = value
    return found


def _parity_table(manifest: Manifest) -> list[str]:
    """What the export measured, as far as the manifest has it."""
    rows = []
    for name in CHECKS:
        numbers: Any = manifest.parity.get(name)
        with suppress(TypeError, KeyError, ValueError):
            rows.append(
                [
                    f"onnx {name}",
                    f"{numbers['tau']:.4f}",
                    f"{numbers['top1']:.1%}",
                    f"{numbers['max_drift']:.4f}",
                    f"{numbers['mean_drift']:.4f}",
                    f"{numbers['max_logit_difference']:.2g}",
                    str(int(numbers["pairs"])),
                ]
            )
    if not rows:
        return []
    header = ["", "Kendall tau", "top-1", "max drift", "mean drift", "max logit diff.", "pairs"]
    return ["", "parity with the checkpoint, as measured by the export", *table(header, rows, columns(sys.stdout))]


def _ranking_json(hits: Sequence[Ranked], documents: Sequence[Document]) -> str:
    """A JSON array with one object a line."""
    rows = []
    for rank, hit in enumerate(hits, 1):
        document = documents[hit.index]
        row = {"rank": rank, "index": hit.index, "line": document.line, **document.extra}
        rows.append(to_json({**row, "score": hit.score, "truncated": hit.truncated, "text": document.text}))
    return "[\n" + ",\n".join(rows) + "\n]" if rows else "[]"


def _ranking_table(hits: Sequence[Ranked], documents: Sequence[Document], max_length: int) -> list[str]:
    limit, truncated = columns(sys.stdout), any(hit.truncated for hit in hits)
    marks = {False: [""], True: ["*"]} if truncated else {False: []}  # the column is there only if it says something
    rows = [
        [
            str(rank),
            f"{hit.score:.4f}",
            str(documents[hit.index].line),
            *marks[hit.truncated],
            documents[hit.index].text,
        ]
        for rank, hit in enumerate(hits, 1)
    ]
    lines = table(["rank", "score", "line", *marks[False], "text"], rows, limit)
    if truncated:
        note = f"* not read to its end: the model reads {max_length} tokens of query and document"
        lines += ["", *textwrap.wrap(note, limit, subsequent_indent="  ")]
    return lines


def _broken(error: NonFiniteScore, documents: Sequence[Document]) -> str:
    lines = ", ".join(str(documents[index].line) for index in error.indices[:10])
    return f"scores are NaN or infinite on lines {lines}{', ...' if len(error.indices) > 10 else ''}"


def _read_documents(file: str | None) -> tuple[str, list[Document]]:
    """What to call the input, and its documents."""
    stdin = sys.stdin if file in (None, "-") else None
    if file in (None, "-") and (stdin is None or (file is None and stdin.isatty())):
        raise InputError("no documents: name a FILE that has one a line, or pipe them in; - reads what you type")
    name = "standard input" if stdin is not None else str(file)
    try:
        data = Path(name).read_bytes() if stdin is None else _read_all(stdin.buffer)
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{name}: not UTF-8 text at byte {error.start}") from None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        raise InputError(f"{name}: cannot be read: {getattr(error, 'strerror', None) or error}") from error
    lines = [(number, line.removesuffix("\r")) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
    if name.lower().endswith(".jsonl") or (lines and _is_document(lines[0][1])):
        documents = [_parse_line(line, number, f"{name}, line {number}") for number, line in lines]
    else:
        documents = [Document(text=line, line=number, extra={}) for number, line in lines]
    limit = Limits().max_text_chars
    for document in documents:
        if len(document.text) > limit:
            raise LimitError(f"{name}, line {document.line}: {len(document.text)} characters, more than {limit}")
    return name, documents


def _read_all(stream: Any) -> bytes:
    """In parts: within one long read Python may miss a Ctrl-C."""
    return b"".join(iter(lambda: stream.read1(READ_BYTES), b""))


def _is_document(line: str) -> bool:
    """Whether a first line says that the input is JSON Lines."""
    try:
        data = json.loads(line)
    except (ValueError, RecursionError):
        return False
    return isinstance(data, dict) and "text" in data


def _parse_line(line: str, number: int, where: str) -> Document:
    """Messages name the line and never quote it."""
    try:
        data = json.loads(line)
    except json.JSONDecodeError as error:
        raise InputError(f"{where}: not JSON: {error.msg} at character {error.pos}") from None
    except (ValueError, RecursionError):
        raise InputError(f"{where}: JSON with numbers that are too long, or nested too deeply") from None
    if not isinstance(data, dict) or not isinstance(data.get("text"), str):
        raise InputError(f'{where}: expected a JSON object with "text", a string')
    try:
        data["text"].encode()
    except UnicodeEncodeError as error:
        raise InputError(f"{where}: not valid Unicode, a lone surrogate at character {error.start} of the text") from None
    return Document(text=data["text"], line=number, extra={"id": data["id"]} if "id" in data else {})


class _Parser(argparse.ArgumentParser):
    """Raises its errors as InputError."""

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message} (see: {self.prog} --help)")


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = _parser()
    if not argv:
        parser.print_help(sys.stderr)
        parser.exit(2)
    arguments, rest = parser.parse_known_args(argv)
    # argparse gives up on an optional positional that comes after an option: rank QUERY --top-k 3 FILE
    if len(rest) == 1 and getattr(arguments, "file", "") is None and (rest[0] == "-" or not rest[0].startswith("-")):
        arguments.file = rest.pop()
    if rest:
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    return arguments


def _parser() -> argparse.ArgumentParser:
    raw = argparse.RawDescriptionHelpFormatter
    parser = _Parser(
        prog="raskrank",
        description="Rerank documents on ordinary CPUs with a cross-encoder.",
        epilog='example:\n  raskrank rank "Hvem kan Python?" cvs.txt',
        formatter_class=raw,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"raskrank {raskrank.__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    def add(
        name: str, run: Callable[[argparse.Namespace], int], summary: str, more: str, example: str, failure: str, *extra: str
    ) -> _Parser:
        codes = f"  0    done\n  1    {failure}\n  2    {WRONG_USE}\n  130  interrupted"
        command: _Parser = commands.add_parser(
            name,
            help=summary,
            description="\n".join([f"{summary[0].upper()}{summary[1:]}.", "", *textwrap.wrap(more, 78), *extra]),
            epilog=f"example:\n{textwrap.indent(example, '  ')}\n\nexit codes:\n{codes}",
            formatter_class=raw,
            allow_abbrev=False,
        )
        command.set_defaults(run=run)
        command.add_argument("--json", action="store_true", help="print JSON, and nothing else, on standard output")
        return command

    bundle = f"folder of a bundle; without, the one that {ENVIRONMENT} names, else the embedded model"
    needs = "Needs: pip install 'raskrank[export]'"
    checkpoint = "folder of the checkpoint that the bundle was made from; without, where its manifest says"

    command = add(
        "export",
        _export,
        "turn a Hugging Face cross-encoder into a bundle",
        "The bundle is compared with the checkpoint in PyTorch before it is written; where it would rank differently, nothing "
        "is written.",
        "raskrank export BAAI/bge-reranker-base bundles/bge-reranker-base\n"
        'raskrank rank --bundle bundles/bge-reranker-base "Hvem kan Python?" cvs.txt',
        "no cross-encoder, or the bundle would rank differently: not written",
        needs,
    )
    command.add_argument("model", metavar="MODEL", help="a checkpoint's folder, or owner/name on the Hugging Face hub")
    command.add_argument("output", metavar="OUTPUT", help="folder to write the bundle to")
    command.add_argument("--precision", choices=("int8", "fp32"), default="int8", help="of the weights (default: int8)")
    command.add_argument("--revision", metavar="R", help="branch, tag or commit on the hub (default: main)")
    command.add_argument(
        "--max-length", metavar="N", type=_count, help="tokens of query and document (default: all that the checkpoint allows)"
    )
    command.add_argument(
        "--samples",
        metavar="FILE",
        help='judge the bundle on these: {"query": ..., "documents": [...]} a line, or .tsv with query and document a line '
        "(default: a set in Norwegian and English)",
    )
    command.add_argument("--min-tau", metavar="T", type=float, help="lowest Kendall tau, -1 to 1, for int8")
    command.add_argument("--max-drift", metavar="D", type=float, help="largest drift of a score, 0 to 1, for int8")
    command.add_argument("--overwrite", action="store_true", help="replace a bundle at OUTPUT")

    command = add(
        "rank",
        _rank,
        "rank documents for a query, best first",
        "The input is UTF-8 with one document a line; blank lines are no documents. It is read as JSON Lines, each an object "
        'with "text" and perhaps "id", where the file name ends in .jsonl or the first line is such an object.',
        'raskrank rank "Hvem kan Python?" cvs.txt --top-k 5\n'
        "cat cvs.jsonl | raskrank rank --json -- \"-5 grader\" - | jq '.[0].id'",
        "the bundle is broken, or a score is no number",
    )
    command.add_argument("query", metavar="QUERY", help="what the documents are ranked for; after -- it may begin with -")
    command.add_argument("file", metavar="FILE", nargs="?", help="the documents; - or nothing: standard input")
    command.add_argument("--bundle", metavar="B", help=bundle)
    command.add_argument("--top-k", metavar="K", type=_count, help="print only the K best (default: all)")
    command.add_argument("--threads", metavar="N", type=_count, help="CPUs to use (default: all that this process may)")
    command.add_argument(
        "--fallback", choices=("torch",), help="let PyTorch score what the bundle cannot; each time it does is a warning"
    )
    command.add_argument("--backend", choices=("onnx", "torch"), default="onnx", help="run the bundle, or its checkpoint")
    command.add_argument("--checkpoint", metavar="C", help=checkpoint)

    command = add(
        "info",
        _info,
        "say what runs, on what, and why",
        "Loads the bundle as `rank` does, and adds what its export measured against the checkpoint.",
        "raskrank info --bundle bundles/bge-reranker-base",
        "the bundle is broken",
    )
    command.add_argument("--bundle", metavar="B", help=bundle)

    command = add(
        "verify",
        _verify,
        "compare a bundle with its checkpoint in PyTorch",
        "Scores the same pairs with both, and holds the differences against the thresholds in the bundle's manifest.",
        "raskrank verify --bundle bundles/bge-reranker-base --pairs pairs.jsonl",
        "the bundle fails a threshold or is broken, or the checkpoint is another",
        needs,
    )
    command.add_argument("--bundle", metavar="B", help=bundle)
    command.add_argument("--checkpoint", metavar="C", help=checkpoint)
    command.add_argument(
        "--pairs",
        metavar="FILE",
        help='{"query": ..., "documents": [...]} a line, or .tsv with query and document a line (default: the samples that '
        "exports are judged on)",
    )
    return parser


def _count(text: str) -> int:
    with suppress(ValueError):
        if (number := int(text)) >= 1:
            return number
    raise argparse.ArgumentTypeError(f"expected a whole number of at least 1, got {text!r}")


def _need_extra(what: str) -> None:
    """Refuses early, before anything is read or loaded."""
    if missing := [name for name in EXTRA if importlib.util.find_spec(name) is None]:
        raise InputError(f"{what} needs {', '.join(missing)}; install it with: pip install 'raskrank[export]'")


def _bar(name: str, total: int) -> "Bar | nullcontext[None]":
    return Bar(name, total, sys.stderr) if is_terminal(sys.stderr) else nullcontext()


@contextmanager
def _warnings_shown() -> Iterator[None]:
    """The engine's log of warnings goes to standard error while a command runs."""
    handler, logger = _LogLines(logging.WARNING), logging.getLogger("raskrank")
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)


class _LogLines(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        say(f"{record.levelname.lower()}: {record.getMessage()}")
