"""The main path: ranking, scores against transformers, numbers that are not finite, fallbacks, verify, and lifetimes."""

import copy
import functools
import json
import logging
import os
import pickle
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bundles
from builders import ENGLISH, NORWEGIAN, PAIRS, SENTENCES, Family, tiny_checkpoint
from conftest import BROKEN, LOOSE, Tiny
from paths import NANO_CHECKPOINT
from raskrank import (
    BundleError,
    CheckpointError,
    ClosedError,
    Corrupt,
    Incompatible,
    InputError,
    MissingFile,
    NonFiniteScore,
    Parity,
    Ranked,
    RaskrankWarning,
    Reranker,
    Verification,
)
from raskrank.backend import Float32Array, Int64Array
from raskrank.bundle import record
from raskrank.cli.main import main
from raskrank.manifest import MANIFEST, MODEL, WEIGHTS
from raskrank.onnx_backend import OnnxBackend
from raskrank.reranker import CHUNK_PAIRS
from raskrank.samples import as_pairs, read_samples
from raskrank_export import export

FAMILIES: tuple[Family, ...] = ("bert", "xlm-roberta", "roberta")
# PyTorch against onnxruntime in fp32: the same sums in another order.
FP32_TOLERANCE = 1e-4
DEADLINE = 30.0  # seconds until a test that waits for another thread fails
QUERY = "Hvem kan lære bort Python?"
DOCUMENTS = [*NORWEGIAN[4:16], *ENGLISH[4:10], "", "Python", " ".join(SENTENCES)]


@pytest.fixture(scope="module")
def nano() -> Iterator[Reranker]:
    with Reranker.load(threads=2) as reranker:
        yield reranker


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """The shape of each run that the real backend makes."""
    made: list[tuple[int, ...]] = []
    real = OnnxBackend.logits

    def logits(self: OnnxBackend, ids: Int64Array, types: Int64Array, *, spread: bool = False) -> Float32Array:
        made.append(ids.shape)
        return real(self, ids, types, spread=spread)

    monkeypatch.setattr(OnnxBackend, "logits", logits)
    return made


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
    fast = getattr(transformers, f"{kind}TokenizerFast").from_pretrained(checkpoint, local_files_only=True)
    model = getattr(transformers, f"{kind}ForSequenceClassification").from_pretrained(checkpoint, local_files_only=True).eval()

    def logit(query: str, document: str, max_length: int) -> float:
        feeds = fast([query], [document], truncation="longest_first", max_length=max_length, return_tensors="pt", verbose=False)
        with torch.inference_mode():
            return float(model(**feeds).logits[0, 0])

    return logit


# Ranking


def test_best_first_with_the_scores_of_score(nano: Reranker) -> None:
    hits = nano.rank(QUERY, DOCUMENTS)
    scores = nano.score(QUERY, DOCUMENTS)
    assert scores.dtype == np.float32
    assert scores.shape == (len(DOCUMENTS),)
    assert [hit.index for hit in hits] == np.argsort(-scores, kind="stable").tolist()
    assert [hit.score for hit in hits] == [float(scores[hit.index]) for hit in hits]
    assert DOCUMENTS[hits[0].index] == "Kari har skrevet Python i ti år og lærer gjerne bort det hun kan."


def test_a_hit_is_made_of_plain_values(nano: Reranker) -> None:
    (hit,) = nano.rank(QUERY, ["Python"])
    assert type(hit) is Ranked
    assert [type(value) for value in hit] == [int, float, bool]
    assert json.loads(json.dumps(hit._asdict()))["index"] == 0


def test_ties_keep_the_order_of_the_input(nano: Reranker) -> None:
    documents = ["Bil", "Python", "Bil", "Python", "Bil"]
    hits = nano.rank(QUERY, documents)
    assert [hit.index for hit in hits] in ([1, 3, 0, 2, 4], [0, 2, 4, 1, 3])
    assert len({hit.score for hit in hits}) == 2


