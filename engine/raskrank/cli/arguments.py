"""What the command line takes: options, help texts, exit codes."""

import argparse
import math
import sys
import textwrap
from collections.abc import Sequence
from contextlib import suppress
from typing import NoReturn

import raskrank
from raskrank.checkpoint.registry import DEFAULT_MODEL
from raskrank.cpu import TARGETS
from raskrank.documents import TEXT_FIELDS
from raskrank.errors import InputError
from raskrank.process.threads import ENVIRONMENT as THREADS
from raskrank.process.threads import MAX_THREADS
from raskrank.rows import FORMATS
from raskrank.settings import CACHE, ENVIRONMENT, cache_folder
from raskrank.settings_files import PYPROJECT, SETTINGS

WRONG_USE = "wrong use: arguments, input that cannot be read, no such bundle"


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """The arguments of a command, whose name is `command`. Raises InputError; SystemExit after --help and --version."""
    parser = _parser()
    if not argv:
        parser.print_help(sys.stderr)
        parser.exit(2)
    arguments, rest = parser.parse_known_args(argv)
    # argparse gives up on an optional positional that comes after an option: rank QUERY --top-k 3 FILE
    last = {"export": "output", "rank": "file"}.get(arguments.command, "")
    if len(rest) == 1 and getattr(arguments, last, "") is None and (rest[0] == "-" or not rest[0].startswith("-")):
        setattr(arguments, last, rest.pop())
    if arguments.command in ("bench", "compare") and not any(part.startswith("-") for part in rest):
        arguments.models, rest = arguments.models + rest, []
    if rest:
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    return arguments


