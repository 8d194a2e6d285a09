"""`export` from end to end: what a bundle says of itself, the report, and max_length."""

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from builders import PAIRS, Family, tiny_checkpoint
from conftest import LOOSE, Tiny
from exporting import INT8_STEPS, STEPS, Recorder, contents, loose_export, passes
from raskrank import Reranker, kernels
from raskrank.bundle import read_manifest
from raskrank.checkpoint.config import HIDDEN_ACTIVATIONS
from raskrank.errors import InputError
from raskrank.manifest import FILES, MANIFEST, MODEL, WEIGHTS, Precision
from raskrank.onnx_backend import MAX_LENGTH
from raskrank_export import ExportReport, tracing
from raskrank_export.describe import MAKERS, SELF_TEST_PAIR, SELF_TEST_TOLERANCE
from raskrank_export.quantization import EXACT, PORTABLE

FAMILIES: tuple[Family, ...] = ("bert", "xlm-roberta", "roberta", "deberta-v2")
ALL: tuple[Family, ...] = (*FAMILIES, "modernbert", "ettin")
NATIVE = frozenset({"bert", "xlm-roberta", "roberta"})  # that our own kernels run
PRECISIONS: tuple[Precision, ...] = ("int8", "fp32")


@pytest.fixture
def copy(tiny: Tiny, tmp_path: Path) -> Callable[[], Path]:
    """A copy of the tiny BERT to spoil."""
    return lambda: Path(shutil.copytree(tiny.checkpoint("bert"), tmp_path / "checkpoint"))


def digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


# What a bundle says of itself


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("family", FAMILIES)
def test_the_manifest_is_right(tiny: Tiny, family: Family, precision: Precision) -> None:
    folder, checkpoint = tiny.bundle(family, precision), tiny.checkpoint(family)
    config = json.loads((checkpoint / "config.json").read_text("utf-8"))
    manifest, _ = read_manifest(folder)
    assert manifest.format == "2.0"
    assert manifest.name == checkpoint.name
    assert manifest.source.model == str(checkpoint)
    assert manifest.source.revision is None
    assert manifest.source.weights_sha256 == digest(checkpoint / "model.safetensors")
    assert manifest.architecture == config["architectures"][0]
    assert manifest.hidden_size == config["hidden_size"]
    assert manifest.vocab_size == config["vocab_size"]
    assert manifest.pad_id == config["pad_token_id"]
    assert manifest.max_length == 128
    assert manifest.inputs == (("input_ids", "token_type_ids") if family == "bert" else ("input_ids",))
    assert manifest.activation == "sigmoid"
    assert manifest.precision == precision
    native = family in NATIVE
    assert (manifest.recipe.scheme, manifest.encoder is not None) == (
        ("group" if native else "row", native) if precision == "int8" else ("fp32", False)
    )
    assert manifest.recipe.passes == passes(2)
    assert (manifest.recipe.activation_max, manifest.recipe.weight_max) == (
        (EXACT if native else PORTABLE) if precision == "int8" else (0, 0)
    )
    assert manifest.recipe.per_channel is (precision == "int8")
    assert manifest.recipe.instruction_set == "portable"
    assert manifest.versions == {package: version(package) for package in (*MAKERS, *tracing.makers())}
    assert (manifest.self_test.query, manifest.self_test.document) == SELF_TEST_PAIR
    least = SELF_TEST_TOLERANCE[precision]
    moved = manifest.parity["int8"]["max_logit_difference"] if precision == "int8" else 0
    assert manifest.self_test.tolerance == max(least, moved)
    assert manifest.parity["thresholds"] == asdict(LOOSE)
    assert manifest.parity["samples"] == tiny.samples.name
    judged = {"native"} if manifest.encoder is not None and kernels.unavailable() is None else set[str]()
    assert set(manifest.parity) == {"fp32", precision, "thresholds", "samples"} | judged
    assert [manifest.parity[name]["candidate"] for name in judged] == [f"native {precision}" for _ in judged]
    assert (manifest.parity["fp32"]["pairs"], manifest.parity["fp32"]["queries"]) == (12, 3)
    assert manifest.parity["fp32"]["max_logit_difference"] < 1e-5


