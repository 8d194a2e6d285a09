"""Runs a script in a process of its own, under a deadline that covers its exit and that of its children."""

import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import pytest

# What a user's shell may have set and would change what is tested.
UNSET = ("RASKRANK_MODEL", "RASKRANK_CACHE", "RASKRANK_THREADS", "ORT_DISABLE_TELEMETRY", "TOKENIZERS_PARALLELISM")
# Python 3.12 warns of any fork beside threads, which is what is tested here.
WARNINGS = ("-W", "error", "-W", "ignore:This process:DeprecationWarning")


class Finished(NamedTuple):
    stdout: str
    stderr: str


def environment(folder: Path) -> dict[str, str]:
    """This process's environment with an empty home below `folder`."""
    kept = {name: value for name, value in os.environ.items() if name not in UNSET and not name.startswith("XDG_")}
    home = folder / "home"
    home.mkdir(exist_ok=True)
    return {**kept, "HOME": str(home), "PYTHONDONTWRITEBYTECODE": "1", "PYTHONFAULTHANDLER": "1"}


def run_script(
    folder: Path,
    source: str,
    *arguments: str,
    env: Mapping[str, str] | None = None,
    wrapper: Sequence[str] = (),
    deadline: float = 40,
    code: int = 0,
    silent: bool = True,
    warnings: Sequence[str] = WARNINGS,
) -> Finished:
    """Run Python source in `folder`/cwd; fails unless it and all its children end in time, with `code`, and an empty stderr.

    wrapper: a command that runs another, such as strace. silent=False: anything may stand on stderr.
    warnings: options of Python.
    """
    script, cwd = folder / "script.py", folder / "cwd"
    script.write_text(textwrap.dedent(source), "utf-8")
    cwd.mkdir(exist_ok=True)
    process = subprocess.Popen(
        [*wrapper, sys.executable, *warnings, str(script), *arguments],
        cwd=cwd,
        env={**environment(folder), **(env or {})},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        # Ends when the last process that inherited the pipes has.
        finished = Finished(*process.communicate(timeout=deadline))
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        stdout, stderr = process.communicate()
        pytest.fail(f"a process still ran after {deadline} s; stdout: {stdout!r}; stderr: {stderr}")
    assert process.returncode == code, finished.stderr
    assert not silent or not finished.stderr, finished.stderr
    return finished
