"""The commands and their options: what `raskrank COMMAND --help` says."""

from collections.abc import Callable, Mapping

from raskrank.cli.commands.bundles import add_export, add_info, add_verify
from raskrank.cli.commands.measuring import add_bench, add_compare
from raskrank.cli.commands.ranking import add_rank, add_score, add_serve
from raskrank.cli.parser import Commands

COMMANDS: Mapping[str, Callable[[Commands], None]] = {
    "export": add_export,
    "rank": add_rank,
    "score": add_score,
    "info": add_info,
    "verify": add_verify,
    "compare": add_compare,
    "bench": add_bench,
    "serve": add_serve,
}
