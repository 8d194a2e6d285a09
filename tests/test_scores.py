"""Scores and verify against transformers, and what an activation makes of logits."""

import functools
import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bundles
from builders import PAIRS, SENTENCES, Family, native_checkpoint
from callers import DOCUMENTS, QUERY
from conftest import LOOSE, Tiny
from paths import NANO_CHECKPOINT
from raskrank import CheckpointError, Incompatible, InputError, Parity, Reranker, Verification
from raskrank.cli.main import main
from raskrank.samples import as_pairs, read_samples
from raskrank.torch_backend import quiet
from raskrank_export import export

FAMILIES: tuple[Family, ...] = ("bert", "xlm-roberta", "roberta", "modernbert")
# PyTorch against onnxruntime in fp32: the same sums in another order.
FP32_TOLERANCE = 1e-4
TORCH_ROUNDING = 1e-5  # PyTorch against itself: the last digits depend on where a buffer lies, even in one process


def sigmoid(logits: Sequence[float]) -> np.ndarray[Any, np.dtype[np.float64]]:
    return 1 / (1 + np.exp(-np.asarray(logits, np.float64)))


@functools.cache
def reference(checkpoint: Path) -> Callable[[str, str, int], float]:
    """The logit of a pair by transformers alone, its tokenizer included."""
    import torch
    import transformers

    kind = json.loads((checkpoint / "config.json").read_text("utf-8"))["architectures"][0].removesuffix(
        "ForSequenceClassification"
    )
    tokenizer = "PreTrained" if kind == "ModernBert" else kind  # which has none of its own
    with quiet():
        fast = getattr(transformers, f"{tokenizer}TokenizerFast").from_pretrained(checkpoint, local_files_only=True)
        model = getattr(transformers, f"{kind}ForSequenceClassification").from_pretrained(checkpoint, local_files_only=True)
    model.eval()

    def logit(query: str, document: str, max_length: int) -> float:
        feeds = fast([query], [document], truncation="longest_first", max_length=max_length, return_tensors="pt", verbose=False)
        with torch.inference_mode():
            return float(model(**feeds).logits[0, 0])

    return logit


# Numbers, against transformers


@pytest.mark.parametrize("family", FAMILIES)
def test_scores_are_those_of_transformers(tiny: Tiny, family: Family) -> None:
    pairs = [*PAIRS, ("", ""), ("", "a"), ("a", ""), ("kort", " ".join(SENTENCES)), ("🙂", "[SEP] </s> <mask>")]
    logit = reference(tiny.checkpoint(family))
    with Reranker.load(tiny.bundle(family, "fp32")) as reranker:
        scores, max_length = reranker.score_pairs(pairs), reranker.info().max_length
        parity = reranker.verify(pairs)
    expected = [logit(query, document, max_length) for query, document in pairs]
    assert np.ptp(expected) > 1  # logits that tell pairs apart
    np.testing.assert_allclose(scores, sigmoid(expected), rtol=0, atol=FP32_TOLERANCE)
    np.testing.assert_allclose(parity.candidate_logits, expected, rtol=0, atol=FP32_TOLERANCE)
    np.testing.assert_allclose(parity.reference_logits, expected, rtol=0, atol=FP32_TOLERANCE)


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory, tiny: Tiny) -> Path:
    """The fp32 bundle of the tiny BERT, but for its activation."""
    folder = tmp_path_factory.mktemp("raw")
    identity = {"sbert_ce_default_activation_function": "torch.nn.modules.linear.Identity"}
    checkpoint = native_checkpoint(folder / "checkpoint", config_updates=identity)
    export(str(checkpoint), folder / "bundle", precision="fp32", samples=tiny.samples, thresholds=LOOSE)
    return folder / "bundle"


def test_the_activation_is_the_checkpoints(tiny: Tiny, raw: Path) -> None:
    with Reranker.load(raw) as identity, Reranker.load(tiny.bundle("bert", "fp32")) as squashed:
        assert (identity.info().activation, squashed.info().activation) == ("identity", "sigmoid")
        logits, scores = identity.score_pairs(PAIRS), squashed.score_pairs(PAIRS)
        assert identity.rank(QUERY, DOCUMENTS, top_k=3)[0].index == squashed.rank(QUERY, DOCUMENTS, top_k=3)[0].index
        order = [[hit.index for hit in reranker.rank(QUERY, DOCUMENTS)] for reranker in (identity, squashed)]
    assert logits.min() < 0
    assert logits.max() > 1
    assert logits.dtype == scores.dtype == np.float32
    np.testing.assert_allclose(scores, sigmoid(logits.tolist()), rtol=1e-6)
    assert order[0] == order[1]


