"""What `export` refuses, and what it does with its target."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from builders import PAIRS, write_json
from conftest import Tiny
from exporting import STEPS, Recorder, contents, loose_export
from paths import shared
from raskrank import Reranker
from raskrank.bundle import read_manifest
from raskrank.errors import CheckpointError, ExportError, InputError, NotACrossEncoder, RaskrankError
from raskrank_export import export, graph
from raskrank_export.passes import PASSES


@pytest.fixture
def copy(tiny: Tiny, tmp_path: Path) -> Callable[[], Path]:
    """A copy of the tiny BERT to spoil."""
    return lambda: Path(shutil.copytree(tiny.checkpoint("bert"), tmp_path / "checkpoint"))


def edit(file: Path, **updates: object) -> None:
    write_json(file, json.loads(file.read_text("utf-8")) | updates)


def entries(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


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
        _config(architectures=["RoFormerForSequenceClassification"], model_type="roformer"),
        CheckpointError,
        "RoFormerForSequenceClassification is not supported",
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