@pytest.mark.parametrize("top_k", [1, 2, len(DOCUMENTS) - 1, len(DOCUMENTS), len(DOCUMENTS) + 1, 10**12])
def test_top_k_is_the_head_of_the_ranking(nano: Reranker, top_k: int) -> None:
    assert nano.rank(QUERY, DOCUMENTS, top_k=top_k) == nano.rank(QUERY, DOCUMENTS)[:top_k]


def test_top_k_may_be_a_numpy_integer(nano: Reranker) -> None:
    assert len(nano.rank(QUERY, DOCUMENTS, top_k=np.int64(2))) == 2  # type: ignore[arg-type]


def test_no_documents_need_no_run(nano: Reranker, runs: list[tuple[int, ...]]) -> None:
    assert nano.rank(QUERY, []) == []
    assert nano.rank(QUERY, [], top_k=3) == []
    for scores in (nano.score(QUERY, []), nano.score_pairs([])):
        assert scores.dtype == np.float32
        assert scores.shape == (0,)
    assert runs == []
    nano.score(QUERY, ["Python"])
    assert len(runs) == 1


def test_score_pairs_is_score_with_a_query_each(nano: Reranker) -> None:
    pairs = [(query, document) for query in (QUERY, ENGLISH[0], "") for document in DOCUMENTS]
    expected = np.concatenate([nano.score(query, DOCUMENTS) for query in (QUERY, ENGLISH[0], "")])
    assert nano.score_pairs(pairs).tobytes() == expected.tobytes()


def test_sequences_of_other_kinds_score_the_same(nano: Reranker) -> None:
    expected = nano.score(QUERY, DOCUMENTS)
    assert nano.score(QUERY, tuple(DOCUMENTS)).tobytes() == expected.tobytes()
    assert nano.score(np.str_(QUERY), [np.str_(text) for text in DOCUMENTS]).tobytes() == expected.tobytes()
    assert nano.rank(QUERY, tuple(DOCUMENTS)) == nano.rank(QUERY, DOCUMENTS)


def test_more_pairs_than_a_chunk_keep_their_order(nano: Reranker, runs: list[tuple[int, ...]]) -> None:
    documents = [f"Dokument {number}" for number in range(40)]
    numbers = [number % 40 for number in range(CHUNK_PAIRS + 100)]
    few, many = nano.score("nummer", documents), nano.score("nummer", [documents[number] for number in numbers])
    assert many.tobytes() == few[numbers].tobytes()
    assert sum(rows for rows, _ in runs) == 40 + len(numbers)
    assert max(rows for rows, _ in runs) > 1  # equal lengths share runs
    hits = nano.rank("nummer", [documents[number] for number in numbers])
    assert sorted(hit.index for hit in hits) == list(range(len(numbers)))
    assert [(hit.score, -hit.index) for hit in hits] == sorted(((hit.score, -hit.index) for hit in hits), reverse=True)


def test_truncated_says_which_documents_were_not_read_whole(nano: Reranker) -> None:
    long = " ".join(SENTENCES * 4)
    hits = sorted(nano.rank("Hva er kort?", ["kort", long, "", long + "!"]))
    assert [hit.truncated for hit in hits] == [False, True, False, True]
    # What lies behind the cut does not matter.
    assert hits[1].score == hits[3].score


def test_nothing_of_the_callers_is_changed(nano: Reranker) -> None:
    documents, pairs = list(DOCUMENTS), [[QUERY, document] for document in DOCUMENTS]
    kept = copy.deepcopy((documents, pairs))
    nano.rank(QUERY, documents, top_k=2)
    nano.score(QUERY, documents)
    nano.score_pairs(pairs)  # type: ignore[arg-type]
    assert (documents, pairs) == kept


def test_what_a_caller_changes_during_a_call_does_not_matter(nano: Reranker, monkeypatch: pytest.MonkeyPatch) -> None:
    expected, documents, real = nano.score(QUERY, DOCUMENTS), list(DOCUMENTS), OnnxBackend.logits

    def logits(self: OnnxBackend, ids: Int64Array, types: Int64Array, *, spread: bool = False) -> Float32Array:
        documents.clear()
        return real(self, ids, types, spread=spread)

    monkeypatch.setattr(OnnxBackend, "logits", logits)
    assert nano.score(QUERY, documents).tobytes() == expected.tobytes()
    assert documents == []


