"""What several commands do alike."""

import argparse
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from raskrank.documents import Form
from raskrank.errors import InputError
from raskrank.reranker import Reranker
from raskrank.settings import Choice, choose_for_command
from raskrank.terminal import Bar, is_terminal, say
from raskrank.windows import Windows

# The extra, and the packages in it.
EXPORTER = ("export", "huggingface_hub", "onnx", "optimum", "safetensors", "torch", "transformers")


def form_of(arguments: argparse.Namespace) -> Form:
    return Form(format=arguments.format, field=arguments.field, title_field=arguments.title_field)


def choose(arguments: argparse.Namespace) -> Choice:
    return choose_for_command(arguments.bundle, say)


def windows_of(arguments: argparse.Namespace) -> Windows | None:
    """None where a document that is too long is cut."""
    asked = {name: value for name in ("max_windows", "overlap") if (value := getattr(arguments, name)) is not None}
    if arguments.long_documents == "windows":
        return Windows(**asked)
    for name in asked:
        raise InputError(f"--{name.replace('_', '-')}: there are windows only with --long-documents windows")
    return None


@contextmanager
def progress_bar(reranker: Reranker, name: str, total: int) -> Iterator[None]:
    """Show on a terminal how many pairs of `total` the block has scored."""
    if not is_terminal(sys.stderr):
        yield
        return
    with Bar(name, total, sys.stderr) as bar, reranker.progress(bar.advance):
        yield
