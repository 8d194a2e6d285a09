"""The PyTorch backend behind the same API: the same truncation, activation and errors, and the checkpoint's own logits."""

import logging
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
import transformers

import bundles
from builders import PAIRS, SENTENCES, Family, tiny_checkpoint
from conftest import Tiny
from paths import NANO_CHECKPOINT
from raskrank import (
    CheckpointError,
    ClosedError,
    Incompatible,
    InferenceError,
    InputError,
    MissingExtra,
    MissingFile,
    NotACrossEncoder,
    Ranked,
    Reranker,
)
from raskrank.checkpoint import read_checkpoint
from raskrank.extras import exporter
from raskrank.torch_backend import TorchBackend, load_model, local_checkpoint

FAMILIES: tuple[Family, ...] = ("bert", "xlm-roberta", "roberta", "deberta-v2", "modernbert", "ettin")
QUERY = "Hvem kan Python?"
ROUNDING = 1e-5  # of a score, in fp32
DOCUMENTS = ["En utvikler i Oslo", "Python og SQL", "", "Python og SQL", " ".join(SENTENCES)]


@pytest.fixture(params=FAMILIES)
def family(request: pytest.FixtureRequest) -> Family:
    chosen: Family = request.param
    return chosen


def test_the_same_api(tiny: Tiny) -> None:
    with Reranker.load(tiny.bundle("bert", "fp32"), backend="torch") as reranker:
        hits = reranker.rank(QUERY, DOCUMENTS)
        scores = reranker.score(QUERY, DOCUMENTS)
        pairs = reranker.score_pairs([(QUERY, document) for document in DOCUMENTS])
        assert reranker.rank(QUERY, []) == []
        assert len(reranker.rank(QUERY, DOCUMENTS, top_k=2)) == 2
        with pytest.raises(InputError, match="document 0: expected str, got int"):
            reranker.score(QUERY, [5])  # type: ignore[list-item]
        assert repr(reranker) == "<Reranker checkpoint-bert on torch>"
    assert all(type(hit) is Ranked for hit in hits)
    assert scores.dtype == np.float32
    assert scores.shape == (len(DOCUMENTS),)
    # PyTorch's last digits depend on where a buffer lies, even in one process.
    np.testing.assert_allclose(pairs, scores, rtol=0, atol=ROUNDING)
    assert scores[1] == pytest.approx(scores[3], abs=ROUNDING)
    assert sorted(hit.index for hit in hits) == list(range(len(DOCUMENTS)))
    np.testing.assert_allclose([hit.score for hit in hits], np.sort(scores)[::-1], rtol=0, atol=ROUNDING)
    with pytest.raises(ClosedError, match="closed"):
        reranker.score(QUERY, DOCUMENTS)


def test_scores_and_truncation_are_those_of_the_bundle(tiny: Tiny, family: Family) -> None:
    bundle = tiny.bundle(family, "fp32")
    with Reranker.load(bundle) as ours, Reranker.load(bundle, backend="torch") as theirs:
        np.testing.assert_allclose(ours.score_pairs(PAIRS), theirs.score_pairs(PAIRS), rtol=0, atol=1e-4)
        found, expected = sorted(ours.rank(QUERY, DOCUMENTS)), sorted(theirs.rank(QUERY, DOCUMENTS))
        assert [hit.truncated for hit in found] == [hit.truncated for hit in expected] == [False] * 4 + [True]
        np.testing.assert_allclose([h.score for h in found], [h.score for h in expected], rtol=0, atol=1e-4)


def test_info(tiny: Tiny) -> None:
    with Reranker.load(tiny.bundle("bert", "int8"), backend="torch") as reranker:
        info = reranker.info()
    assert (info.backend, info.reason) == ("torch", "backend='torch' was asked for")
    # What runs is the checkpoint, not the int8 graph.
    assert (info.precision, info.instruction_set, info.threads) == ("fp32", None, 1)
    assert set(info.versions) == {"raskrank", "torch", "transformers"}
    assert info.bundle == str(tiny.bundle("bert", "int8"))
    assert "PyTorch" in info.threads_reason
    assert "torch" in str(info)


