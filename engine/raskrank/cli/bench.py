"""`raskrank bench`."""

import argparse

from raskrank.cli.shared import EXPORTER
from raskrank.extras import need


def run(arguments: argparse.Namespace) -> int:
    if arguments.against == "torch":
        need("--against torch", *EXPORTER)
    from raskrank.bench import command

    return command.run(arguments)
