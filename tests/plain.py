"""What holds of every plain export, whichever exporter made it."""

from collections import Counter
from pathlib import Path

import numpy as np
import onnx

from builders import PAIRS, Family
from conftest import Tiny
from raskrank import Reranker
from raskrank.bundle import read_manifest
from raskrank.manifest import MODEL
from raskrank_export.plain import Made, plain_export


def check_plain(tiny: Tiny, family: Family, folder: Path) -> Made:
    """The plain export of a family's tiny checkpoint scores as PyTorch does, in standard operators. Returns who made it."""
    bundle, checkpoint = tiny.bundle(family, "fp32"), tiny.checkpoint(family)
    made = plain_export(bundle, folder, checkpoint=checkpoint)
    assert made.checkpoint == checkpoint
    manifest, beside = read_manifest(folder)[0], read_manifest(bundle)[0]
    assert (manifest.precision, manifest.encoder, manifest.recipe.passes) == ("fp32", None, {})
    assert manifest.max_length == beside.max_length
    graph = onnx.load(str(folder / MODEL), load_external_data=False).graph
    assert {node.domain for node in graph.node} == {""}
    operators = Counter(node.op_type for node in graph.node)
    assert operators["Softmax"] > 0
    assert operators["MultiHeadAttention"] == 0
    with (
        Reranker.load(folder, backend="onnx", threads=2) as plain,
        Reranker.load(backend="torch", checkpoint=checkpoint) as reference,
    ):
        logits, expected = (reranker.score_pairs(PAIRS, raw_scores=True) for reranker in (plain, reference))
    assert np.ptp(expected) > 1
    np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-3)
    return made
