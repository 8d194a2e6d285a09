"""Folders that tests write whole or not at all, and processes that write them."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from paths import ROOT
from raskrank_export.write import bundle_folder

NANO = ROOT / "engine" / "raskrank" / "nano"
MANIFEST = (NANO / "manifest.json").read_text("utf-8")
OLD = {"model.onnx": "old graph", "manifest.json": MANIFEST}
NEW = {"model.onnx": "new graph", "model.onnx.data": "new weights", "manifest.json": MANIFEST}


def fill(folder: Path, files: dict[str, str] = NEW) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name).write_text(text, "utf-8")


def content(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text("utf-8") for path in folder.iterdir()}


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def nothing(temp: Path) -> None:
    """What happens while most exports run."""


def export(
    target: Path,
    files: dict[str, str] = NEW,
    *,
    overwrite: bool = False,
    meanwhile: Callable[[Path], object] = nothing,
) -> None:
    with bundle_folder(target, overwrite=overwrite) as temp:
        fill(temp, files)
        meanwhile(temp)


def raising(error: BaseException) -> Callable[[Path], object]:
    def raise_it(temp: Path) -> None:
        raise error

    return raise_it


def leave_stale(target: Path) -> None:
    """What a killed export leaves behind; the tests with processes show that it is just this."""
    temp = target.with_name(f".{target.name}.tmp-1-01234567")
    fill(temp)
    temp.with_name(temp.name + ".lock").touch()


def python(script: str, *arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", script, *map(str, arguments)]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.Popen(command, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


@contextmanager
def running(script: str, *arguments: object) -> Iterator[subprocess.Popen[str]]:
    process = python(script, *arguments)
    try:
        yield process
    finally:
        process.kill()
        process.communicate(timeout=30)


def answer(script: str, *arguments: object) -> str:
    with running(script, *arguments) as process:
        output, _ = process.communicate(timeout=50)
        assert process.returncode == 0
        return output
