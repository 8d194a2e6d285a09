"""`make demo`, run once as a script would run it: no terminal, nothing there yet."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from paths import ROOT
from raskrank.bundle import open_bundle
from raskrank.printable import width

DEADLINE = 540  # half a minute on an idle machine; PyTorch takes many times as long where it has to share the cores

pytestmark = [pytest.mark.release, pytest.mark.timeout(DEADLINE + 60)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("demo")


@pytest.fixture(scope="module")
def output(folder: Path) -> str:
    result = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks" / "demo.py"), str(folder), "1"],
        cwd=folder,
        capture_output=True,
        encoding="utf-8",
        timeout=DEADLINE,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_it_shows_the_commands_and_the_parity_report(output: str, folder: Path) -> None:
    commands = [line for line in output.splitlines() if line.startswith("$ ")]
    assert [command.split()[2] for command in commands] == ["export", "rank", "rank"]
    assert "onnx fp32 against torch fp32" in output
    assert "onnx int8 against torch fp32" in output
    assert open_bundle(folder / "nano").manifest.precision == "int8"
    assert open_bundle(folder / "nano-fp32").manifest.precision == "fp32"


def test_it_ranks_for_two_queries(output: str) -> None:
    tops = re.findall(r"^ +1  \d\.\d{4} +\d+  (.*)$", output, re.MULTILINE)
    assert [top.split()[0] for top in tops] == ["Intensivsykepleier,", "Cooked"]


def test_it_checks_three_pairs_against_pytorch(output: str) -> None:
    rows = re.findall(r"^ +(\d\.\d{4}) +(\d\.\d{4}) +(\d\.\d{4})  \S", output, re.MULTILINE)
    assert len(rows) == 3
    for torch_score, score, difference in rows:
        # Each of the three is rounded on its own.
        assert abs(abs(float(torch_score) - float(score)) - float(difference)) < 0.00016
        assert float(difference) < 0.15


def test_it_compares_speed_and_says_where(output: str) -> None:
    found = re.findall(r"([\d.]+) x +([\d.]+)  (\S.*)$", output, re.MULTILINE)
    rows = {name: (float(ratio), float(tau)) for ratio, tau, name in found}
    assert list(rows) == [
        "PyTorch, transformers, batches of 32",
        "PyTorch, one by one (backend='torch')",
        "ONNX fp32",
        "ONNX int8",
    ]
    assert rows["PyTorch, transformers, batches of 32"] == (1.0, 1.0)
    assert all(tau > 0.97 for _, tau in rows.values())
    text = " ".join(output.split())
    assert re.search(r"usable CPUs, \w+; Python [\d.]+, torch \S+ transformers \S+ onnxruntime", text)
    assert re.search(r"\d{4}-\d\d-\d\d \d\d:\d\d UTC\.", text)


def test_it_reads_well_at_80_columns(output: str, folder: Path) -> None:
    # Where it writes is short for a person, and long here.
    lines = [line.replace(str(folder), "build/demo") for line in output.splitlines()]
    assert not [line for line in lines if width(line) > 80]
