"""Which products int8 spoils: finding them, leaving them in fp32, and smoothing."""

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from builders import PAIRS
from conftest import Tiny
from raskrank import Reranker
from raskrank.encoding import EncodedPair
from raskrank.manifest import MODEL
from raskrank_export import ExportReport, export
from raskrank_export.ladder import exclusion_counts
from raskrank_export.passes.edit import GraphEditor
from raskrank_export.products import constant_products
from raskrank_export.progress import Silent
from raskrank_export.quantization import Quantization
from raskrank_export.sensitivity import PAIRS as MOST_PAIRS
from raskrank_export.sensitivity import product_names, sensitivity, sensitivity_pairs
from raskrank_export.smoothing import OUTLIER, find_smoothing
from repairs import SMALL, changed

DEAD = 5


def add_dead_neuron(weights: dict[str, torch.Tensor]) -> None:
    """A neuron that is 0 for every token, with weights that nobody misses and that take all levels of the others."""
    layer = "roberta.encoder.layer.0"
    weights[f"{layer}.intermediate.dense.weight"][DEAD] = 0
    weights[f"{layer}.intermediate.dense.bias"][DEAD] = 0
    weights[f"{layer}.output.dense.weight"][:, DEAD] = 100


# Products in fp32


@pytest.fixture(scope="module")
def dead(tmp_path_factory: pytest.TempPathFactory, few_samples: Path) -> ExportReport:
    root = tmp_path_factory.mktemp("dead")
    return export(
        str(changed(root / "dead", add_dead_neuron)), root / "bundle", samples=few_samples, scheme="row", thresholds=SMALL
    )


def test_one_spoilt_product_is_found_and_left_in_fp32(dead: ExportReport) -> None:
    assert dead.climb is not None
    (spoilt,) = dead.manifest.recipe.excluded_nodes
    assert "layer.0/output/dense" in spoilt
    assert dead.climb.passed.rung.name.endswith(", 1 product in fp32")
    assert "min_tau" in dead.climb.attempts[0].failed
    (first, most), (_, second) = list(dead.climb.moved.items())[:2]
    assert first == spoilt
    assert most > 3 * second
    assert f"in fp32: {spoilt}" in str(dead)


def test_the_spoilt_product_is_the_only_one_in_fp32(dead: ExportReport) -> None:
    graph = GraphEditor(onnx.load(str(Path(dead.output) / MODEL)))
    (left,) = constant_products(graph)
    assert left.output[0] == dead.manifest.recipe.excluded_nodes[0]
    assert len(graph.nodes("MatMulIntegerToFloat")) == 8
    assert dead.climb is not None
    plain, passed = dead.climb.attempts[0], dead.climb.passed
    # Of one weight, four bytes for one, less the scales and nodes that int8 needs.
    assert passed.size - plain.size == pytest.approx(3 * 64 * 128, rel=0.15)


@pytest.mark.parametrize(
    ("sizes", "counts"),
    [
        ([1] * 20, [1, 2, 4, 5]),
        ([1] * 16, [1, 2, 4]),
        ([1] * 5, [1]),
        ([1, 1], []),
        ([1], []),
        ([], []),
        ([1, 1, 1, 6, 1, 1, 1], [1, 2, 3]),
        ([7, 1, 1], []),
    ],
)
def test_fewest_first_and_never_more_than_a_quarter_of_the_weights(sizes: list[int], counts: list[int]) -> None:
    assert exclusion_counts(sizes) == counts


# Sensitivity


def pairs_of(lengths: list[int]) -> list[EncodedPair]:
    return [EncodedPair(np.zeros(length, np.int64), np.zeros(length, np.int64), False) for length in lengths]


def test_sensitivity_is_measured_on_short_pairs_of_all_lengths() -> None:
    chosen = [len(pair.input_ids) for pair in sensitivity_pairs(pairs_of([*range(400, 0, -1)]))]
    assert len(chosen) == MOST_PAIRS
    assert chosen == sorted(set(chosen))
    assert (chosen[0], chosen[-1] <= 200, chosen[-1] > 180) == (1, True, True)
    assert len(sensitivity_pairs(pairs_of([5, 3, 4]))) == 3


def test_every_product_has_its_number(tiny: Tiny) -> None:
    folder = tiny.bundle("bert", "fp32")
    with Reranker.load(folder) as reranker:
        encoded = reranker._loaded.encoder.encode(PAIRS)
    inputs = ("input_ids", "token_type_ids")
    before = (folder / MODEL).read_bytes()
    moved = sensitivity(folder, inputs, encoded, Quantization(), Silent())
    assert set(moved) == set(product_names(folder))
    assert len(moved) == 9
    assert list(moved.values()) == sorted(moved.values(), reverse=True)
    assert all(value > 0 for value in moved.values())
    assert (folder / MODEL).read_bytes() == before


# Smoothing


def first_source(folder: Path) -> tuple[str, int]:
    """What the first product of a graph reads, and its channels."""
    graph = GraphEditor(onnx.load(str(folder / MODEL), load_external_data=False))
    product = constant_products(graph)[0]
    return product.input[0], graph.initializers[product.input[1]].dims[0]


def test_divisors_are_powers_of_two_and_1_but_for_outliers(tiny: Tiny) -> None:
    folder = tiny.bundle("bert", "fp32")
    source, width = first_source(folder)
    largest = np.full(width, 2, np.float32)
    assert find_smoothing(folder, {source: largest}) == {}
    largest[7] = 2 * OUTLIER * 64
    divisors = find_smoothing(folder, {source: largest})[source]
    assert divisors.dtype == np.float32
    assert divisors[7] in (8, 16, 32)  # of 256 times the others, half of the exponent, and the weights' own spread
    assert (np.delete(divisors, 7) == 1).all()


def test_a_channel_of_zeros_needs_none(tiny: Tiny) -> None:
    folder = tiny.bundle("bert", "fp32")
    source, width = first_source(folder)
    assert find_smoothing(folder, {source: np.zeros(width, np.float32)}) == {}