def test_a_checkpoint_by_itself(tiny: Tiny) -> None:
    checkpoint = tiny.checkpoint("bert")
    with (
        Reranker.load(backend="torch", checkpoint=checkpoint) as alone,
        Reranker.load(tiny.bundle("bert", "int8"), backend="torch") as bundled,
    ):
        np.testing.assert_allclose(alone.score_pairs(PAIRS), bundled.score_pairs(PAIRS), rtol=0, atol=ROUNDING)
        info = alone.info()
        with pytest.raises(InputError, match="PyTorch itself"):
            alone.verify()
    assert (info.name, info.bundle, info.manifest_sha256) == ("checkpoint-bert", None, None)
    assert info.source == str(checkpoint)
    assert info.max_length == 128
    assert "None" not in str(info)


def test_the_bundles_max_length_holds_in_pytorch_too(tiny: Tiny, tmp_path: Path) -> None:
    bundle = bundles.edit(bundles.copy_bundle(tiny.bundle("bert", "int8"), tmp_path / "bundle"), max_length=20)
    with Reranker.load(bundle, backend="torch") as reranker:
        assert reranker.info().max_length == 20
        documents = ["kort", "Python " * 20, "Python " * 21]
        hits = sorted(reranker.rank(QUERY, documents))
        assert [hit.truncated for hit in hits] == [False, True, True]
        assert hits[1].score == pytest.approx(hits[2].score, abs=ROUNDING)


def test_a_checkpoint_that_is_another_ones(tiny: Tiny) -> None:
    with pytest.raises(Incompatible, match="not those that the bundle checkpoint-bert was made from"):
        Reranker.load(tiny.bundle("bert", "int8"), backend="torch", checkpoint=NANO_CHECKPOINT)


def test_a_bundle_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(MissingFile):
        Reranker.load(tmp_path / "nothing", backend="torch", checkpoint=NANO_CHECKPOINT)


@pytest.mark.parametrize("name", ["torch", "transformers"])
def test_without_pytorch_the_error_says_what_to_install(tiny: Tiny, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    line = re.escape(f"pip install 'raskrank[{exporter()}]'")
    with pytest.raises(MissingExtra, match=line):
        Reranker.load(tiny.bundle("bert", "int8"), backend="torch")
    with Reranker.load(tiny.bundle("bert", "int8")) as reranker:
        with pytest.raises(MissingExtra, match=line):
            reranker.verify()
        assert len(reranker.score(QUERY, DOCUMENTS)) == len(DOCUMENTS)


# The backend itself


@pytest.mark.parametrize("family", FAMILIES[:4])  # test_modernbert.py has the others
def test_logits_are_those_of_transformers(tiny: Tiny, family: Family) -> None:
    checkpoint = tiny.checkpoint(family)
    kind = {"bert": "Bert", "xlm-roberta": "XLMRoberta", "roberta": "Roberta", "deberta-v2": "DebertaV2"}[family]
    plain: Any = getattr(transformers, f"{kind}ForSequenceClassification").from_pretrained(checkpoint).eval()
    backend = TorchBackend(read_checkpoint(checkpoint))
    assert (backend.name, backend.concurrency, backend.hidden_size) == ("torch", 1, 64)
    ids = np.random.default_rng(0).integers(5, 300, (3, 17))  # (B, L)
    types = np.zeros_like(ids)
    if family == "bert":
        types[:, 9:] = 1
    logits = backend.logits(ids, types)
    with torch.inference_mode():
        expected = plain(input_ids=torch.from_numpy(ids), token_type_ids=torch.from_numpy(types)).logits[:, 0].numpy()
    assert logits.dtype == np.float32
    assert logits.shape == (3,)
    assert np.ptp(expected) > 0.01
    np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-5)
    np.testing.assert_allclose(backend.logits(ids, types, threads=2), logits, rtol=0, atol=1e-5)
    backend.close()


