"""DeBERTa-v2: distances between tokens in a graph that is written, held to transformers' own model at every length."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from builders import Family, tiny_checkpoint
from checkpoints import check_refused, edit_json
from conftest import Tiny
from exporting import loose_export
from raskrank import Reranker
from raskrank.checkpoint import read_checkpoint
from raskrank.errors import CheckpointError, NotACrossEncoder
from raskrank.torch_backend import TorchBackend
from raskrank_export.written.deberta import buckets

LONGEST = 128


@pytest.mark.parametrize(("count", "farthest"), [(256, 512), (16, 128), (3, 40), (254, 512)])
def test_a_distance_has_the_bucket_that_transformers_gives_it(count: int, farthest: int) -> None:
    from transformers.models.deberta_v2.modeling_deberta_v2 import build_relative_position

    states = np.zeros((1, farthest, 1), np.float32)
    import torch

    layer = torch.from_numpy(states)
    expected = build_relative_position(layer, layer, bucket_size=count, max_position=farthest)[0].numpy()  # (L, L)
    places = np.arange(farthest)
    assert (buckets((places[:, None] - places).reshape(-1), count, farthest).reshape(expected.shape) == expected).all()
    assert len(np.unique(expected)) < 2 * farthest - 1  # else none was shared


def test_the_graph_is_right_at_every_length(tiny: Tiny) -> None:
    # A traced graph holds constants of the length that it was traced with; this one has none to hold.
    bundle, reference = tiny.bundle("deberta-v2", "fp32"), TorchBackend(read_checkpoint(tiny.checkpoint("deberta-v2")))
    random = np.random.default_rng(0)
    with Reranker.load(bundle) as reranker:
        backend = reranker._loaded.backend
        found, expected = [], []
        for length in range(3, LONGEST + 1):
            ids = random.integers(4, 600, (2, length))  # (B, L)
            found.append(backend.logits(ids, np.zeros_like(ids)))
            expected.append(reference.logits(ids, np.zeros_like(ids)))
    assert np.ptp(expected) > 1
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-5)


def test_where_a_token_stands_matters(tiny: Tiny) -> None:
    # Were distances dropped, an encoder without positions would score any order of the words alike.
    with Reranker.load(tiny.bundle("deberta-v2", "fp32")) as reranker:
        backend, ids = reranker._loaded.backend, np.arange(10, 90)[None]
        moved = np.concatenate([ids[:, :1], ids[:, :0:-1]], axis=1)
        assert abs(float((backend.logits(ids, ids * 0) - backend.logits(moved, ids * 0))[0])) > 0.05


@pytest.mark.parametrize("layers", [1, 3])
def test_any_number_of_layers(tmp_path: Path, tiny: Tiny, layers: int) -> None:
    folder = tiny_checkpoint(tmp_path / "checkpoint", "deberta-v2", layers=layers)
    report = loose_export(tiny, tmp_path / "bundle", checkpoint=folder)
    assert report.fp32_parity.max_logit_difference < 1e-4
    assert report.manifest.recipe.passes == {"drop_mask": layers, "merge_projections": layers, "hoist_first_token": 1}
    assert report.manifest.recipe.scheme == "row"
    assert report.onnxruntime_alone is not None
    assert "DebertaV2" in report.onnxruntime_alone


@pytest.mark.parametrize(
    ("updates", "message"),
    [
        ({"relative_attention": False}, "relative_attention False is not supported, only True"),
        ({"relative_attention": ...}, "relative_attention None"),
        ({"position_biased_input": True}, "position_biased_input True"),
        ({"share_att_key": False}, "share_att_key False"),
        ({"norm_rel_ebd": "none"}, "norm_rel_ebd 'none' is not supported, only 'layer_norm'"),
        ({"pos_att_type": "c2p"}, "pos_att_type 'c2p' is not supported, only 'c2p' and 'p2c' together"),
        ({"pos_att_type": None}, "pos_att_type None"),
        ({"type_vocab_size": 2}, "type_vocab_size 2 is not supported, only 0"),
        ({"conv_kernel_size": 3}, "conv_kernel_size 3"),
        ({"embedding_size": 16}, "embedding_size 16"),
        ({"attention_head_size": 4}, "attention_head_size 4"),
        ({"pooler_hidden_size": 16}, "pooler_hidden_size 16"),
        ({"pooler_hidden_act": "tanh"}, "pooler_hidden_act 'tanh' is not supported, only 'gelu'"),
        ({"hidden_act": "relu"}, "hidden_act 'relu'"),
        ({"position_buckets": ...}, "position_buckets must be an integer of at least 1, got -1"),
        ({"position_buckets": 1}, "position_buckets must be at least 2"),
        ({"position_buckets": 512}, "position_buckets must be at least 2 and leave distances up to 64 to share some, got 512"),
        ({"max_relative_positions": "far"}, "max_relative_positions must be an integer, got 'far'"),
        ({"position_buckets": 32}, "rel_embeddings.weight has shape"),
        ({"num_hidden_layers": 1}, "more layers than config.json's num_hidden_layers, 1"),
    ],
)
def test_another_form_is_refused(copy: Callable[..., Path], updates: dict[str, object], message: str) -> None:
    check_refused(copy("deberta-v2", **updates), message)


def test_older_spellings_are_read(copy: Callable[..., Path]) -> None:
    written = {"pos_att_type": "P2C | c2p", "max_relative_positions": ..., "pooler_hidden_size": 32, "conv_kernel_size": 0}
    config = read_checkpoint(copy("deberta-v2", **written)).config
    assert (config["pos_att_type"], config["max_relative_positions"]) == (["p2c", "c2p"], 64)


@pytest.mark.parametrize(
    ("weights", "config"),
    [("bert", "deberta-v2"), ("deberta-v2", "bert"), ("xlm-roberta", "deberta-v2"), ("deberta-v2", "roberta")],
)
def test_one_layout_dressed_as_another_is_refused(
    originals: dict[Family, Path], tmp_path: Path, weights: Family, config: Family
) -> None:
    shutil.copytree(originals[config], tmp_path / "dressed")
    shutil.copyfile(originals[weights] / "model.safetensors", tmp_path / "dressed" / "model.safetensors")
    with pytest.raises((CheckpointError, NotACrossEncoder), match=r"missing|do not fit"):
        read_checkpoint(tmp_path / "dressed")


def test_a_relabelled_model_type_is_refused(copy: Callable[..., Path]) -> None:
    folder = copy("deberta-v2")
    edit_json(folder / "config.json", {"model_type": "bert"})
    with pytest.raises(CheckpointError, match="model_type 'bert' does not fit DebertaV2ForSequenceClassification"):
        read_checkpoint(folder)
