"""A plain export, which a bundle is measured beside: of every family, and on the command line."""

import json
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import get_args

import numpy as np
import pytest

from builders import PAIRS, REIMPLEMENTED, Family, native_checkpoint
from conftest import Tiny
from exporting import loose_export
from paths import NANO_CHECKPOINT
from plain import check_plain
from raskrank import ExportError, Incompatible, Reranker
from raskrank.bundle import read_manifest
from raskrank.cli.main import main
from raskrank.measure.contenders import PLAIN, PlainExport, loaded_for_bench
from raskrank_export.plain import plain_export
from raskrank_export.tracing import optimum

QUICK = ("--seconds", "4", "--passages", "10")


@pytest.mark.parametrize("family", get_args(Family))
def test_a_plain_export_is_what_optimum_makes_or_torch_where_transformers_has_no_class(
    tiny: Tiny, family: Family, tmp_path: Path
) -> None:
    by = check_plain(tiny, family, tmp_path / "plain").by
    if family in REIMPLEMENTED:
        assert by.startswith(f"torch.onnx {version('torch')} of our own model in PyTorch, since transformers has no ")
    elif family == "ettin":
        assert by == f"torch.onnx {version('torch')} of transformers' encoder with the head that its modules describe"
    else:
        assert by == f"optimum-onnx {version('optimum-onnx')}"


@pytest.mark.parametrize("label", ["LABEL_0", "LABEL_1"])
def test_two_labels_are_one_logit_there_too(tiny: Tiny, label: str, tmp_path: Path) -> None:
    checkpoint = native_checkpoint(tmp_path / "checkpoint", "bert", labels=2)
    loose_export(tiny, tmp_path / "bundle", checkpoint=checkpoint, precision="fp32", relevant_label=label)
    plain_export(tmp_path / "bundle", tmp_path / "plain", checkpoint=checkpoint)
    with (
        Reranker.load(tmp_path / "plain", backend="onnx") as plain,
        Reranker.load(tmp_path / "bundle", backend="onnx") as bundle,
    ):
        logits, expected = (reranker.score_pairs(PAIRS, raw_scores=True) for reranker in (plain, bundle))
    np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-3)


def test_a_trimmed_bundle_is_measured_beside_the_whole_vocabulary(tiny: Tiny, tmp_path: Path) -> None:
    corpus = tmp_path / "corpus.txt"
    corpus.write_text("\n".join(f"{query} {document}" for query, document in PAIRS), "utf-8")
    report = loose_export(tiny, tmp_path / "bundle", precision="fp32", trim_vocab=[corpus])
    plain_export(tmp_path / "bundle", tmp_path / "plain", checkpoint=tiny.checkpoint())
    assert read_manifest(tmp_path / "plain")[0].vocab_size > report.manifest.vocab_size
    with Reranker.load(tmp_path / "plain", backend="onnx") as plain, Reranker.load(tiny.bundle("bert", "fp32")) as whole:
        logits, expected = (reranker.score_pairs(PAIRS, raw_scores=True) for reranker in (plain, whole))
    np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-3)


def test_another_checkpoint_is_refused(tiny: Tiny, tmp_path: Path) -> None:
    with pytest.raises(Incompatible, match="its weights are not those that the bundle"):
        plain_export(tiny.bundle(), tmp_path / "plain", checkpoint=NANO_CHECKPOINT)
    assert not (tmp_path / "plain").exists()


def test_an_exporter_that_fails_leaves_nothing(tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def trace(*_: object) -> Path:
        raise RuntimeError("no symbolic function for aten::outlandish\nand a page more")

    monkeypatch.setattr(optimum, "trace", trace)
    with pytest.raises(ExportError, match=r"^optimum could not export BertForSequenceClassification: no symbolic "):
        plain_export(tiny.bundle(), tmp_path / "plain", checkpoint=tiny.checkpoint())
    assert [*tmp_path.iterdir()] == []


def test_it_takes_turns_in_onnxruntime_whatever_runs_the_bundle(tiny: Tiny, tmp_path: Path) -> None:
    made = plain_export(tiny.bundle(), tmp_path / "plain", checkpoint=tiny.checkpoint())
    plain = PlainExport(folder=tmp_path / "plain", checkpoint=made.checkpoint, made=made.by)
    with loaded_for_bench([tiny.bundle()], threads=1, plain=plain) as contenders:
        bundle, beside = contenders.values()
        assert [*contenders] == [tiny.bundle().name, PLAIN]
        assert beside.backend == "onnx"
        documents = [document for _, document in PAIRS]
        assert beside.pair_lengths("by", documents) == bundle.pair_lengths("by", documents)


# the command


def test_bench_against_plain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.delenv("RASKRANK_MODEL", raising=False)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    options = ["--against", "plain", "--checkpoint", str(NANO_CHECKPOINT), *QUICK]
    assert main(["bench", "--json", *options]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    data = json.loads(captured.out)
    ours, theirs = data["models"]
    assert (ours["plain"], theirs["plain"]) == (None, f"optimum-onnx {version('optimum-onnx')}")
    assert (theirs["label"], theirs["backend"], theirs["precision"]) == (PLAIN, "onnx", "fp32")
    assert theirs["folder"] == str(NANO_CHECKPOINT)
    assert theirs["fresh"]["first_score_s"] > 0
    most = max(data["workloads"], key=lambda workload: workload["passages"])
    assert most["models"][1]["times_as_long"]["median"] > 0
    assert most["models"][1]["tokens"] == most["models"][0]["tokens"]
    assert most["models"][1]["kendall_tau"] > 0.8
    assert [*tmp_path.iterdir()] == []


def test_bench_says_what_the_plain_export_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny: Tiny, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    options = ["--against", "plain", "--checkpoint", str(tiny.checkpoint("new")), *QUICK]
    assert main(["bench", str(tiny.bundle("new", "int8")), *options]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "plain export, times as long as bundle-new-int8 (range of rounds)" in shown
    assert "of our own model in PyTorch, since transformers has no NewForSequenceClassification" in shown
    assert "The plain export has none of our passes, fusions and kernels." in shown


def test_against_plain_without_the_extra(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(sys.modules, "optimum.exporters.onnx", None)  # as where optimum came with another package
    assert main(["bench", "--against", "plain"]) == 2
    said = "--against plain needs optimum.exporters.onnx; install it with: pip install 'raskrank[export]'"
    assert said in capsys.readouterr().err


def test_against_plain_without_the_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("RASKRANK_MODEL", raising=False)
    monkeypatch.chdir(tmp_path)
    assert main(["bench", "--against", "plain"]) == 1
    assert "--checkpoint FOLDER" in capsys.readouterr().err
