"""PyTorch on several pairs at a time, as an export scores its samples."""

import numpy as np
import pytest

from builders import PAIRS, Family
from conftest import Tiny
from exporting import Recorder
from raskrank.checkpoint import read_checkpoint
from raskrank.encoding import EncodedPair
from raskrank.errors import InferenceError
from raskrank.tokenizer import load_encoder
from raskrank.torch_backend import TorchBackend
from raskrank_export.padded import MAX_TOKENS, padded_scores, runs_of

FAMILIES: tuple[Family, ...] = ("bert", "xlm-roberta", "roberta", "mpnet", "albert", "distilbert")
ROUNDING = 2e-5  # of a logit around 1 to 10, in fp32


@pytest.mark.parametrize("family", FAMILIES)
def test_logits_are_those_of_one_pair_at_a_time_in_order(tiny: Tiny, family: Family) -> None:
    checkpoint = read_checkpoint(tiny.checkpoint(family))
    data = (checkpoint.folder / "tokenizer.json").read_bytes()
    encoded = load_encoder(data, 128, checkpoint.vocab_size, checkpoint.folder, parallel=True).encode(PAIRS)
    backend, recorder = TorchBackend(checkpoint), Recorder()
    recorder.start("score", len(PAIRS))
    found = padded_scores(backend.model, checkpoint, encoded, recorder)
    alone = [backend.logits(pair.input_ids[None], pair.token_type_ids[None])[0] for pair in encoded]
    np.testing.assert_allclose(found, alone, rtol=0, atol=ROUNDING)
    assert found.dtype == np.float32
    assert np.ptp(found) > 1
    assert recorder.units == {"score": len(PAIRS)}


def test_a_run_holds_so_many_tokens_with_what_fills_it() -> None:
    lengths = [40, 300, 8, 512, 9, 600, 41, 300]
    runs = runs_of(lengths)
    assert sorted(index for run in runs for index in run) == list(range(len(lengths)))
    assert all(len(run) * max(lengths[index] for index in run) <= MAX_TOKENS for run in runs if len(run) > 1)
    assert runs == [[2, 4, 0, 6], [1], [7], [3], [5]]
    assert runs_of([]) == []


def test_an_error_of_pytorch_names_the_shape_and_no_text(tiny: Tiny) -> None:
    checkpoint = read_checkpoint(tiny.checkpoint("bert"))
    ids = np.ones(129, np.int64)  # one more than there are positions
    pairs = [EncodedPair(ids, np.zeros_like(ids), False)] * 2
    with pytest.raises(InferenceError, match=r"^PyTorch failed on a run of 2 x 129 tokens$"):
        padded_scores(TorchBackend(checkpoint).model, checkpoint, pairs, Recorder())