def _parser() -> argparse.ArgumentParser:
    raw = argparse.RawDescriptionHelpFormatter
    parser = _Parser(
        prog="raskrank",
        description="Rerank documents on ordinary CPUs with a cross-encoder.",
        epilog=f'example:\n  raskrank rank "Hvem kan Python?" cvs.txt\n\n{_which_model()}',
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

    def other_cpu(command: _Parser) -> None:
        command.add_argument(
            "--ignore-target",
            action="store_true",
            help="load a bundle made for another kind of CPU, though it may score wrong",
        )

    def own_memory(command: _Parser) -> None:
        command.add_argument(
            "--no-map-weights",
            action="store_false",
            dest="map_weights",
            help="read the weights into memory instead of mapping their file, which then may be written to",
        )

    def documents(command: _Parser) -> None:
        command.add_argument(
            "--field",
            metavar="NAME",
            help=f"the field of documents that has the text (default: {', '.join(TEXT_FIELDS)}, whichever is there)",
        )
        command.add_argument("--title-field", metavar="NAME", help="put this field and a space in front of each text")
        command.add_argument(
            "--format", choices=FORMATS, help="of those documents (default: by its name, else by how it begins)"
        )

    bundle = "a bundle's folder, such as ./bge, or owner/name of an exported hub model (default: see raskrank --help)"
    needs = "Needs: pip install 'raskrank[export]'"
    checkpoint = "folder of the checkpoint that the bundle was made from; without, where its manifest says"

    command = add(
        "export",
        "turn a Hugging Face cross-encoder into a bundle",
        "The bundle is compared with the checkpoint in PyTorch before it is written. Where int8 would rank differently it is "
        "repaired, in fp32 if need be, and the report says how and what that costs; where fp32 would, nothing is written.",
        "raskrank export BAAI/bge-reranker-base\n"
        f'{ENVIRONMENT}=BAAI/bge-reranker-base raskrank rank "Hvem kan Python?" cvs.txt\n'
        "raskrank export ./checkpoints/mine ./bundles/mine",
        "no cross-encoder, or the bundle would rank differently: not written",
        needs,
    )
    command.add_argument(
        "model",
        metavar="MODEL",
        nargs="?",
        help=f"a checkpoint's folder, such as ./mine, or owner/name on the Hugging Face hub (default: {DEFAULT_MODEL})",
    )
    command.add_argument(
        "output",
        metavar="OUTPUT",
        nargs="?",
        help="folder to write the bundle to (default: for a hub model, its place in the cache)",
    )
    command.add_argument("--precision", choices=("int8", "fp32"), default="int8", help="of the weights (default: int8)")
    command.add_argument(
        "--scheme",
        choices=("row", "constant"),
        default="row",
        help="ranges of int8 activations: measured at run time for each token (row), or constant and found on the samples "
        "(default: row)",
    )
    command.add_argument(
        "--target",
        choices=TARGETS,
        default="portable",
        help="CPUs that int8 is for: portable is right on all; vnni has finer levels, for x86 with VNNI or AMX and for ARM, "
        "and is refused elsewhere (default: portable)",
    )
    command.add_argument("--revision", metavar="R", help="branch, tag or commit on the hub (default: main)")
    command.add_argument(
        "--max-length",
        metavar="N",
        type=_count,
        help="tokens of query and document (default: all that the checkpoint allows; for BAAI/bge-reranker-v2-m3, 512)",
    )
    command.add_argument(
        "--samples",
        metavar="FILE",
        help='judge the bundle on these: {"query": ..., "documents": [...]} a line, or .tsv with query and document a line '
        "(default: a set in Norwegian and English); a repair of int8 needs 8 queries",
    )
    command.add_argument(
        "--trim-vocab",
        metavar="CORPUS",
        nargs="+",
        default=(),
        help="keep only the pieces of the vocabulary that these files use (in any form that `rank` reads): a "
        "smaller bundle, and the same scores for texts of such pieces",
    )
    documents(command)
    command.add_argument(
        "--accept-license", metavar="L", help="accept by its name a license that restricts use, such as cc-by-nc-4.0"
    )
    command.add_argument(
        "--min-tau", metavar="T", type=float, help="lowest Kendall tau, -1 to 1, for int8; what falls below it is repaired"
    )
    command.add_argument("--max-drift", metavar="D", type=float, help="largest drift of a score, 0 to 1, for int8")
    command.add_argument("--overwrite", action="store_true", help="replace a bundle at OUTPUT")

    command = add(
        "rank",
        "rank documents for a query, best first",
        "The input is UTF-8: lines of text, each that is not blank a document; JSON Lines (.jsonl, .ndjson), an object with "
        "a text on each line; a JSON array (.json) of objects or texts; CSV with a header (.csv, between commas, semicolons or "
        "tabs); or TSV with a header (.tsv, without quotes). An id (id, _id, docid or doc_id) is kept in --json's output. What "
        "is none of these is refused; --format text ranks any lines as they stand.",
        'raskrank rank "Hvem kan Python?" cvs.txt --top-k 5\n'
        "cat cvs.jsonl | raskrank rank --json -- \"-5 grader\" - | jq '.[0].id'",
        "the bundle is broken, or a score is no number",
    )
    command.add_argument("query", metavar="QUERY", help="what the documents are ranked for; after -- it may begin with -")
    command.add_argument("file", metavar="FILE", nargs="?", help="the documents; - or nothing: standard input")
    documents(command)
    command.add_argument("--bundle", metavar="B", help=bundle)
    command.add_argument("--top-k", metavar="K", type=_count, help="print only the K best (default: all)")
    command.add_argument(
        "--raw-scores", action="store_true", help="print logits, before any sigmoid: they differ where scores round to the same"
    )
    command.add_argument(
        "--threads",
        metavar="N",
        type=_count,
        help=f"CPUs to use, at most {MAX_THREADS} (default: {THREADS}, else all that this process may)",
    )
    command.add_argument(
        "--fallback", choices=("torch",), help="let PyTorch score what the bundle cannot; each time it does is a warning"
    )
    command.add_argument("--backend", choices=("onnx", "torch"), default="onnx", help="run the bundle, or its checkpoint")
    other_cpu(command)
    own_memory(command)
    command.add_argument("--checkpoint", metavar="C", help=checkpoint)

    command = add(
        "info",
        "say what runs, on what, and why",
        "Loads the bundle as `rank` does, and adds what its export measured against the checkpoint.",
        "raskrank info --bundle ./bundles/bge-reranker-base",
        "the bundle is broken",
    )
    command.add_argument("--bundle", metavar="B", help=bundle)
    other_cpu(command)

    command = add(
        "verify",
        "compare a bundle with its checkpoint in PyTorch",
        "Scores the same pairs with both, PyTorch on what transformers' own tokenizer makes of them, and holds the differences "
        "against the thresholds in the bundle's manifest.",
        "raskrank verify --bundle ./bundles/bge-reranker-base --pairs pairs.jsonl",
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

    command = add(
        "compare",
        "compare models on data: size, speed and quality side by side",
        "The models rank the same candidates: of each query the relevant passages, and what BM25 finds best. Then they take "
        "turns on the clock. Prints Markdown.",
        "raskrank compare ./bundles/bge-int8 ./bundles/bge-fp32 --against torch \\\n  --data norquad --chart bge.png",
        "a model is broken or no cross-encoder",
        "Needs: pip install 'raskrank[compare]'; for checkpoints also 'raskrank[export]'",
    )
    command.add_argument("models", metavar="MODEL", nargs="*", help=f"{bundle}; or a checkpoint's folder, to run in PyTorch")
    command.add_argument(
        "--data",
        metavar="D",
        help="a folder as BEIR has them (corpus.jsonl, queries.jsonl, qrels/test.tsv), or a file with "
        '{"query": ..., "positives": [...], "negatives": [...]} a line; with "language" there are numbers for each '
        "(default: 68 searches of our own)",
    )
    command.add_argument("--queries", metavar="N", type=_count, default=200, help="at most so many (default: 200)")
    command.add_argument("--candidates", metavar="N", type=_count, default=20, help="documents of each query (default: 20)")
    command.add_argument("--against", choices=("torch",), help="also the checkpoint that each bundle was made from")
    command.add_argument(
        "--bi-encoder",
        metavar="M",
        help="also this model of sentence-transformers, hub id or folder (pip install 'raskrank[bi-encoder]')",
    )
    command.add_argument("--chart", metavar="PNG", help="also draw quality against time")

    command = add(
        "bench",
        "measure speed, start and memory on this machine",
        "Scores 1, 10 and 100 passages of a query, and reports times, rates, and what a fresh process needs. Several models "
        "take turns, so that their ratios hold on a busy machine too. No text of yours is printed.",
        "raskrank bench ./bundles/bge --against torch --texts cvs.txt",
        "a model is broken, a checkpoint is not there, or a score is no number",
        "With --against torch: pip install 'raskrank[export]'",
    )
    command.add_argument("models", metavar="BUNDLE", nargs="*", help=f"{bundle}; the others are compared with the first")
    command.add_argument("--against", choices=("torch",), help="also the checkpoint of the first bundle")
    command.add_argument("--checkpoint", metavar="C", help=checkpoint)
    command.add_argument("--texts", metavar="FILE", help="passages, as for `rank`; - is standard input (default: our own)")
    documents(command)
    command.add_argument("--query", metavar="Q", help="what they are scored for (default: our own)")
    command.add_argument("--passages", metavar="N", type=_count, default=100, help="the most at once (default: 100)")
    command.add_argument(
        "--threads",
        metavar="N",
        type=_count,
        help=f"CPUs to use, at most {MAX_THREADS} (default: {THREADS}, else all that this process may)",
    )
    command.add_argument(
        "--seconds",
        metavar="S",
        type=_seconds,
        default=100.0,
        help="time to take in all, about; slow models get fewer rounds, or fewer passages (default: 100)",
    )
    return parser


def _which_model() -> str:
    return f"""which model runs, the first of these that names one:
  --bundle B       a bundle's folder, or owner/name of a hub model whose
                   bundle `raskrank export owner/name` left in the cache;
                   a folder of that form is written ./owner/name
  {ENVIRONMENT}   the same, in the environment
  {SETTINGS}    model = "...", in the current folder or the nearest above,
                   up to the repository's root or your home; only if the
                   file is yours or root's
  {PYPROJECT}   [tool.raskrank] model = "...", in the same folders
  the embedded model

how many CPUs it uses, at most {MAX_THREADS}: {THREADS} in the environment, else
all that affinity and cgroup quota allow; OMP_NUM_THREADS has no effect

the cache, unless {CACHE} names another:
  {cache_folder()}"""


def _count(text: str) -> int:
    with suppress(ValueError):
        if (number := int(text)) >= 1:
            return number
    raise argparse.ArgumentTypeError(f"expected a whole number of at least 1, got {text!r}")


def _seconds(text: str) -> float:
    with suppress(ValueError):
        if 0 < (number := float(text)) < math.inf:
            return number
    raise argparse.ArgumentTypeError(f"expected a number of seconds above 0, got {text!r}")


class _Parser(argparse.ArgumentParser):
    """Raises its errors as InputError."""

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message} (see: {self.prog} --help)")