def test_the_activation_in_pytorch_is_the_same(raw: Path) -> None:
    with Reranker.load(raw) as onnx_reranker, Reranker.load(raw, backend="torch") as torch_reranker:
        found, expected = onnx_reranker.score_pairs(PAIRS), torch_reranker.score_pairs(PAIRS)
    np.testing.assert_allclose(found, expected, rtol=0, atol=FP32_TOLERANCE)
    assert expected.min() < 0


@pytest.fixture(scope="module")
def sharp(tmp_path_factory: pytest.TempPathFactory, tiny: Tiny) -> Path:
    """The fp32 bundle of a model that is sure of everything: its logits are 30 higher than the tiny BERT's."""
    from safetensors.numpy import load_file, save_file

    folder = tmp_path_factory.mktemp("sharp")
    weights = native_checkpoint(folder / "checkpoint") / "model.safetensors"
    tensors = load_file(weights)
    tensors["classifier.bias"] += 30
    save_file(tensors, weights, metadata={"format": "pt"})
    export(str(folder / "checkpoint"), folder / "bundle", precision="fp32", samples=tiny.samples, thresholds=LOOSE)
    return folder / "bundle"


def test_a_models_logits_sort_where_its_scores_are_all_one(sharp: Path) -> None:
    with Reranker.load(sharp) as reranker:
        scores, logits = reranker.score(QUERY, DOCUMENTS), reranker.score(QUERY, DOCUMENTS, raw_scores=True)
        hits, raw_hits = reranker.rank(QUERY, DOCUMENTS), reranker.rank(QUERY, DOCUMENTS, raw_scores=True)
        by_pair = reranker.score_pairs([(QUERY, document) for document in DOCUMENTS], raw_scores=True)
    assert set(scores.tolist()) == {1.0}
    assert len(set(logits.tolist())) == len(DOCUMENTS)
    assert logits.dtype == by_pair.dtype == np.float32
    assert logits.tobytes() == by_pair.tobytes()
    assert [hit.index for hit in hits] == [hit.index for hit in raw_hits] == np.argsort(-logits, kind="stable").tolist()
    assert [hit.score for hit in raw_hits] == sorted(logits.tolist(), reverse=True)
    assert [hit.truncated for hit in hits] == [hit.truncated for hit in raw_hits]


@pytest.mark.parametrize("backend", ["onnx", "torch"])
def test_raw_scores_are_the_logits_whatever_the_activation(tiny: Tiny, raw: Path, backend: Any) -> None:
    squashed = tiny.bundle("bert", "fp32")
    with Reranker.load(raw, backend=backend) as identity, Reranker.load(squashed, backend=backend) as sigmoids:
        logits, rounding = identity.score_pairs(PAIRS), 0 if backend == "onnx" else TORCH_ROUNDING
        np.testing.assert_allclose(identity.score_pairs(PAIRS, raw_scores=True), logits, rtol=0, atol=rounding)
        np.testing.assert_allclose(sigmoids.score_pairs(PAIRS, raw_scores=True), logits, rtol=0, atol=rounding)
        assert not np.allclose(sigmoids.score_pairs(PAIRS, raw_scores=False), logits, rtol=0, atol=0.01)
        raw_scores = sigmoids.score(QUERY, [], raw_scores=True)
    assert raw_scores.shape == (0,)
    assert raw_scores.dtype == np.float32


# verify


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_verify_compares_with_pytorch(tiny: Tiny, precision: Any) -> None:
    with Reranker.load(tiny.bundle("bert", precision)) as reranker:
        report = reranker.verify()
        again = reranker.verify(PAIRS)
        scores = reranker.score_pairs(PAIRS)
    assert isinstance(report, Parity)
    assert (report.reference, report.candidate) == ("torch fp32", f"{reranker.info().backend} {precision}")
    assert len(report.queries) == len(as_pairs(read_samples())) == 422
    limit = FP32_TOLERANCE if precision == "fp32" else 1.0
    assert 0 < report.max_logit_difference < limit
    assert report.mean_logit_difference <= report.max_logit_difference
    if precision == "fp32":
        assert (report.tau, report.top1) == (1.0, 1.0)
    # The numbers are those of the bundle and of transformers, not of something beside them.
    np.testing.assert_allclose(sigmoid(again.candidate_logits.tolist()), scores, rtol=0, atol=1e-6)
    logit = reference(tiny.checkpoint("bert"))
    expected = [logit(query, document, 128) for query, document in PAIRS]
    np.testing.assert_allclose(again.reference_logits, expected, rtol=0, atol=1e-5)