def test_token_types_matter_where_the_model_has_them(tiny: Tiny) -> None:
    ids, zeros = np.arange(10, 20)[None], np.zeros((1, 10), np.int64)  # (1, L)
    bert = TorchBackend(read_checkpoint(tiny.checkpoint("bert")))
    assert abs(bert.logits(ids, zeros) - bert.logits(ids, zeros + 1)) > 0.01
    xlm_roberta = TorchBackend(read_checkpoint(tiny.checkpoint("xlm-roberta")))
    np.testing.assert_allclose(xlm_roberta.logits(ids, zeros), xlm_roberta.logits(ids, zeros + 1), rtol=0, atol=1e-5)


def test_half_precision_weights_run_in_fp32(tmp_path: Path) -> None:
    checkpoint = tiny_checkpoint(tmp_path / "checkpoint", config_updates={"torch_dtype": "bfloat16"})
    file = checkpoint / "model.safetensors"
    weights = {name: tensor.to(torch.bfloat16) for name, tensor in safetensors.torch.load_file(file).items()}
    safetensors.torch.save_file(weights, file, metadata={"format": "pt"})
    model = load_model(read_checkpoint(checkpoint))
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert not model.training


def test_an_error_of_pytorch_names_the_shape_and_no_text(tiny: Tiny) -> None:
    backend = TorchBackend(read_checkpoint(tiny.checkpoint("bert")))
    ids = np.ones((1, 129), np.int64)  # one more than there are positions
    with pytest.raises(InferenceError, match=r"^PyTorch failed on a run of 1 x 129 tokens$"):
        backend.logits(ids, np.zeros_like(ids))


def test_weights_that_do_not_fit_the_config(tiny: Tiny, tmp_path: Path) -> None:
    # Past the reader's own checks of the headers, transformers' report is checked as well.
    read = read_checkpoint(tiny.checkpoint("bert"))
    shutil.copytree(read.folder, tmp_path / "checkpoint")
    file = tmp_path / "checkpoint" / "model.safetensors"
    weights = safetensors.torch.load_file(file)
    headless = {name: tensor for name, tensor in weights.items() if not name.startswith("classifier")}
    object.__setattr__(read, "folder", file.parent)
    safetensors.torch.save_file(headless, file, metadata={"format": "pt"})
    with pytest.raises(NotACrossEncoder, match=r"the weights lack classifier\.bias, classifier\.weight"):
        load_model(read)
    file.write_bytes(b"no weights")
    with pytest.raises(CheckpointError, match="transformers cannot load these weights"):
        load_model(read)


def test_loading_leaves_the_log_level_of_transformers(tiny: Tiny, caplog: pytest.LogCaptureFixture) -> None:
    level = transformers.logging.get_verbosity()
    transformers.logging.set_verbosity(logging.INFO)
    try:
        load_model(read_checkpoint(tiny.checkpoint("bert")))
        assert transformers.logging.get_verbosity() == logging.INFO
    finally:
        transformers.logging.set_verbosity(level)


def test_a_local_folder_is_its_own_checkpoint(tmp_path: Path) -> None:
    assert local_checkpoint(str(tmp_path), None) == tmp_path


def test_a_checkpoint_that_is_nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    for model in ("nobody/nothing", "not a name at all", "/no/such/folder", "\0"):
        with pytest.raises(CheckpointError, match="neither a folder here nor in the hub's cache; pass checkpoint=FOLDER"):
            local_checkpoint(model, None)


def test_a_checkpoint_whose_name_no_file_system_allows() -> None:
    with pytest.raises(CheckpointError, match="cannot be read: File name too long"):
        local_checkpoint("x" * 5000, None)
