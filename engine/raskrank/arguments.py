"""What the command line takes: options, help texts, exit codes."""

import argparse
import sys
import textwrap
from collections.abc import Sequence
from contextlib import suppress
from typing import NoReturn

import raskrank
from raskrank.errors import InputError
from raskrank.loading import ENVIRONMENT

WRONG_USE = "wrong use: arguments, input that cannot be read, no such bundle"


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """The arguments of a command, whose name is `command`. Raises InputError; SystemExit after --help and --version."""
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

    def add(name: str, summary: str, more: str, example: str, failure: str, *extra: str) -> _Parser:
        codes = f"  0    done\n  1    {failure}\n  2    {WRONG_USE}\n  130  interrupted"
        command: _Parser = commands.add_parser(
            name,
            help=summary,
            description="\n".join([f"{summary[0].upper()}{summary[1:]}.", "", *textwrap.wrap(more, 78), *extra]),
            epilog=f"example:\n{textwrap.indent(example, '  ')}\n\nexit codes:\n{codes}",
            formatter_class=raw,
            allow_abbrev=False,
        )
        command.set_defaults(command=name)
        command.add_argument("--json", action="store_true", help="print JSON, and nothing else, on standard output")
        return command

    bundle = f"folder of a bundle; without, the one that {ENVIRONMENT} names, else the embedded model"
    needs = "Needs: pip install 'raskrank[export]'"
    checkpoint = "folder of the checkpoint that the bundle was made from; without, where its manifest says"

    command = add(
        "export",
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
        "say what runs, on what, and why",
        "Loads the bundle as `rank` does, and adds what its export measured against the checkpoint.",
        "raskrank info --bundle bundles/bge-reranker-base",
        "the bundle is broken",
    )
    command.add_argument("--bundle", metavar="B", help=bundle)

    command = add(
        "verify",
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


class _Parser(argparse.ArgumentParser):
    """Raises its errors as InputError."""

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message} (see: {self.prog} --help)")
