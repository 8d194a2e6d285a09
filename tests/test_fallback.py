"""Scores that are not finite and bundles that cannot be used: an error, or PyTorch where it was asked for."""

import json
import logging
from pathlib import Path

import numpy as np
import pytest

import bundles
from builders import PAIRS
from callers import DOCUMENTS, QUERY
from conftest import BROKEN, Tiny
from raskrank import BundleError, CheckpointError, Corrupt, Incompatible, MissingFile, NonFiniteScore, RaskrankWarning, Reranker
from raskrank.bundle import record
from raskrank.manifest import MANIFEST, MODEL, WEIGHTS

# PyTorch against onnxruntime in fp32: the same sums in another order.
FP32_TOLERANCE = 1e-4


# Scores that are not finite


MIXED = ["Bestemor bakte brød", f"uten {BROKEN}", "Python", f"{BROKEN} {BROKEN}", "", BROKEN.upper()]
BROKEN_AT = (1, 3, 5)


@pytest.mark.parametrize("method", ["rank", "score", "score_pairs"])
def test_a_score_that_is_no_number_is_an_error(broken: Path, method: str) -> None:
    with Reranker.load(broken) as reranker:
        arguments = [[(QUERY, document) for document in MIXED]] if method == "score_pairs" else [QUERY, MIXED]
        with pytest.raises(NonFiniteScore) as caught:
            getattr(reranker, method)(*arguments)
        assert caught.value.indices == BROKEN_AT
        assert str(caught.value) == "3 of 6 scores are NaN or infinite, at 1, 3, 5"
        # The others are not at fault, and the reranker goes on.
        good = [document for index, document in enumerate(MIXED) if index not in BROKEN_AT]
        assert np.isfinite(reranker.score(QUERY, good)).all()


def test_many_scores_that_are_no_numbers_make_a_short_message(broken: Path) -> None:
    with Reranker.load(broken) as reranker, pytest.raises(NonFiniteScore) as caught:
        reranker.score(QUERY, ["Python", *[BROKEN] * 600])
    assert caught.value.indices == tuple(range(1, 601))
    assert str(caught.value) == "600 of 601 scores are NaN or infinite, at 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, ..."


def test_a_query_that_breaks_every_pair(broken: Path) -> None:
    with Reranker.load(broken) as reranker, pytest.raises(NonFiniteScore) as caught:
        reranker.rank(f"Hva er {BROKEN}?", ["a", "b"])
    assert caught.value.indices == (0, 1)


def test_pytorch_rescues_just_these(tiny: Tiny, broken: Path, caplog: pytest.LogCaptureFixture) -> None:
    with Reranker.load(tiny.bundle("bert", "fp32")) as whole:
        expected = whole.score(QUERY, MIXED)
    with Reranker.load(broken, fallback="torch") as reranker:
        assert reranker.info().rescued_pairs == 0
        with caplog.at_level(logging.DEBUG), pytest.warns(RaskrankWarning, match="computed by PyTorch instead") as told:
            scores = reranker.score(QUERY, MIXED)
        assert reranker.info().rescued_pairs == 3
        hits = reranker.rank(QUERY, MIXED)
        assert reranker.info().rescued_pairs == 6
        assert (reranker.info().backend, reranker.info().fallback) == ("onnx", "torch")
    np.testing.assert_allclose(scores, expected, rtol=0, atol=FP32_TOLERANCE)
    assert len(told) == 1  # of both calls: the log has the second
    untouched = [index for index in range(len(MIXED)) if index not in BROKEN_AT]
    assert scores[untouched].tobytes() == expected[untouched].tobytes()
    assert [hit.index for hit in hits] == np.argsort(-scores, kind="stable").tolist()
    warnings = [entry for entry in caplog.records if entry.name == "raskrank" and entry.levelno == logging.WARNING]
    message = "3 of 6 logits were not finite and were computed by PyTorch instead"
    assert [entry.getMessage() for entry in warnings] == [message, message]
    assert BROKEN not in caplog.text.lower()
    assert QUERY not in caplog.text