def test_verify_of_the_embedded_model(nano: Reranker, monkeypatch: pytest.MonkeyPatch) -> None:
    with Reranker.load(checkpoint=NANO_CHECKPOINT) as reranker:
        report = reranker.verify()
    assert report.tau > 0.9
    assert report.max_drift < 0.15
    assert report.logit_spread > 1


def test_no_pairs_verify_nothing(tiny: Tiny) -> None:
    with Reranker.load(tiny.bundle("bert", "int8")) as reranker, pytest.raises(InputError, match="nothing to verify"):
        reranker.verify([])


def test_pairs_in_a_script_that_the_tokenizer_does_not_know_verify_nothing(tiny: Tiny) -> None:
    with (
        Reranker.load(tiny.bundle("bert", "int8")) as reranker,
        pytest.raises(InputError, match=r"does not know \d\d% of the pairs' tokens, at most 10% is allowed.*--pairs"),
    ):
        reranker.verify([("東京の天気", "大阪は晴れです"), ("東京の天気", "明日は雨でしょう")])


def test_verify_says_whether_it_passed(tiny: Tiny, tmp_path: Path) -> None:
    with Reranker.load(tiny.bundle("bert", "fp32")) as reranker:
        report = reranker.verify()
    assert isinstance(report, Verification)
    assert (report.passed, report.failed) == (True, {})
    assert report.thresholds == {"max_fp32_error": 10}
    assert str(report).splitlines()[-1] == "passed: max_fp32_error 10"
    folder = bundles.copy_bundle(tiny.bundle("bert", "int8"), tmp_path / "strict")
    bundles.edit(folder, parity__thresholds__max_drift=0, parity__thresholds__min_tau=1)
    with Reranker.load(folder) as reranker:
        report = reranker.verify(PAIRS)
    assert not report.passed
    assert set(report.failed) == {"min_tau", "max_drift"} or set(report.failed) == {"max_drift"}
    assert report.thresholds == {"min_tau": 1, "min_top1": 0, "max_drift": 0, "max_mean_drift": 1}
    assert str(report).splitlines()[-1] == "failed: " + "; ".join(report.failed.values())


def test_what_verify_says_is_what_the_command_says(tiny: Tiny, capsys: pytest.CaptureFixture[str]) -> None:
    bundle = tiny.bundle("bert", "fp32")
    with Reranker.load(bundle) as reranker:
        said = str(reranker.verify())
    assert main(["verify", "--bundle", str(bundle)]) == 0
    assert without_rounding(capsys.readouterr().out) == without_rounding(f"{said}\n")


def without_rounding(report: str) -> str:
    """Of fp32 the differences are rounding, which PyTorch does otherwise from one load to the next."""
    text, count = re.subn(r"\b(largest|mean) [\d.e-]+", r"\1 #", report)
    assert count == 4
    return text


def test_verify_without_the_checkpoint(nano: Reranker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # the manifest's relative path leads nowhere here
    with pytest.raises(CheckpointError, match=r"checkpoint \./export/nano is neither a folder here .* pass checkpoint=FOLDER"):
        nano.verify()
    assert len(nano.score(QUERY, DOCUMENTS)) == len(DOCUMENTS)


def test_verify_with_another_checkpoint(tiny: Tiny) -> None:
    with (
        Reranker.load(tiny.bundle("bert", "int8"), checkpoint=NANO_CHECKPOINT) as reranker,
        pytest.raises(Incompatible, match="not those that the bundle checkpoint-bert was made from"),
    ):
        reranker.verify()


def test_verify_of_pytorch_itself(tiny: Tiny) -> None:
    with (
        Reranker.load(tiny.bundle("bert", "int8"), backend="torch") as reranker,
        pytest.raises(InputError, match="without backend='torch'"),
    ):
        reranker.verify()
