"""The command line as a user meets it: info, export, bundles that cannot be used, arguments, help, and odd names."""

import io
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

import raskrank
from backends import needs_kernels
from bundles import copy_bundle, edit
from command import QUERY, edited, error_line, stdin
from conftest import Tiny
from raskrank import Reranker
from raskrank.bundle import read_manifest
from raskrank.cli.main import main
from raskrank.settings import bundle_path

pytestmark = pytest.mark.usefixtures("no_surroundings")

NUMBERS = {
    "tau": 0.5,
    "top1": 1.0,
    "max_drift": 0.1,
    "mean_drift": 0.01,
    "max_logit_difference": 0.1,
    "pairs": 9,
    "part": "all",
}


# info


def test_info(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info"]) == 0
    shown = capsys.readouterr().out
    assert str(Reranker.load().info()) in shown
    parity = Reranker.load()._loaded.manifest.parity["int8"]  # type: ignore[union-attr]
    (row,) = (line.split() for line in shown.splitlines() if line.startswith("onnx int8"))
    assert row[2] == f"{parity['tau']:.4f}"
    assert row[-1] == str(parity["pairs"])
    assert all(len(line) <= 80 for line in shown.partition("parity with")[2].splitlines())


def test_info_json(tiny: Tiny, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", "--json", "--bundle", str(tiny.bundle())]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["bundle"] == str(tiny.bundle())
    assert shown["parity"]["thresholds"]["min_tau"] == -1
    assert shown["versions"]["raskrank"] == raskrank.__version__


@pytest.mark.parametrize("backend", ["onnx", pytest.param("native", marks=needs_kernels)])
def test_info_names_the_parity_of_what_runs_here_and_of_the_other(
    backend: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    measured = {"onnx": {**NUMBERS, "tau": 0.25}, "native": {**NUMBERS, "tau": 0.75}}
    recorded = {"int8": measured["onnx"], "native": measured["native"]}
    folder = str(edit(copy_bundle(bundle_path(None), tmp_path / "bundle"), parity=recorded))
    assert main(["info", "--bundle", folder, "--backend", backend]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert [line.split()[:3] for line in shown[-3:-1]] == [["onnx", "int8", "0.2500"], ["native", "int8", "0.7500"]]
    assert shown[-1] == f"runs here: {backend} int8"
    assert main(["info", "--json", "--bundle", folder, "--backend", backend]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["backend"], told["parity"], told["backend_parity"]) == (backend, recorded, measured)


@needs_kernels
def test_info_says_where_the_export_did_not_measure_what_runs_here(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = str(edit(copy_bundle(bundle_path(None), tmp_path / "bundle"), parity={"int8": NUMBERS}))
    assert main(["info", "--bundle", folder]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "runs here: native int8, which the export did not measure"
    assert main(["info", "--json", "--bundle", folder]) == 0
    assert json.loads(capsys.readouterr().out)["backend_parity"] == {"native": None, "onnx": NUMBERS}


def test_info_of_a_bundle_in_fp32(tiny: Tiny, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tiny.bundle("bert", "fp32")
    assert main(["info", "--bundle", str(folder)]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "runs here: onnx fp32"
    assert main(["info", "--json", "--bundle", str(folder)]) == 0
    assert json.loads(capsys.readouterr().out)["backend_parity"] == {"onnx": read_manifest(folder)[0].parity["fp32"]}


def test_names_in_a_manifest_cannot_command_the_terminal(
    tiny: Tiny, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = edited(tiny, tmp_path, name="evil\x1b[2J")
    assert main(["info", "--bundle", str(folder)]) == 0
    shown = capsys.readouterr().out
    assert "evil [2J" in shown
    assert "\x1b" not in shown


def test_info_without_parity_numbers(tiny: Tiny, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = edited(tiny, tmp_path, parity={"fp32": 3, "int8": {"tau": "high"}})
    assert main(["info", "--bundle", str(folder)]) == 0
    assert "parity with" not in capsys.readouterr().out


# bundles that cannot be used


@pytest.mark.parametrize("command", [["rank", QUERY, "-"], ["info"], ["verify"]])
def test_no_such_bundle(command: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    stdin(monkeypatch, b"Python")
    assert main([*command, "--bundle", "nowhere"]) == 2
    assert "no bundle at nowhere; make one with: raskrank export" in error_line(capsys)


@pytest.mark.parametrize("command", [["rank", QUERY, "-"], ["info"], ["verify"]])
def test_a_broken_bundle(
    command: list[str], tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stdin(monkeypatch, b"Python")
    folder = edited(tiny, tmp_path, max_length="long")
    assert main([*command, "--bundle", str(folder)]) == 1
    assert "max_length: expected int" in error_line(capsys)


def test_an_error_of_the_system(tiny: Tiny, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def refuse(path: Path) -> bytes:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "read_bytes", refuse)
    assert main(["info", "--bundle", str(tiny.bundle())]) == 1
    assert error_line(capsys) == f"raskrank: error: {tiny.bundle() / 'manifest.json'}: Permission denied\n"


# export


def test_export_prints_its_report(tiny: Tiny, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "bundle"
    options = ["--precision", "fp32", "--max-length", "32", "--samples", str(tiny.samples)]
    assert main(["export", str(tiny.checkpoint()), *options, str(output)]) == 0
    captured = capsys.readouterr()
    assert captured.out.endswith(f"written to {output}\nuse it with RASKRANK_MODEL={output}\n")
    assert captured.err == ""
    assert Reranker.load(output).info().max_length == 32
    assert main(["export", str(tiny.checkpoint()), str(output)]) == 1
    assert "--overwrite" in error_line(capsys)


def test_export_json_and_progress(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Tty(io.StringIO):
        def isatty(self) -> bool:
            return True

    stderr = Tty()
    monkeypatch.setattr(sys, "stderr", stderr)
    options = ["--precision", "fp32", "--samples", str(tiny.samples), "--overwrite", "--json"]
    assert main(["export", str(tiny.checkpoint()), str(tmp_path / "bundle"), *options]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["manifest"]["precision"] == "fp32"
    steps = [line.rsplit("\r", 1)[-1] for line in stderr.getvalue().split("\n")]
    assert [re.split(r" {2,}", line)[0] for line in steps if line] == [*report["seconds"]]
    assert re.fullmatch(r"read checkpoint +[\d.]+ s", next(line for line in steps if line))


def test_export_whose_int8_ranks_differently(tiny: Tiny, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "bundle"
    options = ["--samples", str(tiny.samples), "--max-drift", "0", "--min-tau", "-1"]
    assert main(["export", str(tiny.checkpoint()), str(output), *options]) == 0
    assert "NOT QUANTIZED: every form of int8 failed, so the bundle is fp32" in capsys.readouterr().out
    assert read_manifest(output)[0].precision == "fp32"


def test_export_of_something_else(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", str(tmp_path / "nothing"), str(tmp_path / "bundle")]) == 1
    assert "There is no folder" in error_line(capsys)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--samples", "absent.jsonl"], "absent.jsonl: cannot be read"),
        (["--min-tau", "2"], "min_tau: expected a number from -1 to 1"),
        (["--max-drift", "nan"], "max_drift: expected a number from 0 to 1"),
        (["--max-length", "1000000"], "max_length: expected 5 to 128 tokens"),
    ],
)
def test_export_refuses_wrong_options(
    options: list[str], said: str, tiny: Tiny, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export", str(tiny.checkpoint()), str(tmp_path / "bundle"), *options]) == 2
    assert said in error_line(capsys)
    assert not (tmp_path / "bundle").exists()


@pytest.mark.parametrize(
    "command",
    [
        ["export", "model", "bundle"],
        ["verify"],
        ["rank", "--backend", "torch", QUERY, "absent.txt"],
        ["compare", "--against", "torch", "--data", "absent"],
    ],
)
def test_without_the_extra(command: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    assert main(command) == 2
    error = error_line(capsys)
    assert "needs torch; " in error
    assert "pip install 'raskrank[export]'" in error


# arguments and help


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["frank"], "invalid choice: 'frank'"),
        (["rank"], "required: QUERY"),
        (["rank", QUERY, "a", "b"], "unrecognized arguments"),
        (["rank", QUERY, "--top", "3"], "unrecognized arguments: --top"),
        (["rank", "--top-k", "0", QUERY], "--top-k: expected a whole number of at least 1, got '0'"),
        (["rank", "--threads", "two", QUERY], "--threads: expected a whole number"),
        (["rank", "--backend", "tensorflow", QUERY], "--backend: invalid choice"),
        (["rank", "--fallback", "onnx", QUERY], "--fallback: invalid choice"),
        (["export", "model"], "OUTPUT is missing"),
        (["export", "owner/model", "--trim-vocab", "a.txt"], "in the cache a trimmed bundle would stand for the whole model"),
        (["export", "model", "bundle", "--precision", "int4"], "--precision: invalid choice"),
        (["info", "bundle"], "unrecognized arguments: bundle"),
        (["info", "two\nlines\x1b[2J"], "unrecognized arguments: two lines [2J"),
    ],
)
def test_wrong_arguments(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    assert said in error_line(capsys)


def test_no_command_prints_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("usage: raskrank")


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"raskrank {raskrank.__version__}\n"


@pytest.mark.parametrize("command", [[], ["export"], ["rank"], ["info"], ["verify"], ["bench"]])
def test_help(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*command, "--help"]) == 0
    shown = capsys.readouterr().out
    assert "example:\n  raskrank " in shown
    assert max(map(len, shown.splitlines())) <= 80
    if command:
        assert re.findall(r"^  (\d+)  +\S", shown.partition("exit codes:\n")[2], re.MULTILINE) == ["0", "1", "2", "130"]
        assert re.search(rf"  raskrank {command[0]} ", shown.partition("example:")[2])


# processes


@pytest.mark.parametrize(
    "command",
    [
        ["rank", QUERY, "{name}"],
        ["rank", QUERY, "-", "--bundle", "{name}"],
        ["info", "--bundle", "{name}"],
        ["info", "--bundle", "owner/{name}"],
        ["verify", "--pairs", "{name}"],
        ["export", "model", "bundle", "--samples", "{name}"],
        ["compare", "--data", "{name}"],
        ["bench", "--texts", "{name}"],
        ["bench", "{name}"],
    ],
)
@pytest.mark.parametrize("name", ["a" * 300, "a/" * 5000, "nul\0", "\udcff", "two\nlines\x1b[2J"], ids=ascii)
def test_odd_names_are_an_error_line(
    name: str, command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stdin(monkeypatch, b"Python")
    monkeypatch.setenv("RASKRANK_CACHE", str(tmp_path))
    assert main([part.format(name=name) for part in command]) in (1, 2)
    assert len(error_line(capsys)) < 2500


# attacks


def test_no_hostile_argument_or_file_ends_in_a_traceback() -> None:
    attack = Path(__file__).parent / "attacks" / "command_line.py"
    done = subprocess.run([sys.executable, str(attack), "--count", "25"], capture_output=True, timeout=280, check=False)
    assert done.returncode == 0, done.stdout.decode()
    assert done.stdout.endswith(b"; 0 failed\n")