def test_a_rescue_without_the_checkpoint_says_what_to_pass(
    broken: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = bundles.copy_bundle(broken, tmp_path / "bundle")
    source = json.loads((bundle / MANIFEST).read_text("utf-8"))["source"]
    bundles.edit(bundle, source=source | {"model": "nobody/nothing"})
    with Reranker.load(bundle, fallback="torch") as reranker:
        assert np.isfinite(reranker.score(QUERY, ["Python"])).all()
        with pytest.raises(CheckpointError, match=r"nobody/nothing is neither a folder here nor in .*; pass checkpoint=FOLDER"):
            reranker.score(QUERY, MIXED)


# Fallback for a whole bundle


@pytest.mark.parametrize("file", [WEIGHTS, MODEL, MANIFEST])
def test_a_corrupt_bundle_is_replaced_by_pytorch_if_asked_for(
    tiny: Tiny, tmp_path: Path, file: str, caplog: pytest.LogCaptureFixture
) -> None:
    bundle = bundles.damage(bundles.copy_bundle(tiny.bundle("bert", "fp32"), tmp_path / "bundle"), file)
    if file == MANIFEST:
        (bundle / file).write_text("{")
    with pytest.raises(Corrupt):
        Reranker.load(bundle)
    with caplog.at_level(logging.WARNING, "raskrank"), pytest.warns(RaskrankWarning, match="PyTorch takes its place"):
        fallen = Reranker.load(bundle, fallback="torch", checkpoint=tiny.checkpoint("bert"))
    assert [entry.levelno for entry in caplog.records if entry.name == "raskrank"] == [logging.WARNING]
    assert "PyTorch takes its place" in caplog.text
    with fallen, Reranker.load(tiny.bundle("bert", "fp32")) as whole:
        info = fallen.info()
        assert (info.backend, info.precision, info.fallback, info.bundle) == ("torch", "fp32", "torch", str(bundle))
        assert info.reason.startswith("fallback='torch', because the bundle cannot be used: ")
        np.testing.assert_allclose(fallen.score_pairs(PAIRS), whole.score_pairs(PAIRS), rtol=0, atol=FP32_TOLERANCE)
        assert [hit.truncated for hit in fallen.rank(QUERY, DOCUMENTS)] == [
            hit.truncated for hit in whole.rank(QUERY, DOCUMENTS)
        ]


def test_an_incompatible_bundle_is_replaced_too(tiny: Tiny, tmp_path: Path) -> None:
    bundle = bundles.copy_bundle(tiny.bundle("bert", "fp32"), tmp_path / "bundle")
    self_test = json.loads((bundle / MANIFEST).read_text("utf-8"))["self_test"]
    bundles.edit(bundle, self_test=self_test | {"logit": self_test["logit"] + 1})
    with pytest.raises(Incompatible, match="self-test"):
        Reranker.load(bundle)
    with pytest.warns(RaskrankWarning, match="PyTorch takes its place: .*self-test"):
        reranker = Reranker.load(bundle, fallback="torch")  # the manifest names the checkpoint, so nothing else is needed
    with reranker:
        assert reranker.info().backend == "torch"
        assert reranker.info().reason.startswith("fallback='torch', because the bundle cannot be used: ")


def test_a_pinned_bundle_is_never_replaced(tiny: Tiny, tmp_path: Path) -> None:
    source, checkpoint = tiny.bundle("bert", "fp32"), tiny.checkpoint("bert")
    pin = record(source / MANIFEST).sha256
    Reranker.load(source, expected_sha256=pin.upper(), fallback="torch").close()
    bundle = bundles.damage(bundles.copy_bundle(source, tmp_path / "weights"))
    with pytest.raises(Corrupt, match="contents differ"):
        Reranker.load(bundle, expected_sha256=pin, fallback="torch", checkpoint=checkpoint)
    changes: list[dict[str, object]] = [{"name": "other"}, {"format": "99.0"}, {"format": None}]
    for number, change in enumerate(changes):
        bundle = bundles.copy_bundle(source, tmp_path / str(number))
        bundles.edit(bundle, **change)
        with pytest.raises(Corrupt, match="expected_sha256 is"):
            Reranker.load(bundle, expected_sha256=pin, fallback="torch", checkpoint=checkpoint)


def test_a_pin_holds_for_pytorch_as_well(tiny: Tiny, tmp_path: Path) -> None:
    # The manifest says which checkpoint is run: one that was exchanged would choose another.
    bundle = bundles.copy_bundle(tiny.bundle("bert", "fp32"), tmp_path / "bundle")
    pin = record(bundle / MANIFEST).sha256
    Reranker.load(bundle, backend="torch", expected_sha256=pin).close()
    bundles.edit(bundle, name="other")
    with pytest.raises(Corrupt, match="expected_sha256 is"):
        Reranker.load(bundle, backend="torch", expected_sha256=pin)


def test_a_bundle_that_is_not_there_is_not_replaced(tiny: Tiny, tmp_path: Path) -> None:
    with pytest.raises(MissingFile, match="raskrank export"):
        Reranker.load(tmp_path / "nothing", fallback="torch", checkpoint=tiny.checkpoint("bert"))


def test_a_corrupt_bundle_without_a_checkpoint_stays_an_error(tiny: Tiny, tmp_path: Path) -> None:
    bundle = bundles.copy_bundle(tiny.bundle("bert", "fp32"), tmp_path / "bundle")
    (bundle / MANIFEST).write_text("{")
    with pytest.raises(BundleError, match="not valid JSON"):
        Reranker.load(bundle, fallback="torch")
