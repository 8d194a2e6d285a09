"""`export` from end to end: what it writes, what it refuses, and what is left when it stops half-way."""

import hashlib
import json
import logging
import os
import random
import shutil
import signal
import subprocess
import sys
import warnings
from collections.abc import Callable
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from builders import PAIRS, Family, tiny_checkpoint, write_json
from conftest import LOOSE, Tiny
from paths import shared
from raskrank import Reranker, bundle
from raskrank.bundle import read_manifest
from raskrank.checkpoint.config import HIDDEN_ACTIVATIONS
from raskrank.errors import BundleError, CheckpointError, ExportError, InputError, NotACrossEncoder, RaskrankError
from raskrank.manifest import FILES, MANIFEST, MODEL, WEIGHTS, Precision
from raskrank.onnx_backend import MAX_LENGTH
from raskrank_export import ExportReport, export, graph
from raskrank_export.describe import MAKERS, SELF_TEST_PAIR, SELF_TEST_TOLERANCE
from raskrank_export.passes import PASSES
from raskrank_export.quantize import PORTABLE

FAMILIES: tuple[Family, ...] = ("bert", "xlm-roberta", "roberta")
PRECISIONS: tuple[Precision, ...] = ("int8", "fp32")
STEPS = [
    "read checkpoint",
    "score with PyTorch",
    "export to ONNX",
    "score with ONNX fp32",
    "score with PyTorch fp64",
    "quantize to int8",
    "score with ONNX int8",
    "write bundle",
]
INT8_STEPS = {"quantize to int8", "score with ONNX int8"}


class Recorder:
    """A Progress that remembers, and may do something when a step starts or advances."""

    def __init__(self, at: str = "", then: Callable[[], None] | None = None, *, advance: bool = False) -> None:
        self.at, self.then, self.on_advance = at, then, advance
        self.steps: list[tuple[str, int | None]] = []
        self.units: dict[str, int] = {}
        self.finished: list[float] = []

    def start(self, step: str, total: int | None) -> None:
        self.steps.append((step, total))
        self.units[step] = 0
        if self.then is not None and step == self.at and not self.on_advance:
            self.then()

    def advance(self, units: int) -> None:
        step = self.steps[-1][0]
        self.units[step] += units
        if self.then is not None and step == self.at and self.on_advance:
            self.then()

    def finish(self, seconds: float) -> None:
        self.finished.append(seconds)


@pytest.fixture
def copy(tiny: Tiny, tmp_path: Path) -> Callable[[], Path]:
    """A copy of the tiny BERT to spoil."""
    return lambda: Path(shutil.copytree(tiny.checkpoint("bert"), tmp_path / "checkpoint"))


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """An empty folder for what an export writes."""
    folder = tmp_path / "out"
    folder.mkdir()
    return folder


def edit(file: Path, **updates: object) -> None:
    write_json(file, json.loads(file.read_text("utf-8")) | updates)


def digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def entries(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def loose_export(tiny: Tiny, target: Path, **options: Any) -> ExportReport:
    settings = {"samples": tiny.samples, "thresholds": LOOSE, **options}
    return export(str(settings.pop("checkpoint", tiny.checkpoint("bert"))), target, **settings)


# What a bundle says of itself


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("family", FAMILIES)
def test_the_manifest_is_right(tiny: Tiny, family: Family, precision: Precision) -> None:
    folder, checkpoint = tiny.bundle(family, precision), tiny.checkpoint(family)
    config = json.loads((checkpoint / "config.json").read_text("utf-8"))
    manifest, _ = read_manifest(folder)
    assert manifest.format == "1.0"
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
    assert manifest.recipe.passes == {"drop_mask": 2, "hoist_first_token": 1, "merge_projections": 2}
    assert (manifest.recipe.activation_max, manifest.recipe.weight_max) == (PORTABLE if precision == "int8" else (0, 0))
    assert manifest.recipe.per_channel is (precision == "int8")
    assert manifest.recipe.instruction_set == "portable"
    assert manifest.versions == {package: version(package) for package in MAKERS}
    assert (manifest.self_test.query, manifest.self_test.document) == SELF_TEST_PAIR
    assert manifest.self_test.tolerance == SELF_TEST_TOLERANCE[precision]
    assert manifest.parity["thresholds"] == asdict(LOOSE)
    assert manifest.parity["samples"] == tiny.samples.name
    assert set(manifest.parity) == {"fp32", precision, "thresholds", "samples"}
    assert (manifest.parity["fp32"]["pairs"], manifest.parity["fp32"]["queries"]) == (12, 3)
    assert manifest.parity["fp32"]["max_logit_difference"] < 1e-5


def test_the_parameters_are_counted(tiny: Tiny) -> None:
    from transformers import BertForSequenceClassification

    model = BertForSequenceClassification.from_pretrained(tiny.checkpoint("bert"), num_labels=1)
    manifest, _ = read_manifest(tiny.bundle("bert"))
    assert manifest.parameters == sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("family", FAMILIES)
def test_files_and_digests(tiny: Tiny, family: Family, precision: Precision) -> None:
    folder = tiny.bundle(family, precision)
    manifest, _ = read_manifest(folder)
    assert sorted(path.name for path in folder.iterdir()) == sorted([MANIFEST, *FILES])
    for name, record in manifest.files.items():
        assert (record.size, record.sha256) == ((folder / name).stat().st_size, digest(folder / name))
    assert (folder / "tokenizer.json").read_bytes() == (tiny.checkpoint(family) / "tokenizer.json").read_bytes()


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("family", FAMILIES)
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


@pytest.mark.parametrize("family", FAMILIES)
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
    assert report.manifest.recipe.passes == {"drop_mask": 2, "hoist_first_token": 1, "merge_projections": 2}
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
    assert lines[0].startswith("checkpoint-bert: BertForSequenceClassification, 0.0 M parameters")
    assert lines[1] == "at most 128 tokens; license not stated"
    assert "MB checkpoint -> 0.1 MB bundle, int8" in lines[2]
    assert "layers changed: drop_mask 2, hoist_first_token 1, merge_projections 2" in lines
    assert all(len(line) <= 80 for line in lines[:-1])
    assert [line for line in lines if line.startswith("onnx fp32 against torch fp32, 12 pairs of 3 queries")]
    assert [line for line in lines if line.startswith("onnx int8 against torch fp32, 12 pairs of 3 queries")]
    assert lines[-1] == f"written to {made[0].output}"


def test_the_steps_are_told(made: tuple[ExportReport, Recorder]) -> None:
    report, recorder = made
    scored = ("PyTorch", "ONNX fp32", "PyTorch fp64", "ONNX int8")
    totals = {f"score with {name}": 12 for name in scored}
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


# Refusals write nothing


def _bi_encoder(folder: Path) -> None:
    kinds = ("Transformer", "Pooling", "Dense", "Normalize")
    modules = [{"idx": i, "name": str(i), "path": "", "type": f"sentence_transformers.models.{k}"} for i, k in enumerate(kinds)]
    (folder / "modules.json").write_text(json.dumps(modules), "utf-8")


def _pickle_only(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def _nan_weights(folder: Path) -> None:
    spoil(folder, "bert.encoder.layer.1.output.dense.weight", float("nan"))


def _infinite_weights(folder: Path) -> None:
    spoil(folder, "classifier.bias", float("-inf"))


def _nan_row_that_no_sample_reads(folder: Path) -> None:
    spoil(folder, "bert.embeddings.word_embeddings.weight", float("nan"))


def _overflow(folder: Path) -> None:
    # Every weight is finite, and the sum of two large ones is not.
    spoil(folder, "bert.pooler.dense.bias", 3e38)
    spoil(folder, "classifier.weight", 3e38, whole=True)


def spoil(folder: Path, name: str, value: float, *, whole: bool = False) -> None:
    from safetensors.torch import load_file, save_file

    tensors = load_file(folder / "model.safetensors")
    tensor = tensors[name]
    (tensor if whole else tensor.reshape(-1)[-1:]).fill_(value)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def _config(**updates: object) -> Callable[[Path], None]:
    return lambda folder: edit(folder / "config.json", **updates)


REFUSALS: dict[str, tuple[Callable[[Path], object], type[RaskrankError], str]] = {
    "bi-encoder": (_bi_encoder, NotACrossEncoder, "is a bi-encoder .*Transformer, Pooling, Dense, Normalize"),
    "no head": (_config(architectures=["BertModel"]), NotACrossEncoder, r"without a classification head \(BertModel\)"),
    "several labels": (_config(id2label={"0": "a", "1": "b", "2": "c"}), CheckpointError, "the head has 3 labels"),
    "causal": (
        _config(architectures=["Qwen2ForCausalLM"], model_type="qwen2"),
        NotACrossEncoder,
        "causal or listwise reranker",
    ),
    "pickle only": (_pickle_only, CheckpointError, r"no model\.safetensors, only pytorch_model\.bin"),
    "architecture": (
        _config(architectures=["DebertaV2ForSequenceClassification"], model_type="deberta-v2"),
        CheckpointError,
        "DebertaV2ForSequenceClassification is not supported",
    ),
    "no tokenizer": (lambda folder: (folder / "tokenizer.json").unlink(), CheckpointError, r"no tokenizer\.json"),
    "remote code": (_config(auto_map={"AutoModel": "evil.Model"}), CheckpointError, "auto_map"),
    "no config": (lambda folder: (folder / "config.json").unlink(), CheckpointError, r"no config\.json"),
    "NaN weights": (_nan_weights, ExportError, r"bert\.encoder\.layer\.1\.output\.dense\.weight holds NaN or infinity"),
    "infinite weights": (_infinite_weights, ExportError, r"classifier\.bias holds NaN or infinity"),
    "NaN row": (_nan_row_that_no_sample_reads, ExportError, r"word_embeddings\.weight holds NaN or infinity"),
    "overflow": (_overflow, ExportError, "PyTorch itself gives NaN or infinity for 12 of 12 sample pairs"),
}


@pytest.mark.parametrize("kind", REFUSALS)
def test_a_refusal_writes_nothing(tiny: Tiny, copy: Callable[[], Path], out: Path, kind: str) -> None:
    change, error, message = REFUSALS[kind]
    checkpoint = copy()
    change(checkpoint)
    before = contents(checkpoint)
    with pytest.raises(error, match=message) as caught:
        loose_export(tiny, out / "new" / "bundle", checkpoint=checkpoint)
    assert type(caught.value) is error
    assert contents(out) == {}
    assert contents(checkpoint) == before


def test_labse_is_refused(out: Path) -> None:
    with pytest.raises(NotACrossEncoder, match="bi-encoder"):
        export(str(shared("data", "tokenizers", "LaBSE")), out / "bundle")
    assert contents(out) == {}


def test_a_model_that_is_not_there(out: Path) -> None:
    with pytest.raises(CheckpointError, match="There is no folder"):
        export("no such folder", out / "bundle")
    assert contents(out) == {}


def test_a_folder_has_no_revision(tiny: Tiny, out: Path) -> None:
    with pytest.raises(CheckpointError, match="is a folder, which has no revision 'main'"):
        loose_export(tiny, out / "bundle", revision="main")
    assert contents(out) == {}


@pytest.mark.parametrize("precision", ["int4", "INT8", "", None, 8])
def test_an_unknown_precision(tiny: Tiny, out: Path, precision: Any) -> None:
    with pytest.raises(InputError, match=f"precision: expected 'int8' or 'fp32', got {precision!r}"):
        loose_export(tiny, out / "bundle", precision=precision)
    assert contents(out) == {}


def test_samples_that_cannot_be_read(tiny: Tiny, out: Path) -> None:
    with pytest.raises(InputError, match=r"none\.jsonl: cannot be read"):
        loose_export(tiny, out / "bundle", samples=out / "none.jsonl")
    assert contents(out) == {}


def test_a_crash_of_the_exporter_is_an_export_error(tiny: Tiny, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import optimum.exporters.onnx

    def crash(*arguments: object, **options: object) -> None:
        raise RuntimeError("unsupported operator")

    monkeypatch.setattr(optimum.exporters.onnx, "onnx_export_from_model", crash)
    with pytest.raises(ExportError, match="optimum could not export BertForSequenceClassification: unsupported operator"):
        loose_export(tiny, out / "bundle")
    assert contents(out) == {}


def test_a_graph_that_onnxruntime_refuses_is_an_export_error(tiny: Tiny, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(model: onnx.ModelProto) -> int:
        model.graph.node[-1].op_type = "NoSuchOperator"
        return 2

    wrong.__name__ = "merge_projections"
    monkeypatch.setattr(graph, "PASSES", (*PASSES[:2], wrong))
    with pytest.raises(ExportError, match=r"onnxruntime .* cannot load"):
        loose_export(tiny, out / "bundle")
    assert contents(out) == {}


# The target


def test_an_existing_target_is_refused_and_kept(tiny: Tiny, out: Path) -> None:
    recorder = Recorder()
    loose_export(tiny, out / "bundle")
    before = contents(out / "bundle")
    with pytest.raises(ExportError, match="bundle exists; pass overwrite=True or --overwrite"):
        loose_export(tiny, out / "bundle", precision="fp32", progress=recorder)
    assert recorder.steps == []  # before minutes of work
    assert contents(out / "bundle") == before


def test_overwrite_replaces_while_the_old_one_is_loaded(tiny: Tiny, out: Path) -> None:
    loose_export(tiny, out / "bundle")
    with Reranker.load(out / "bundle") as old:
        scores = old.score_pairs(PAIRS)
        report = loose_export(tiny, out / "bundle", precision="fp32", overwrite=True)
        # Its weights are mapped: written in place, this would be another model or a crash.
        np.testing.assert_array_equal(old.score_pairs(PAIRS), scores)
    assert entries(out) == ["bundle"]
    assert read_manifest(out / "bundle")[0] == report.manifest
    with Reranker.load(out / "bundle") as new:
        assert new.info().precision == "fp32"
        assert not np.array_equal(new.score_pairs(PAIRS), scores)


def test_a_failed_overwrite_keeps_the_old_one(tiny: Tiny, copy: Callable[[], Path], out: Path) -> None:
    checkpoint = copy()
    _nan_weights(checkpoint)
    loose_export(tiny, out / "bundle")
    before = contents(out / "bundle")
    with pytest.raises(ExportError, match="holds NaN"):
        loose_export(tiny, out / "bundle", checkpoint=checkpoint, overwrite=True)
    assert contents(out / "bundle") == before
    assert entries(out) == ["bundle"]


@pytest.mark.parametrize("step", STEPS)
def test_ctrl_c_at_any_step_leaves_nothing(tiny: Tiny, out: Path, step: str) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        loose_export(tiny, out / "new" / "bundle", progress=Recorder(step, interrupt))
    assert contents(out) == {}


def test_ctrl_c_while_scoring_leaves_nothing(tiny: Tiny, out: Path) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        loose_export(tiny, out / "bundle", progress=Recorder("score with ONNX fp32", interrupt, advance=True))
    assert contents(out) == {}


def test_a_target_that_appears_meanwhile_is_kept(tiny: Tiny, out: Path) -> None:
    with pytest.raises(ExportError, match="bundle exists"):
        loose_export(tiny, out / "bundle", progress=Recorder("write bundle", (out / "bundle").mkdir))
    assert entries(out) == ["bundle"]
    assert contents(out / "bundle") == {}


# Reproducible, and quiet


def test_two_exports_are_equal_and_name_no_machine(
    tiny: Tiny, copy: Callable[[], Path], out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = copy()
    monkeypatch.chdir(checkpoint.parent)
    for name in ("one", "two"):
        loose_export(tiny, out / name, checkpoint="checkpoint")
    one, two = contents(out / "one"), contents(out / "two")
    assert {name: hashlib.sha256(data).hexdigest() for name, data in one.items()} == {
        name: hashlib.sha256(data).hexdigest() for name, data in two.items()
    }
    places = {str(checkpoint.parent), str(Path.home()), sys.prefix, "site-packages", "/tmp/"}
    for name, data in one.items():
        assert [place for place in places if place.encode() in data] == [], name


def process_state() -> dict[str, object]:
    import torch
    import transformers

    names = ("", "raskrank", "transformers", "optimum", "onnxruntime", "torch.onnx")
    return {
        "levels": [logging.getLogger(name).level for name in names],
        "handlers": [list(logging.getLogger(name).handlers) for name in names],
        "disabled": logging.root.manager.disable,
        "verbosity": transformers.logging.get_verbosity(),
        "filters": list(warnings.filters),
        "folder": Path.cwd(),
        "streams": (sys.stdout, sys.stderr),
        "environment": dict(os.environ),
        "threads": (torch.get_num_threads(), torch.get_num_interop_threads()),
        "gradients": torch.is_grad_enabled(),
        "dtype": torch.get_default_dtype(),
        "random": (torch.get_rng_state().tolist(), np.random.get_state()[1].tolist(), random.getstate()),  # type: ignore[index]
    }


def test_an_export_is_silent_and_leaves_the_process_as_it_was(tiny: Tiny, out: Path, capfd: pytest.CaptureFixture[str]) -> None:
    tiny.bundle("bert")  # every library is imported
    capfd.readouterr()
    before = process_state()
    loose_export(tiny, out / "bundle")
    after = process_state()
    assert {key for key in before if before[key] != after[key]} == set()
    assert tuple(capfd.readouterr()) == ("", "")


def test_a_failed_export_leaves_the_process_as_it_was(tiny: Tiny, out: Path, capfd: pytest.CaptureFixture[str]) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    tiny.bundle("bert")
    capfd.readouterr()
    for step in ("export to ONNX", "quantize to int8"):
        before = process_state()
        with pytest.raises(KeyboardInterrupt):
            loose_export(tiny, out / "bundle", progress=Recorder(step, interrupt))
        after = process_state()
        assert {key for key in before if before[key] != after[key]} == set()
    assert tuple(capfd.readouterr()) == ("", "")


def test_exports_in_two_threads_leave_the_process_as_it_was(tiny: Tiny, out: Path) -> None:
    from concurrent.futures import ThreadPoolExecutor

    # The first to be quiet would otherwise restore what the second had silenced: stdout stayed lost.
    families: tuple[Family, Family] = ("bert", "roberta")
    expected = {family: read_manifest(tiny.bundle(family))[0].files for family in families}
    before = process_state()
    with ThreadPoolExecutor(2) as pool:
        jobs = [pool.submit(loose_export, tiny, out / family, checkpoint=tiny.checkpoint(family)) for family in families]
        reports = [job.result(timeout=120) for job in jobs]
    after = process_state()
    assert {key for key in before if before[key] != after[key]} == set()
    for report, family in zip(reports, families, strict=True):
        assert report.manifest.files == expected[family]


# Killed, and no space: in children of one process that has done the slow imports

CHILDREN = """
import json, os, resource, signal, sys, traceback
from pathlib import Path

import torch, transformers  # the slow part, once
import optimum.exporters.onnx, onnxruntime.transformers.optimizer
from transformers import BertForSequenceClassification
from raskrank.errors import BundleError, ExportError
from raskrank_export import Thresholds, export

checkpoint, samples, root = sys.argv[1], sys.argv[2], Path(sys.argv[3])
loose = Thresholds(min_tau=-1, min_top1=0, max_drift=1, max_mean_drift=1)


class Progress:
    def __init__(self, step, when, limit):
        self.step, self.when, self.limit, self.now = step, when, limit, ""

    def start(self, step, total):
        self.now = step
        self.reach("start")

    def advance(self, units):
        pass

    def finish(self, seconds):
        self.reach("end")

    def reach(self, when):
        if (self.now, when) != (self.step, self.when):
            return
        if self.limit is None:
            os.kill(os.getpid(), signal.SIGKILL)
        resource.setrlimit(resource.RLIMIT_FSIZE, (self.limit, resource.RLIM_INFINITY))


def child(target, *, step="", when="start", limit=None):
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            torch.set_num_threads(1)
            export(checkpoint, target, samples=samples, thresholds=loose, progress=Progress(step, when, limit))
            said = ["done", ""]
        except ExportError as error:
            said = [type(error).__name__, str(error)]
        except BaseException:
            said = ["crash", traceback.format_exc()]
        os.write(write, json.dumps(said).encode())
        os._exit(0)
    os.close(write)
    return pid, read


def result(started):
    pid, read = started
    with os.fdopen(read) as answer:
        text = answer.read()
    status = os.waitpid(pid, 0)[1]
    return ["killed", str(os.WTERMSIG(status))] if os.WIFSIGNALED(status) else json.loads(text)


def listing(folder):
    return sorted(path.name for path in folder.iterdir())


found = {"killed": {}, "limited": {}}
for name, points in (("killed", json.loads(sys.argv[4])), ("limited", json.loads(sys.argv[5]))):
    for pair in [points[place : place + 2] for place in range(0, len(points), 2)]:
        started = []
        for step, when, limit in pair:
            folder = root / f"{name}-{len(found[name]) + len(started)}"
            folder.mkdir()
            started.append((folder, f"{step}, {when}", child(folder / "bundle", step=step, when=when, limit=limit)))
        for folder, point, one in started:
            found[name][point] = [result(one), listing(folder)]
again = root / "killed-0"  # everything that was killed, at one place
for number in range(1, len(found["killed"])):
    for path in (root / f"killed-{number}").iterdir():
        path.rename(again / path.name)
found["strewn"] = listing(again)
found["again"] = [result(child(again / "bundle")), listing(again)]
folder = root / "race"
folder.mkdir()
found["race"] = [[result(started) for started in [child(folder / "bundle") for _ in range(2)]], listing(folder)]
print(json.dumps(found))
"""
# (step, when in it, most bytes that a file may have from then on). Without a number: killed.
KILLED: list[tuple[str, str, int | None]] = [
    ("score with PyTorch", "start", None),
    ("export to ONNX", "start", None),
    ("quantize to int8", "start", None),
    ("write bundle", "start", None),
    ("write bundle", "end", None),
]
LIMITED: list[tuple[str, str, int | None]] = [
    ("read checkpoint", "start", 0),
    ("export to ONNX", "start", 100_000),  # the traced graph has 190 kB
    ("export to ONNX", "end", 20_000),  # the fp32 weights have 150 kB, the graph 40 kB
    ("quantize to int8", "start", 20_000),
    ("write bundle", "start", 100),
]


@pytest.fixture(scope="module")
def children(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    if sys.platform == "win32":
        pytest.skip("needs fork and RLIMIT_FSIZE")
    root = tmp_path_factory.mktemp("children")
    arguments = [str(tiny.checkpoint("bert")), str(tiny.samples), str(root), json.dumps(KILLED), json.dumps(LIMITED)]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "TOKENIZERS_PARALLELISM": "false"}
    command = [sys.executable, "-c", CHILDREN, *arguments]
    run = subprocess.run(command, env=env, capture_output=True, text=True, timeout=150, check=False)
    assert run.returncode == 0, run.stderr
    return {"stderr": run.stderr, "root": root, **json.loads(run.stdout)}


@pytest.mark.parametrize("point", [f"{step}, {when}" for step, when, _ in KILLED])
def test_killed_at_any_step_the_target_is_absent(children: dict[str, Any], point: str) -> None:
    said, names = children["killed"][point]
    assert said == ["killed", str(int(signal.SIGKILL))]
    assert "bundle" not in names
    assert all(name.startswith(".bundle.tmp-") for name in names)
    assert names  # the control: there is something to clean up


def test_the_next_export_succeeds_and_cleans_up(children: dict[str, Any]) -> None:
    assert len(children["strewn"]) >= 2 * len(KILLED)  # a folder and a lock each
    said, names = children["again"]
    assert said == ["done", ""]
    assert names == ["bundle"]
    bundle.open_bundle(children["root"] / "killed-0" / "bundle")


@pytest.mark.parametrize("point", [f"{step}, {when}" for step, when, _ in LIMITED])
def test_a_full_disk_is_an_export_error_and_leaves_nothing(children: dict[str, Any], point: str) -> None:
    (kind, message), names = children["limited"][point]
    assert kind == "ExportError", message
    assert "File too large" in message
    assert "ulimit -f" in message
    assert names == []


def test_of_two_exports_at_once_one_wins(children: dict[str, Any]) -> None:
    said, names = children["race"]
    assert sorted(kind for kind, _ in said) == ["ExportError", "done"]
    (message,) = [text for kind, text in said if kind == "ExportError"]
    assert "pass overwrite=True or --overwrite" in message  # whether it is found before the rename, or at it
    assert names == ["bundle"]
    bundle.open_bundle(children["root"] / "race" / "bundle")


def test_the_first_export_of_a_process_is_silent(children: dict[str, Any]) -> None:
    assert children["stderr"] == ""


def test_errors_of_the_engine_do_not_leak() -> None:
    assert not issubclass(BundleError, ExportError)  # so they have to be turned into one
    assert issubclass(ExportError, RaskrankError)