def test_scores_belong_to_the_caller(nano: Reranker) -> None:
    scores = nano.score(QUERY, DOCUMENTS)
    kept = scores.copy()
    scores += 1
    assert nano.score(QUERY, DOCUMENTS).tobytes() == kept.tobytes()


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
    checkpoint = tiny_checkpoint(folder / "checkpoint", config_updates=identity)
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
    weights = tiny_checkpoint(folder / "checkpoint") / "model.safetensors"
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
        logits = identity.score_pairs(PAIRS)
        np.testing.assert_array_equal(identity.score_pairs(PAIRS, raw_scores=True), logits)
        np.testing.assert_array_equal(sigmoids.score_pairs(PAIRS, raw_scores=True), logits)
        assert not np.array_equal(sigmoids.score_pairs(PAIRS, raw_scores=False), logits)
        raw_scores = sigmoids.score(QUERY, [], raw_scores=True)
    assert raw_scores.shape == (0,)
    assert raw_scores.dtype == np.float32


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


# verify


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_verify_compares_with_pytorch(tiny: Tiny, precision: Any) -> None:
    with Reranker.load(tiny.bundle("bert", precision)) as reranker:
        report = reranker.verify()
        again = reranker.verify(PAIRS)
        scores = reranker.score_pairs(PAIRS)
    assert isinstance(report, Parity)
    assert (report.reference, report.candidate) == ("torch fp32", f"onnx {precision}")
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
    assert capsys.readouterr().out == f"{said}\n"


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
        pytest.raises(InputError, match="backend='onnx'"),
    ):
        reranker.verify()


# info


def test_info_says_what_runs(tiny: Tiny) -> None:
    bundle = tiny.bundle("bert", "int8")
    with Reranker.load(bundle, threads=3) as reranker:
        info = reranker.info()
        assert repr(reranker) == "<Reranker checkpoint-bert on onnx>"
    assert (info.threads, info.threads_reason) == (3, "as asked for")
    assert (info.precision, info.activation, info.max_length) == ("int8", "sigmoid", 128)
    assert info.manifest_sha256 == record(bundle / MANIFEST).sha256
    assert info.source == str(tiny.checkpoint("bert"))
    assert info.rescued_pairs == 0
    text = str(info)
    for part in ("checkpoint-bert", "int8", "BertForSequenceClassification", str(bundle), info.cpu, "as asked for"):
        assert part in text
    assert "None" not in text
    labels = [line.split("  ")[0].strip() for line in text.splitlines()]
    assert labels[0] == "name"
    assert "rescued pairs" in labels
    assert "fallback" not in labels


def test_info_counts_the_cpus(nano: Reranker) -> None:
    with Reranker.load() as reranker:
        info = reranker.info()
    assert 1 <= info.threads <= (os.cpu_count() or 1)
    assert info.threads_reason == "CPUs that affinity and cgroup quota allow"


# Lifetimes


def test_pickling_loads_the_same_again(tiny: Tiny) -> None:
    with Reranker.load(tiny.bundle("bert", "int8"), threads=2) as reranker:
        with pickle.loads(pickle.dumps(reranker)) as again:
            assert again is not reranker
            assert again.score(QUERY, DOCUMENTS).tobytes() == reranker.score(QUERY, DOCUMENTS).tobytes()
            assert again.info() == reranker.info()
        assert len(reranker.score(QUERY, DOCUMENTS)) == len(DOCUMENTS)


def test_a_pickle_is_small_and_holds_no_texts(nano: Reranker) -> None:
    nano.score("hemmelig spørring", ["hemmelig dokument"])
    data = pickle.dumps(nano)
    assert len(data) < 2000
    assert b"hemmelig" not in data