def test_the_parameters_are_counted(tiny: Tiny) -> None:
    from transformers import BertForSequenceClassification

    model = BertForSequenceClassification.from_pretrained(tiny.checkpoint("bert"), num_labels=1)
    manifest, _ = read_manifest(tiny.bundle("bert"))
    assert manifest.parameters == sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("family", ALL)
def test_files_and_digests(tiny: Tiny, family: Family, precision: Precision) -> None:
    folder = tiny.bundle(family, precision)
    manifest, _ = read_manifest(folder)
    assert sorted(path.name for path in folder.iterdir()) == sorted([MANIFEST, *FILES])
    for name, record in manifest.files.items():
        assert (record.size, record.sha256) == ((folder / name).stat().st_size, digest(folder / name))
    assert (folder / "tokenizer.json").read_bytes() == (tiny.checkpoint(family) / "tokenizer.json").read_bytes()


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("family", ALL)
def test_the_graph_is_valid_and_its_weights_lie_beside_it(tiny: Tiny, family: Family, precision: Precision) -> None:
    folder = tiny.bundle(family, precision)
    onnx.checker.check_model(str(folder / MODEL))
    model = onnx.load(str(folder / MODEL), load_external_data=False)
    places = {entry.value for tensor in model.graph.initializer for entry in tensor.external_data if entry.key == "location"}
    assert places == {WEIGHTS}
    assert len(model.graph.node) > 0
    assert {node.domain for node in model.graph.node} <= {"", "com.microsoft"}
    assert not model.functions
    assert [entry.key for entry in model.metadata_props] == [MAX_LENGTH]


@pytest.mark.parametrize("family", ALL)
def test_it_ranks_as_pytorch_does(tiny: Tiny, family: Family) -> None:
    checkpoint = tiny.checkpoint(family)
    with Reranker.load(backend="torch", checkpoint=checkpoint) as reference, Reranker.load(tiny.bundle(family, "fp32")) as same:
        np.testing.assert_allclose(same.score_pairs(PAIRS), reference.score_pairs(PAIRS), rtol=0, atol=1e-5)
        documents = [document for _, document in PAIRS]
        order = [hit.index for hit in same.rank(PAIRS[0][0], documents)]
        assert order == [hit.index for hit in reference.rank(PAIRS[0][0], documents)]
    with Reranker.load(tiny.bundle(family, "int8"), checkpoint=checkpoint) as reranker:
        assert reranker.verify(PAIRS).max_drift < 0.15


@pytest.mark.parametrize("activation", sorted(HIDDEN_ACTIVATIONS - {"gelu"}))
def test_every_activation_that_transformers_computes_is_exported(tiny: Tiny, tmp_path: Path, activation: str) -> None:
    checkpoint = tiny_checkpoint(tmp_path / activation, config_updates={"hidden_act": activation})
    report = loose_export(tiny, tmp_path / "bundle", checkpoint=checkpoint)
    assert (report.manifest.precision, report.left) == ("int8", ())
    assert report.manifest.recipe.passes == passes(2)
    assert report.fp32_parity.max_logit_difference < 1e-4
    assert report.parity.mean_drift < 0.1  # a range that leaves out negative values is off by more
    with Reranker.load(tmp_path / "bundle", threads=2) as reranker:
        together = reranker.score_pairs(PAIRS)
        alone = [reranker.score_pairs([pair])[0] for pair in PAIRS]
    assert together.tolist() == alone


def test_a_linear_activation_with_constant_ranges(tiny: Tiny, tmp_path: Path) -> None:
    checkpoint = tiny_checkpoint(tmp_path / "linear", config_updates={"hidden_act": "linear"})
    report = loose_export(tiny, tmp_path / "bundle", checkpoint=checkpoint, scheme="constant")
    assert (report.manifest.precision, report.manifest.recipe.scheme) == ("int8", "constant")


