"""How an installation builds the kernels, beside the real builds of test_wheel.py."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from paths import ROOT

pytest.importorskip("fcntl", reason="kernels are built on Linux and macOS alone")
# Writes down when each of its runs begins and ends.
CMAKE = """#!/bin/sh
echo begin >> "$LOG"; sleep 0.2; echo end >> "$LOG"
"""
BUILD = """
import sys
from pathlib import Path
import hatch_build
print(hatch_build.build(Path("source"), Path(sys.argv[1])))
"""


def environment(tmp_path: Path) -> dict[str, str]:
    cmake = tmp_path / "bin" / "cmake"
    cmake.parent.mkdir()
    cmake.write_text(CMAKE)
    cmake.chmod(0o755)
    path = os.pathsep.join((str(cmake.parent), os.environ["PATH"]))
    return {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT), "LOG": str(tmp_path / "log")}


def test_environments_that_are_set_up_at_once_build_one_after_the_other(tmp_path: Path) -> None:
    command = [sys.executable, "-c", BUILD, str(tmp_path / "build" / "kernels")]
    variables = environment(tmp_path)
    builds = [subprocess.Popen(command, env=variables, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    said = {build.communicate(timeout=60)[0].strip() for build in builds}
    assert said == {str(tmp_path / "build" / "kernels" / "library" / "_kernels.so")}
    # Each runs cmake twice, to configure and to build.
    assert (tmp_path / "log").read_text().split() == ["begin", "end"] * 6


def test_a_folder_that_cannot_be_written_is_a_reason(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    program = BUILD.replace("print(", "try: print(") + "except hatch_build.CannotBuild as reason: print(reason)"
    command = [sys.executable, "-c", program, str(tmp_path / "file" / "kernels")]
    done = subprocess.run(command, env=environment(tmp_path), capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == f"{tmp_path / 'file' / 'kernels.lock'} cannot be written: File exists"
