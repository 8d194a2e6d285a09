"""What several commands do alike."""

import argparse
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from raskrank.documents import Form
from raskrank.reranker import Reranker
from raskrank.settings import Choice, choose_for_command
from raskrank.terminal import Bar, is_terminal, say


def form_of(arguments: argparse.Namespace) -> Form:
    return Form(format=arguments.format, field=arguments.field, title_field=arguments.title_field)


def choose(arguments: argparse.Namespace) -> Choice:
    return choose_for_command(arguments.bundle, say)


@contextmanager
def progress_bar(reranker: Reranker, name: str, total: int) -> Iterator[None]:
    """Show on a terminal how many pairs of `total` the block has scored."""
    if not is_terminal(sys.stderr):
        yield
        return
    with Bar(name, total, sys.stderr) as bar, reranker.progress(bar.advance):
        yield
