"""What fp32 itself rounds: measured against float64, on pairs where it shows."""

import numpy as np
import pytest
import torch

from builders import PAIRS, Family
from conftest import Tiny
from raskrank.checkpoint import read_checkpoint
from raskrank.encoding import EncodedPair
from raskrank.gate import MIN_ROUNDING
from raskrank.tokenizer import load_encoder
from raskrank.torch_backend import TorchBackend
from raskrank_export.progress import Silent
from raskrank_export.rounding import PAIRS as MOST
from raskrank_export.rounding import _float64_logits, _in_float64, _runs, fp32_rounding, rounding_pairs

FAMILIES: tuple[Family, ...] = ("bert", "xlm-roberta", "roberta", "deberta-v2", "new", "jina-bert")


def logits(backend: TorchBackend, encoded: list[EncodedPair]) -> list[float]:
    return [float(backend.logits(pair.input_ids[None], pair.token_type_ids[None])[0]) for pair in encoded]


@pytest.mark.parametrize("family", FAMILIES)
def test_layer_by_layer_is_the_whole_model_in_float64(tiny: Tiny, family: Family) -> None:
    checkpoint = read_checkpoint(tiny.checkpoint(family))
    data = (checkpoint.folder / "tokenizer.json").read_bytes()
    encoded = load_encoder(data, 128, checkpoint.vocab_size, checkpoint.folder, parallel=True).encode(PAIRS)
    backend = TorchBackend(checkpoint)
    before = {name: tensor.clone() for name, tensor in backend.model.state_dict().items()}
    fp32 = logits(backend, encoded)
    with _in_float64(backend.model):
        found = logits(backend, encoded)
    after = backend.model.state_dict()
    assert all(torch.equal(tensor, after[name]) and tensor.dtype == after[name].dtype for name, tensor in before.items())
    backend.model.double()
    exact = logits(backend, encoded)
    np.testing.assert_allclose(found, exact, rtol=0, atol=1e-12)
    largest = np.abs(np.array(fp32) - exact).max()
    assert 1e-8 < largest < 1e-4
    rounding = fp32_rounding(checkpoint, encoded, np.array(fp32, np.float32), Silent())
    assert rounding == pytest.approx(max(MIN_ROUNDING, largest), rel=1e-3)


def test_the_pairs_are_of_all_lengths_and_where_the_graph_differs_most() -> None:
    encoded = [EncodedPair(np.zeros(length, np.int64), np.zeros(length, np.int64), False) for length in range(100, 0, -1)]
    differences = np.zeros(100, np.float32)
    differences[[13, 57, 91]] = 3, 1, 2
    chosen = rounding_pairs(encoded, differences)
    assert len(chosen) == len(set(chosen)) <= MOST
    assert {0, 99, 13, 57, 91} <= set(chosen)  # the longest and the shortest, and the worst
    assert rounding_pairs(encoded[:2], differences[:2]) == [1, 0]
    assert rounding_pairs(encoded[:1], differences[:1]) == [0]


def test_a_run_holds_what_its_attention_has_room_for() -> None:
    assert _runs([512] * 9) == [[*range(8)], [8]]
    assert _runs([2000, 10, 8192, 11]) == [[1, 3], [0], [2]]
    assert _runs([]) == []


def test_a_pair_beside_a_longer_one_has_the_logit_that_it_has_alone(tiny: Tiny) -> None:
    for family in FAMILIES:
        checkpoint = read_checkpoint(tiny.checkpoint(family))
        data = (checkpoint.folder / "tokenizer.json").read_bytes()
        encoded = load_encoder(data, 128, checkpoint.vocab_size, checkpoint.folder, parallel=True).encode(PAIRS)
        backend = TorchBackend(checkpoint)
        with _in_float64(backend.model):
            together = _float64_logits(backend.model, checkpoint, encoded)
            alone = [float(_float64_logits(backend.model, checkpoint, [pair])[0]) for pair in encoded]
        np.testing.assert_allclose(together, alone, rtol=0, atol=1e-11)
