"""What is published: the sdist, the wheel, and the wheel alone in an empty environment on each Python."""

import json
import os
import platform
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
from packaging.tags import sys_tags

import raskrank
import versions
from paths import ROOT

PACKAGES = {"engine": "raskrank", "export": "raskrank_export"}
MAX_WHEEL_BYTES = 5_000_000  # installed in every container of every user
LIBRARY = "raskrank/_kernels.so"
COMPILERS = ("c++", "g++", "clang++")
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
    wheel: Path

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
def plain(tmp_path_factory: pytest.TempPathFactory) -> Published:
    """As on a machine without a compiler."""
    return Published(*versions.build(tmp_path_factory.mktemp("plain"), PATH=str(tmp_path_factory.mktemp("empty"))))


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


@pytest.fixture(scope="module", params=[*versions.PYTHONS, "without kernels"])
def alone(
    request: pytest.FixtureRequest,
    published: Published,
    plain: Published,
    index: None,
    pins: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Alone]:
    without = request.param == "without kernels"
    python = Path(sys.executable) if without else versions.find_python(request.param)
    if python is None:
        pytest.skip(f"needs Python {request.param} on PATH or in ~/.pyenv/versions")
    folder = tmp_path_factory.mktemp("alone")
    wheel = plain.wheel if without else published.wheel
    yield Alone(versions.install(python, folder / "venv", str(wheel), "--constraint", str(pins)), folder, wheel)
    shutil.rmtree(folder)  # pytest keeps its temporary folders, and this one takes 150 MB


def names_in(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def test_the_wheel_holds_both_packages_and_nothing_else(plain: Published) -> None:
    expected = {
        f"{package}/{file.relative_to(ROOT / source / package).as_posix()}"
        for source, package in PACKAGES.items()
        for file in (ROOT / source / package).rglob("*")
        if file.is_file() and "__pycache__" not in file.parts
    } - {LIBRARY}
    names, about = names_in(plain.wheel), f"raskrank-{raskrank.__version__}.dist-info"
    assert {name for name in names if not name.startswith(f"{about}/")} == expected
    assert f"{about}/licenses/LICENSE" in names


def test_without_a_compiler_the_wheel_is_for_any_machine(plain: Published) -> None:
    assert plain.wheel.name == f"raskrank-{raskrank.__version__}-py3-none-any.whl"


def test_with_a_compiler_the_wheel_has_the_kernels_and_is_for_this_machine(published: Published, plain: Published) -> None:
    if platform.machine() != "x86_64" or sys.platform not in ("linux", "darwin") or not any(map(shutil.which, COMPILERS)):
        pytest.skip("needs a C++ compiler, on a machine that the kernels are for")
    assert names_in(published.wheel) - names_in(plain.wheel) == {LIBRARY}
    name, number, *tag = published.wheel.stem.split("-")
    assert (name, number, *tag[:2]) == ("raskrank", raskrank.__version__, "py3", "none")
    assert tag[2] in {tag.platform for tag in sys_tags()} - {"any"}
    with zipfile.ZipFile(published.wheel) as wheel:
        assert wheel.read(LIBRARY)[:4] in (b"\x7fELF", b"\xcf\xfa\xed\xfe")
        assert "Root-Is-Purelib: false" in wheel.read(f"raskrank-{raskrank.__version__}.dist-info/WHEEL").decode()


def test_kernels_that_are_required_and_cannot_be_built_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="no C\\+\\+ compiler is found"):
        versions.build(tmp_path, PATH=str(tmp_path), RASKRANK_KERNELS="require")


@pytest.mark.skipif(shutil.which("c++") is None, reason="needs a C++ compiler")
def test_a_compiler_that_fails_leaves_a_wheel_without_kernels(tmp_path: Path) -> None:
    _, wheel = versions.build(tmp_path, CXX="c++ --no-such-option")
    assert wheel.name.endswith("-py3-none-any.whl")
    assert LIBRARY not in names_in(wheel)


def test_the_sdist_is_the_same_with_and_without_a_compiler(published: Published, plain: Published) -> None:
    with tarfile.open(published.sdist) as one, tarfile.open(plain.sdist) as other:
        names = one.getnames()
        assert names == other.getnames()
    assert not [name for name in names if name.endswith(".so")]


@pytest.mark.parametrize(
    "name",
    [
        "raskrank/nano/manifest.json",
        "raskrank/nano/model.onnx",
        "raskrank/nano/model.onnx.data",
        "raskrank/nano/tokenizer.json",
        "raskrank/py.typed",
        "raskrank/samples.jsonl",
        "raskrank/server/static/page.html",
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
    assert {"hatch_build.py", "engine/kernels/CMakeLists.txt", "engine/kernels/api.cpp"} <= names
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


def test_the_command_says_whether_the_kernels_run(alone: Alone) -> None:
    result = alone.command("info", "--json")
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout)
    if LIBRARY in names_in(alone.wheel) and "avx2" in found["cpu_instruction_sets"]:
        assert (found["backend"], found["kernels"].isalnum()) == ("native", True)
    else:
        assert (found["backend"], found["reason"]) == ("onnx", f"not native: {found['kernels']}")


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
        "logits": [1.0, 0.94, 0.0],
        "tolerance": 0.05,
        "checks": {"check": True},
    }
    assert not [value for value in versions.compare(here, here).values() if value.startswith("FAILED")]
    other = {**here, "ids": [[2, 6, 3]] * 3, "logits": [0.96, 1.0, 0.06], "checks": {"check": False}}
    assert versions.compare(other, here) == {
        "token ids": "FAILED",
        "largest logit difference": "FAILED 0.06",
        "order of the documents, near ties aside": "FAILED",
        "check": "FAILED",
    }
