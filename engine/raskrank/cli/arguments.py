"""What the command line is given, and the help of it all."""

import argparse
import sys
from collections.abc import Sequence

import raskrank
from raskrank.cli.commands import COMMANDS
from raskrank.cli.parser import Commands, Parser
from raskrank.process.threads import ENVIRONMENT as THREADS
from raskrank.process.threads import MAX_THREADS
from raskrank.settings import CACHE, ENVIRONMENT, cache_folder
from raskrank.settings_files import PYPROJECT, SETTINGS


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
    many = {"bench": "models", "compare": "models", "score": "paths"}.get(arguments.command)
    if many is not None and not any(part.startswith("-") for part in rest):
        setattr(arguments, many, getattr(arguments, many) + rest)
        rest = []
    if rest:
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    return arguments


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="raskrank",
        description="Rerank documents on ordinary CPUs with a cross-encoder.",
        epilog=f'example:\n  raskrank rank "Hvem kan Python?" cvs.txt\n\n{_which_model()}',
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"raskrank {raskrank.__version__}")
    commands = Commands(parser)
    for add in COMMANDS.values():
        add(commands)
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