@pytest.mark.parametrize("activation", ["Tanh", "Softplus"])
def test_other_activations_of_the_score_rank_the_same(tiny: Tiny, tmp_path: Path, activation: str) -> None:
    import torch

    checkpoint = tiny_checkpoint(
        tmp_path / "checkpoint",
        config_updates={"sbert_ce_default_activation_function": f"torch.nn.modules.activation.{activation}"},
    )
    report = loose_export(tiny, tmp_path / "bundle", checkpoint=checkpoint, precision="fp32")
    assert report.manifest.activation == activation.lower()
    documents = [document for _, document in PAIRS]
    with Reranker.load(tmp_path / "bundle") as ours, Reranker.load(backend="torch", checkpoint=checkpoint) as theirs:
        logits = ours.verify([(PAIRS[0][0], document) for document in documents]).candidate_logits
        scores = ours.score(PAIRS[0][0], documents)
        expected = getattr(torch.nn, activation)()(torch.from_numpy(logits)).numpy()
        np.testing.assert_allclose(scores, expected, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(scores, theirs.score(PAIRS[0][0], documents), rtol=1e-4, atol=1e-4)
        assert [hit.index for hit in ours.rank(PAIRS[0][0], documents)] == np.argsort(-logits, kind="stable").tolist()


def test_the_license_and_languages_of_the_card_are_kept(tiny: Tiny, copy: Callable[[], Path], out: Path) -> None:
    checkpoint = copy()
    (checkpoint / "README.md").write_text("---\nlicense: mit\nlanguage:\n- nb\n- en\n---\n# Card\n", "utf-8")
    report = loose_export(tiny, out / "bundle", checkpoint=checkpoint)
    assert (report.manifest.source.license, report.manifest.source.languages) == ("mit", ("nb", "en"))


@pytest.mark.parametrize("name", [".", "../checkpoint", "../checkpoint/", "../other/../checkpoint"])
def test_a_bundle_has_the_name_of_the_folder(
    tiny: Tiny, copy: Callable[[], Path], out: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    checkpoint = copy()
    (checkpoint.parent / "other").mkdir()
    monkeypatch.chdir(checkpoint)
    report = loose_export(tiny, out / "bundle", checkpoint=name)
    assert (report.manifest.name, report.manifest.source.model) == ("checkpoint", name)


# The report


@pytest.fixture(scope="module")
def made(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> tuple[ExportReport, Recorder]:
    recorder = Recorder()
    return loose_export(tiny, tmp_path_factory.mktemp("made") / "bundle", progress=recorder), recorder


def test_the_report_is_what_was_written(tiny: Tiny, made: tuple[ExportReport, Recorder]) -> None:
    report, _ = made
    folder = Path(report.output)
    manifest, sha256 = read_manifest(folder)
    assert (report.manifest, report.manifest_sha256) == (manifest, sha256)
    assert report.bundle_bytes == sum(path.stat().st_size for path in folder.iterdir())
    assert report.checkpoint_bytes == (tiny.checkpoint("bert") / "model.safetensors").stat().st_size
    assert report.peak_memory_bytes is not None
    assert (report.to_dict()["int8_products"], report.to_dict()["int8_embeddings"]) == (
        9,
        3,
    )  # four products a layer, the query of the last apart
    assert 50_000_000 < report.peak_memory_bytes < 50_000_000_000
    assert report.parity.summary() == manifest.parity["int8"]
    assert report.fp32_parity.summary() == manifest.parity["fp32"]
    with Reranker.load(folder, expected_sha256=report.manifest_sha256):
        pass


def test_the_report_is_json(made: tuple[ExportReport, Recorder]) -> None:
    report, _ = made
    text = json.dumps(report.to_dict(), allow_nan=False)
    assert json.loads(text)["manifest"]["parity"]["int8"]["pairs"] == 12
    assert "NaN" not in text


def test_the_report_reads_well(made: tuple[ExportReport, Recorder]) -> None:
    lines = str(made[0]).splitlines()
    assert lines[0].startswith("checkpoint-bert: BertForSequenceClassification, 0.1 M parameters")
    assert lines[1] == "at most 128 tokens; license not stated"
    assert "MB checkpoint -> 0.2 MB bundle, int8" in lines[2]
    changed = ", ".join(f"{name} {count}" for name, count in passes(2).items())
    assert f"layers changed: {changed}" in lines
    assert all(len(line) <= 80 for line in lines[:-1])
    assert [line for line in lines if line.startswith("onnx fp32 against torch fp32, 12 pairs of 3 queries")]
    assert [line for line in lines if line.startswith("onnx int8 against torch fp32, 12 pairs of 3 queries")]
    assert lines[-1] == f"written to {made[0].output}"


def test_the_steps_are_told(made: tuple[ExportReport, Recorder]) -> None:
    report, recorder = made
    totals = {step: 12 for step in STEPS if step.startswith("score with")}
    in_fp64 = dict(recorder.steps)["score with PyTorch fp64"]  # some pairs, and those that differ most
    assert in_fp64 is not None
    assert 0 < in_fp64 <= 12
    totals["score with PyTorch fp64"] = in_fp64
    assert recorder.steps == [(step, totals.get(step)) for step in STEPS]
    assert recorder.units == {step: totals.get(step, 0) for step in STEPS}
    assert recorder.finished == list(report.seconds.values())
    assert list(report.seconds) == STEPS


def test_fp32_skips_what_int8_needs(tiny: Tiny, out: Path) -> None:
    recorder = Recorder()
    report = loose_export(tiny, out / "bundle", precision="fp32", progress=recorder)
    assert [step for step, _ in recorder.steps] == [step for step in STEPS if step not in INT8_STEPS]
    assert report.parity is report.fp32_parity
    assert "onnx int8" not in str(report)


# max_length


def test_a_shorter_max_length_is_recorded_and_used(tiny: Tiny, out: Path) -> None:
    checkpoint = tiny.checkpoint("bert")
    report = loose_export(tiny, out / "bundle", precision="fp32", max_length=16)
    assert report.manifest.max_length == 16
    long, head = " ".join(["båt"] * 100), "båt båt"
    with Reranker.load(out / "bundle") as reranker, Reranker.load(tiny.bundle("bert", "fp32")) as full:
        assert reranker.info().max_length == 16
        assert [hit.truncated for hit in reranker.rank("a", [head, long])] != [False, False]
        assert reranker.score("a", [head]) == pytest.approx(full.score("a", [head]), abs=1e-6)
        assert reranker.score("a", [long]) != pytest.approx(full.score("a", [long]), abs=1e-4)
        shortened = reranker.score("a", [long])
    with Reranker.load(out / "bundle", backend="torch", checkpoint=checkpoint) as reference:
        assert reference.info().max_length == 16
        assert reference.score("a", [long]) == pytest.approx(shortened, abs=1e-6)


def test_the_least_max_length_works(tiny: Tiny, out: Path) -> None:
    loose_export(tiny, out / "bundle", precision="fp32", max_length=5)
    with Reranker.load(out / "bundle") as reranker:
        assert np.isfinite(reranker.score("Hvem kan Python?", ["Kari", ""])).all()


@pytest.mark.parametrize(
    ("max_length", "message"),
    [
        (129, "expected 5 to 128 tokens for this checkpoint, got 129"),
        (4, "expected 5 to 128 tokens for this checkpoint, got 4"),
        (0, "expected an int of at least 1, got 0"),
        (-1, "expected an int of at least 1, got -1"),
        (True, "expected an int of at least 1, got bool"),
        (64.0, "expected an int of at least 1, got float"),
        ("64", "expected an int of at least 1, got str"),
    ],
)
def test_max_length_is_checked(tiny: Tiny, out: Path, max_length: Any, message: str) -> None:
    with pytest.raises(InputError, match=f"max_length: {message}"):
        loose_export(tiny, out / "bundle", max_length=max_length)
    assert contents(out) == {}