@pytest.mark.parametrize("used", [False, True])
def test_use_after_close(tiny: Tiny, used: bool) -> None:
    reranker = Reranker.load(tiny.bundle("bert", "int8"), threads=2)
    if used:
        reranker.score(QUERY, DOCUMENTS)
    reranker.close()
    reranker.close()
    calls: list[Callable[[], object]] = [
        lambda: reranker.rank(QUERY, DOCUMENTS),
        lambda: reranker.rank(QUERY, []),
        lambda: reranker.score(QUERY, DOCUMENTS),
        lambda: reranker.score(QUERY, []),
        lambda: reranker.score_pairs([(QUERY, "a")]),
        lambda: reranker.verify(),
        lambda: reranker.verify([(QUERY, "a")]),
    ]
    for call in calls:
        with pytest.raises(ClosedError, match="closed; load it again"):
            call()
    assert reranker.info().name == "checkpoint-bert"


def test_a_context_manager_closes_on_errors_too(tiny: Tiny) -> None:
    with Reranker.load(tiny.bundle("bert", "int8")) as left:
        left.score(QUERY, ["a"])
    with pytest.raises(KeyError), Reranker.load(tiny.bundle("bert", "int8")) as reranker:
        raise KeyError
    for closed in (left, reranker):
        with pytest.raises(ClosedError, match="closed"):
            closed.score(QUERY, ["a"])


def test_close_ends_the_threads(tiny: Tiny) -> None:
    before = threading.active_count()
    reranker = Reranker.load(tiny.bundle("bert", "int8"), threads=4)
    reranker.score(QUERY, DOCUMENTS)
    assert before < threading.active_count() <= before + 4
    reranker.close()
    assert threading.active_count() == before


@pytest.mark.parametrize("workers", [1, 2])
def test_close_lets_calls_of_other_threads_end(tiny: Tiny, runs: list[tuple[int, ...]], workers: int) -> None:
    reranker = Reranker.load(tiny.bundle("bert", "int8"), threads=workers)
    documents = DOCUMENTS * (2 * CHUNK_PAIRS // len(DOCUMENTS))
    expected = np.tile(reranker.score(QUERY, DOCUMENTS), len(documents) // len(DOCUMENTS))
    results: list[bytes] = []
    refused: list[str] = []

    def call() -> None:
        try:
            results.append(reranker.score(QUERY, documents).tobytes())
        except ClosedError as error:  # one that had not begun
            refused.append(str(error))

    runs.clear()
    callers = [threading.Thread(target=call, daemon=True) for _ in range(3)]
    for caller in callers:
        caller.start()
    deadline = time.monotonic() + DEADLINE
    while not runs and time.monotonic() < deadline:
        time.sleep(0.001)
    closers = [threading.Thread(target=reranker.close, daemon=True) for _ in range(2)]
    for thread in closers:
        thread.start()
    for thread in [*closers, *callers]:
        thread.join(DEADLINE)
        assert not thread.is_alive()
    assert len(results) + len(refused) == 3
    assert results
    assert set(results) == {expected.tobytes()}
    assert set(refused) <= {"this Reranker is closed; load it again"}


def test_threads_share_a_reranker(tiny: Tiny) -> None:
    queries = [QUERY, *NORWEGIAN[:7]]
    with Reranker.load(tiny.bundle("xlm-roberta", "int8"), threads=2) as reranker:
        serial = {query: (reranker.score(query, DOCUMENTS).tobytes(), reranker.rank(query, DOCUMENTS)) for query in queries}
        wrong: list[str] = []
        finished: list[str] = []

        def call(query: str) -> None:
            for _ in range(12):
                if (reranker.score(query, DOCUMENTS).tobytes(), reranker.rank(query, DOCUMENTS)) != serial[query]:
                    wrong.append(query)
            finished.append(query)

        threads = [threading.Thread(target=call, args=(query,), daemon=True) for query in queries]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(DEADLINE)
    assert sorted(finished) == sorted(queries)
    assert wrong == []


def test_two_rerankers_do_not_meet(tiny: Tiny, nano: Reranker) -> None:
    alone = nano.score(QUERY, DOCUMENTS).tobytes()
    with Reranker.load(tiny.bundle("bert", "int8")) as other:
        assert other.score(QUERY, DOCUMENTS).tobytes() != alone
        assert nano.score(QUERY, DOCUMENTS).tobytes() == alone
    assert nano.score(QUERY, DOCUMENTS).tobytes() == alone
