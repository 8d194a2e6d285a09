"""`raskrank verify`: what passes, what fails, and what is refused."""

import json
import os
import re
import sys
from pathlib import Path

import pytest

from command import SECRET, edited, error_line, write
from conftest import BROKEN, Tiny
from paths import NANO_CHECKPOINT
from raskrank import Reranker
from raskrank.cli.main import main

pytestmark = pytest.mark.usefixtures("no_surroundings")


# verify


def test_verify_passes(tiny: Tiny, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--bundle", str(tiny.bundle("bert", "fp32")), "--checkpoint", str(tiny.checkpoint())]
    assert main(["verify", *options, "--pairs", str(tiny.samples)]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert shown[0] == "onnx fp32 against torch fp32, 12 pairs of 3 queries"
    assert shown[-1] == "passed: max_fp32_error 10"


def test_verify_json_says_the_same_as_the_library(tiny: Tiny, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pairs = [(query, f"{word} nummer {number}") for query in ("Oslo", "båt") for word in ("Bil", "By") for number in range(9)]
    file = write(tmp_path / "pairs.tsv", "".join(f"{query}\t{document}\n" for query, document in pairs))
    options = ["--bundle", str(tiny.bundle()), "--checkpoint", str(tiny.checkpoint()), "--pairs", str(file)]
    assert main(["verify", "--json", *options]) == 0
    shown = json.loads(capsys.readouterr().out)
    expected = Reranker.load(tiny.bundle(), checkpoint=tiny.checkpoint()).verify(pairs)
    for name, value in expected.summary().items():  # PyTorch's last digits differ from one load to the next
        assert shown["parity"].pop(name) == (pytest.approx(value, abs=1e-5) if isinstance(value, float) else value), name
    assert shown["parity"] == {}
    assert shown["passed"] is True
    assert shown["failed"] == []
    assert shown["thresholds"] == {"min_tau": -1, "min_top1": 0, "max_drift": 1, "max_mean_drift": 1}


@pytest.mark.parametrize("as_json", [False, True])
def test_verify_fails_below_the_thresholds(
    as_json: bool, tiny: Tiny, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = edited(tiny, tmp_path, parity__thresholds__max_drift=0, parity__thresholds__max_mean_drift=0.0)
    options = ["--bundle", str(folder), "--checkpoint", str(tiny.checkpoint()), "--pairs", str(tiny.samples)]
    assert main(["verify", *options, *(["--json"] if as_json else [])]) == 1
    captured = capsys.readouterr()
    assert re.fullmatch(
        r"raskrank: error: \S+: the bundle differs from its checkpoint: largest score drift [\d.e-]+, allowed <= 0; "
        r"mean score drift [\d.e-]+, allowed <= 0\n",
        captured.err,
    )
    if as_json:
        assert json.loads(captured.out)["failed"] == ["max_drift", "max_mean_drift"]
    else:
        assert re.match("(native|onnx) int8 against torch fp32, 12 pairs", captured.out)
        assert "passed" not in captured.out
        assert captured.out.splitlines()[-1].startswith("failed: largest score drift")


@pytest.mark.filterwarnings("ignore:invalid value encountered")
def test_verify_fails_on_nan(broken: Path, tiny: Tiny, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pairs = write(tmp_path / "pairs.tsv", f"a\t75 {BROKEN}\na\tb\nc\td\nc\te\n")
    options = ["--bundle", str(broken), "--checkpoint", str(tiny.checkpoint()), "--pairs", str(pairs)]
    assert main(["verify", "--json", *options]) == 1
    captured = capsys.readouterr()
    assert json.loads(captured.out)["parity"]["max_logit_difference"] is None
    assert "in multiples of what fp32 itself rounds, nan, allowed" in captured.err


@pytest.mark.parametrize("thresholds", [None, {}, {"max_fp32_error": True}])
def test_verify_needs_recorded_thresholds(
    thresholds: object, tiny: Tiny, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = edited(tiny, tmp_path, "fp32", parity__thresholds=thresholds)
    assert main(["verify", "--bundle", str(folder)]) == 1
    assert "the manifest does not record the thresholds of its export" in error_line(capsys)


def test_verify_refuses_another_checkpoint(tiny: Tiny, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--bundle", str(tiny.bundle()), "--checkpoint", str(NANO_CHECKPOINT), "--pairs", str(tiny.samples)]
    assert main(["verify", *options]) == 1
    assert "its weights are not those" in error_line(capsys)


def test_verify_refuses_bad_pairs(tiny: Tiny, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = write(tmp_path / "pairs.jsonl", f'{{"query": "{SECRET}"}}\n')
    assert main(["verify", "--bundle", str(tiny.bundle()), "--pairs", str(file)]) == 2
    error = error_line(capsys)
    assert f"{file}, line 1" in error
    assert SECRET not in error


# processes


def test_a_failed_check_stays_one_when_the_reader_leaves(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = edited(tiny, tmp_path, parity__thresholds__max_drift=0)
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as stdout:
        monkeypatch.setattr(sys, "stdout", stdout)
        options = ["--bundle", str(folder), "--checkpoint", str(tiny.checkpoint()), "--pairs", str(tiny.samples)]
        assert main(["verify", *options]) == 1
    assert "largest score drift" in capsys.readouterr().err
