"""A PyTorch model as an ONNX file, by the exporter that fits the transformers which is installed.

optimum     transformers 4: optimum's exporter, which knows no later ones, through PyTorch's TorchScript
exported    transformers 5: PyTorch's own exporter, through torch.export

Both give the same numbers, in graphs that are spelled differently.
"""

import contextlib
import io
import logging
import random
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raskrank.checkpoint import Checkpoint
from raskrank.checkpoint.labels import Relevant
from raskrank.errors import ExportError
from raskrank.extras import EXPORT_5, exporter
from raskrank_export.prepare import prepare

if TYPE_CHECKING:
    from transformers import PreTrainedModel

OPSET = 18  # the newest that optimum's exporter writes through TorchScript, and so that of all bundles
# Packages that decide over a graph, beside those of both.
_MAKERS = {"optimum": ("optimum", "optimum-onnx"), "torch.onnx": ("onnxscript",)}
# Tracing, and what keeps it quiet, are settings of the whole process: two exports in threads take turns.
_tracing = threading.Lock()


def route() -> str:
    """The exporter that is used here: "optimum" or "torch.onnx"."""
    return "torch.onnx" if exporter() == EXPORT_5 else "optimum"


def makers() -> tuple[str, ...]:
    """The packages of that exporter, as the package index names them."""
    return _MAKERS[route()]


def export_model(model: "PreTrainedModel", folder: Path, relevant: Relevant | None = None) -> Path:
    """Trace `model`, which is of no other use then, into `folder`. Returns the path of the fp32 ONNX file.

    relevant: of two labels, whose logits become one. The file's inputs are input_ids and, where the model has several,
    token_type_ids; optimum's file has attention_mask too. Raises ExportError where the exporter fails.
    """
    if route() == "optimum":
        from raskrank_export.tracing.optimum import trace
    else:
        from raskrank_export.tracing.exported import trace
    with _errors_of(route(), model):
        prepare(model, relevant)
        return trace(model, folder, OPSET)


def export_plain(model: Any, checkpoint: Checkpoint, folder: Path) -> tuple[Path, str]:
    """As `export_model`, but as others export `model`, that of `checkpoint`: nothing of it is changed, so that of two labels
    there are two logits. Returns the file, and who made it of what: "optimum-onnx 0.1.0"."""
    from raskrank_export.tracing import plain

    with _errors_of(plain.route(checkpoint), model):
        return plain.trace(model, checkpoint, folder, OPSET)


@contextlib.contextmanager
def _errors_of(maker: str, model: object) -> Iterator[None]:
    """Quietly, with random numbers of its own."""
    with quiet(), _same_random_numbers():
        try:
            yield
        except OSError:
            raise  # a full disk, which the writer of the bundle explains
        except Exception as error:
            first = str(error).strip().partition("\n")[0]  # torch.export goes on for pages
            raise ExportError(f"{maker} could not export {type(model).__name__}: {first}") from error


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep the tools' chatter (tracer warnings, progress on stdout, info logs) from the caller; errors are exceptions."""
    with _tracing, warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        level = logging.root.manager.disable
        logging.disable(logging.WARNING)
        warnings.simplefilter("ignore")
        try:
            yield
        finally:
            logging.disable(level)


@contextlib.contextmanager
def _same_random_numbers() -> Iterator[None]:
    """optimum draws its example inputs from the process's generators, which a caller may have seeded for work of its own."""
    import torch

    state = random.getstate()
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        random.setstate(state)
