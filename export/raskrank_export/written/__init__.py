"""Graphs that are written node by node from a checkpoint's tensors, of the families that tracing would get wrong or slow.

A writer stands for its family's published computation and is held to it by the fp32 gate, as a traced graph is. What the passes
do elsewhere holds of these from the start: no mask, one product for query, key and value, and a last layer of one row.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import onnx

from raskrank.checkpoint import Checkpoint
from raskrank.checkpoint.modernbert import CLASSIFIER, ENCODER
from raskrank.reimplemented import GTE, JINA_BERT
from raskrank_export.tensors import Spill
from raskrank_export.written import deberta, gte, jina_bert, modernbert
from raskrank_export.written.writer import GraphWriter

if TYPE_CHECKING:
    from torch.nn import Module

# By architecture: adds all nodes from the ids to the logits, and returns the logits' name.
WRITERS: Mapping[str, Callable[[GraphWriter, Checkpoint], str]] = {
    "DebertaV2ForSequenceClassification": deberta.write,
    GTE: gte.write,
    JINA_BERT: jina_bert.write,
    CLASSIFIER: modernbert.write,
    ENCODER: modernbert.write,
}


class WrittenGraph(NamedTuple):
    """layers: of how many what a pass does holds from the start, by its name."""

    model: onnx.ModelProto
    layers: dict[str, int]


def write_graph(model: "Module", checkpoint: Checkpoint, folder: Path) -> WrittenGraph:
    """The fp32 graph of a checkpoint whose architecture is in WRITERS. model: its tensors, float32.

    Large tensors are put into `folder`, which must stay until the graph is saved.
    """
    folder.mkdir(exist_ok=True)
    writer = GraphWriter(model.state_dict(), Spill(folder / "written.bin"))
    written = writer.finish(WRITERS[checkpoint.architecture](writer, checkpoint))
    return WrittenGraph(written, dict(writer.layers))
