"""What is published: the sdist, the wheel, and the wheel alone in an empty environment on each Python."""

import json
import os
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from collections.abc import Iterator
from email.parser import Parser
from pathlib import Path
from typing import NamedTuple

import pytest
from packaging.requirements import Requirement

import raskrank
import versions
from paths import ROOT

PACKAGES = {"engine": "raskrank", "export": "raskrank_export"}
MAX_WHEEL_BYTES = 5_000_000  # installed in every container of every user
DEADLINE = 60

pytestmark = pytest.mark.release

# Runs in the new environment: what is installed, and what a ranking says.
ALONE = """
import importlib.metadata, json, sys
from raskrank import Reranker

documents = ["Sykepleier, nattvakt", "Utvikler med åtte års erfaring i Python", "Kokk", "Python and SQL developer"]
with Reranker.load() as reranker:
    hits = reranker.rank("Hvem kan Python?", documents)
print(json.dumps({
    "file": sys.modules["raskrank"].__file__,
    "order": [hit.index for hit in hits],
    "scores": [hit.score for hit in hits],
    "installed": sorted(item.metadata["Name"].lower() for item in importlib.metadata.distributions()),
}))
"""


class Published(NamedTuple):
    sdist: Path
    wheel: Path


class Alone(NamedTuple):
    """An environment with the wheel and its dependencies, and a folder outside the repository to work in."""

    python: Path
    folder: Path

    def run(self, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        environment = {name: value for name, value in os.environ.items() if name != "RASKRANK_MODEL"}
        return subprocess.run(
            [str(self.python), "-I", *arguments],
            input=stdin,
            cwd=self.folder,
            env={**environment, "HOME": str(self.folder), "PYTHONUTF8": "1"},
            capture_output=True,
            text=True,
            encoding="utf-8",
            timeout=DEADLINE,
            check=False,
        )

    def command(self, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        """The `raskrank` command that the wheel installed."""
        return self.run(str(self.python.parent / "raskrank"), *arguments, stdin=stdin)


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Published:
    return Published(*versions.build(tmp_path_factory.mktemp("dist")))


@pytest.fixture(scope="module")
def pins(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """constraints.txt without digests: with any, pip wants one of the wheel too."""
    lines = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    file = tmp_path_factory.mktemp("pins") / "constraints.txt"
    file.write_text("".join(line.split()[0] + "\n" for line in lines if "==" in line), "utf-8")
    return file


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory, pins: Path) -> None:
    """Skips where pip cannot reach a package index."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--retries", "0", "--timeout", "10"]
    target = ["--dest", str(tmp_path_factory.mktemp("index")), "--constraint", str(pins), "tqdm"]
    result = subprocess.run([*command, *target], capture_output=True, text=True, timeout=DEADLINE, check=False)
    if result.returncode:
        pytest.skip(f"needs a package index, and pip reaches none: {result.stderr.strip().splitlines()[-1]}")


@pytest.fixture(scope="module", params=versions.PYTHONS)
def alone(
    request: pytest.FixtureRequest, published: Published, index: None, pins: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Alone]:
    python = versions.find_python(request.param)
    if python is None:
        pytest.skip(f"needs Python {request.param} on PATH or in ~/.pyenv/versions")
    folder = tmp_path_factory.mktemp(f"python{request.param}")
    arguments = [str(published.wheel), "--constraint", str(pins)]
    yield Alone(versions.install(python, folder / "venv", *arguments), folder)
    shutil.rmtree(folder)  # pytest keeps its temporary folders, and this one takes 150 MB


def test_the_wheel_holds_both_packages_and_nothing_else(published: Published) -> None:
    expected = {
        f"{package}/{file.relative_to(ROOT / source / package).as_posix()}"
        for source, package in PACKAGES.items()
        for file in (ROOT / source / package).rglob("*")
        if file.is_file() and "__pycache__" not in file.parts
    }
    with zipfile.ZipFile(published.wheel) as wheel:
        names = set(wheel.namelist())
    about = f"raskrank-{raskrank.__version__}.dist-info"
    assert {name for name in names if not name.startswith(f"{about}/")} == expected
    assert f"{about}/licenses/LICENSE" in names


@pytest.mark.parametrize(
    "name",
    [
        "raskrank/nano/manifest.json",
        "raskrank/nano/model.onnx",
        "raskrank/nano/model.onnx.data",
        "raskrank/nano/tokenizer.json",
        "raskrank/py.typed",
        "raskrank/samples.jsonl",
        "raskrank_export/py.typed",
    ],
)
def test_the_wheel_holds_what_is_no_code(published: Published, name: str) -> None:
    with zipfile.ZipFile(published.wheel) as wheel:
        source = next(folder for folder, package in PACKAGES.items() if name.startswith(f"{package}/"))
        assert wheel.read(name) == (ROOT / source / name).read_bytes()


def test_the_wheel_is_small(published: Published) -> None:
    assert published.wheel.stat().st_size < MAX_WHEEL_BYTES


def test_the_wheel_states_what_pyproject_does(published: Published) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    with zipfile.ZipFile(published.wheel) as wheel:
        metadata = Parser().parsestr(wheel.read(f"raskrank-{raskrank.__version__}.dist-info/METADATA").decode())
    stated = [Requirement(text) for text in metadata.get_all("Requires-Dist", [])]
    assert metadata["Version"] == raskrank.__version__
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata["Requires-Python"] == project["requires-python"]
    assert {str(item) for item in stated if item.marker is None} == {str(Requirement(item)) for item in project["dependencies"]}
    assert set(metadata.get_all("Provides-Extra", [])) == set(project["optional-dependencies"])


def test_the_sdist_holds_what_builds_and_tests_the_wheel(published: Published) -> None:
    with tarfile.open(published.sdist) as sdist:
        names = {name.partition("/")[2] for name in sdist.getnames()}
    # The wheel of these tests was built from this sdist, so what it needs is there; the tests and the demo need more.
    assert {"LICENSE", "README.md", "Makefile", "constraints.txt", "constraints-torch.txt", "pyproject.toml"} <= names
    assert {"export/nano/model.safetensors", "tests/conftest.py", "tests/test_wheel.py", "benchmarks/demo.py"} <= names
    assert not [name for name in names if name.startswith((".venv", ".ci", "build/", "dist/")) or "__pycache__" in name]


def test_the_wheel_alone_ranks(alone: Alone) -> None:
    result = alone.run("-c", ALONE)
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout)
    assert Path(found["file"]).is_relative_to(alone.folder)
    assert set(found["order"][:2]) == {1, 3}
    assert found["scores"] == sorted(found["scores"], reverse=True)
    assert not {name for name in found["installed"] if name.startswith(("torch", "transformers", "onnx", "optimum"))} - {
        "onnxruntime"
    }


def test_the_command_says_its_version(alone: Alone) -> None:
    result = alone.command("--version")
    assert (result.returncode, result.stdout) == (0, f"raskrank {raskrank.__version__}\n"), result.stderr


def test_the_command_ranks(alone: Alone) -> None:
    result = alone.command("rank", "--json", "Hvem kan Python?", stdin="Kokk på hotell\nUtvikler, Python og SQL\n")
    assert result.returncode == 0, result.stderr
    assert [hit["index"] for hit in json.loads(result.stdout)] == [1, 0]


def test_the_command_says_what_an_export_needs(alone: Alone) -> None:
    result = alone.command("export", "BAAI/bge-reranker-base", "bundle")
    assert (result.returncode, result.stdout) == (2, "")
    assert "pip install 'raskrank[export]'" in result.stderr
    assert not (alone.folder / "bundle").exists()


def test_the_version_table_tries_the_lower_bounds() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    stated = {item.name: item.specifier for item in map(Requirement, project["dependencies"])}
    tried = [Requirement(text) for text in versions.oldest()]
    assert {item.name for item in tried} == set(stated) == set(versions.newest())
    for item in tried:
        (pin,) = item.specifier
        (bound,) = stated[item.name]
        assert (pin.operator, pin.version) == ("==", f"{bound.version}.*")
        assert bound.operator == ">="


def test_the_version_table_reports_what_differs() -> None:
    here = {
        "ids": [[2, 5, 3]] * 3,
        "queries": ["q", "q", "r"],
        "logits": [1.0, 0.99, 0.0],
        "tolerance": 0.05,
        "checks": {"check": True},
    }
    assert not [value for value in versions.compare(here, here).values() if value.startswith("FAILED")]
    other = {**here, "ids": [[2, 6, 3]] * 3, "logits": [1.0, 1.02, 0.06], "checks": {"check": False}}
    assert versions.compare(other, here) == {
        "token ids": "FAILED",
        "largest logit difference": "FAILED 0.06",
        "order of the documents, near ties aside": "FAILED",
        "check": "FAILED",
    }
