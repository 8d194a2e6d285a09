"""What an export leaves: the same bytes each time, the process as it was, and nothing where it is killed or finds no space."""

import hashlib
import json
import logging
import os
import random
import shutil
import signal
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from builders import Family
from conftest import Tiny
from exporting import Recorder, contents, loose_export
from raskrank import bundle
from raskrank.bundle import read_manifest
from raskrank.errors import BundleError, ExportError, RaskrankError
from raskrank.manifest import DIGEST, FILES, MANIFEST


@pytest.fixture
def copy(tiny: Tiny, tmp_path: Path) -> Callable[[], Path]:
    """A copy of the tiny BERT to spoil."""
    return lambda: Path(shutil.copytree(tiny.checkpoint("bert"), tmp_path / "checkpoint"))


# Reproducible, and quiet


def test_two_exports_are_equal_and_name_no_machine(
    tiny: Tiny, copy: Callable[[], Path], out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = copy()
    monkeypatch.chdir(checkpoint.parent)
    for name in ("one", "two"):
        loose_export(tiny, out / name, checkpoint="checkpoint")
    one, two = contents(out / "one"), contents(out / "two")
    assert one.keys() == two.keys()
    assert [name for name in FILES if hashlib.sha256(one[name]).digest() != hashlib.sha256(two[name]).digest()] == []
    first, second = (json.loads(files[MANIFEST]) for files in (one, two))
    assert {key for key in first | second if first.get(key) != second.get(key)} <= {DIGEST, "parity", "self_test"}
    # Measured beside PyTorch, whose last digits depend on where a buffer lies.
    assert first["self_test"] == pytest.approx(second["self_test"], abs=1e-4)
    assert first["parity"].keys() == second["parity"].keys()
    for name, part in first["parity"].items():
        expected = second["parity"][name]
        assert part == (pytest.approx(expected, abs=1e-4) if isinstance(expected, dict) else expected), name
    places = {str(checkpoint.parent), str(Path.home()), sys.prefix, "site-packages", "/tmp/"}
    for name, data in one.items():
        assert [place for place in places if place.encode() in data] == [], name


def process_state() -> dict[str, object]:
    import torch
    import transformers

    names = ("", "raskrank", "transformers", "optimum", "onnxruntime", "torch.onnx")
    return {
        "levels": [logging.getLogger(name).level for name in names],
        "handlers": [list(logging.getLogger(name).handlers) for name in names],
        "disabled": logging.root.manager.disable,
        "verbosity": transformers.logging.get_verbosity(),
        "filters": list(warnings.filters),
        "folder": Path.cwd(),
        "streams": (sys.stdout, sys.stderr),
        "environment": dict(os.environ),
        "threads": (torch.get_num_threads(), torch.get_num_interop_threads()),
        "gradients": torch.is_grad_enabled(),
        "dtype": torch.get_default_dtype(),
        "random": (torch.get_rng_state().tolist(), np.random.get_state()[1].tolist(), random.getstate()),  # type: ignore[index]
    }


def test_an_export_is_silent_and_leaves_the_process_as_it_was(tiny: Tiny, out: Path, capfd: pytest.CaptureFixture[str]) -> None:
    tiny.bundle("bert")  # every library is imported
    capfd.readouterr()
    before = process_state()
    loose_export(tiny, out / "bundle")
    after = process_state()
    assert {key for key in before if before[key] != after[key]} == set()
    assert tuple(capfd.readouterr()) == ("", "")


def test_a_failed_export_leaves_the_process_as_it_was(tiny: Tiny, out: Path, capfd: pytest.CaptureFixture[str]) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    tiny.bundle("bert")
    capfd.readouterr()
    for step in ("export to ONNX", "quantize to int8"):
        before = process_state()
        with pytest.raises(KeyboardInterrupt):
            loose_export(tiny, out / "bundle", progress=Recorder(step, interrupt))
        after = process_state()
        assert {key for key in before if before[key] != after[key]} == set()
    assert tuple(capfd.readouterr()) == ("", "")


def test_exports_in_two_threads_leave_the_process_as_it_was(tiny: Tiny, out: Path) -> None:
    from concurrent.futures import ThreadPoolExecutor

    # The first to be quiet would otherwise restore what the second had silenced: stdout stayed lost.
    families: tuple[Family, Family] = ("bert", "roberta")
    expected = {family: read_manifest(tiny.bundle(family))[0].files for family in families}
    before = process_state()
    with ThreadPoolExecutor(2) as pool:
        jobs = [pool.submit(loose_export, tiny, out / family, checkpoint=tiny.checkpoint(family)) for family in families]
        reports = [job.result(timeout=120) for job in jobs]
    after = process_state()
    assert {key for key in before if before[key] != after[key]} == set()
    for report, family in zip(reports, families, strict=True):
        assert report.manifest.files == expected[family]


# Killed, and no space: in children of one process that has done the slow imports


CHILDREN = """
import gc, json, os, resource, signal, sys, traceback
from pathlib import Path

import torch, transformers  # the slow part, once
import optimum.exporters.onnx, onnxruntime.transformers.optimizer
from transformers import BertForSequenceClassification
from raskrank.errors import BundleError, ExportError
from raskrank_export import Thresholds, export

checkpoint, samples, root = sys.argv[1], sys.argv[2], Path(sys.argv[3])
loose = Thresholds(min_tau=-1, min_top1=0, max_drift=1, max_mean_drift=1)


class Progress:
    def __init__(self, step, when, limit):
        self.step, self.when, self.limit, self.now = step, when, limit, ""

    def start(self, step, total):
        self.now = step
        self.reach("start")

    def advance(self, units):
        pass

    def finish(self, seconds):
        self.reach("end")

    def reach(self, when):
        if (self.now, when) != (self.step, self.when):
            return
        if self.limit is None:
            os.kill(os.getpid(), signal.SIGKILL)
        resource.setrlimit(resource.RLIMIT_FSIZE, (self.limit, resource.RLIM_INFINITY))


def child(target, *, step="", when="start", limit=None):
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            export(checkpoint, target, samples=samples, thresholds=loose, progress=Progress(step, when, limit))
            said = ["done", ""]
        except ExportError as error:
            said = [type(error).__name__, str(error)]
        except BaseException:
            said = ["crash", traceback.format_exc()]
        os.write(write, json.dumps(said).encode())
        os._exit(0)
    os.close(write)
    return pid, read


def result(started):
    pid, read = started
    with os.fdopen(read) as answer:
        text = answer.read()
    status = os.waitpid(pid, 0)[1]
    return ["killed", str(os.WTERMSIG(status))] if os.WIFSIGNALED(status) else json.loads(text)


def listing(folder):
    return sorted(path.name for path in folder.iterdir())


# What the first export of a process collects, children need not collect anew, nor look through it for garbage.
torch.set_num_threads(1)
export(checkpoint, root / "first", samples=samples, thresholds=loose)
gc.freeze()
found = {"killed": {}, "limited": {}}
for name, points in (("killed", json.loads(sys.argv[4])), ("limited", json.loads(sys.argv[5]))):
    for pair in [points[place : place + 2] for place in range(0, len(points), 2)]:
        started = []
        for step, when, limit in pair:
            folder = root / f"{name}-{len(found[name]) + len(started)}"
            folder.mkdir()
            started.append((folder, f"{step}, {when}", child(folder / "bundle", step=step, when=when, limit=limit)))
        for folder, point, one in started:
            found[name][point] = [result(one), listing(folder)]
again = root / "killed-0"  # everything that was killed, at one place
for number in range(1, len(found["killed"])):
    for path in (root / f"killed-{number}").iterdir():
        path.rename(again / path.name)
found["strewn"] = listing(again)
found["again"] = [result(child(again / "bundle")), listing(again)]
folder = root / "race"
folder.mkdir()
found["race"] = [[result(started) for started in [child(folder / "bundle") for _ in range(2)]], listing(folder)]
print(json.dumps(found))
"""
# (step, when in it, most bytes that a file may have from then on). Without a number: killed.
KILLED: list[tuple[str, str, int | None]] = [
    ("score with PyTorch", "start", None),
    ("export to ONNX", "start", None),
    ("quantize to int8", "start", None),
    ("write bundle", "start", None),
    ("write bundle", "end", None),
]
LIMITED: list[tuple[str, str, int | None]] = [
    ("read checkpoint", "start", 0),
    ("export to ONNX", "start", 100_000),  # the traced graph has 190 kB
    ("export to ONNX", "end", 20_000),  # the fp32 weights have 150 kB, the graph 40 kB
    ("quantize to int8", "start", 20_000),
    ("write bundle", "start", 100),
]


@pytest.fixture(scope="module")
def children(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    if sys.platform == "win32":
        pytest.skip("needs fork and RLIMIT_FSIZE")
    root = tmp_path_factory.mktemp("children")
    arguments = [str(tiny.checkpoint("bert")), str(tiny.samples), str(root), json.dumps(KILLED), json.dumps(LIMITED)]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "TOKENIZERS_PARALLELISM": "false"}
    command = [sys.executable, "-c", CHILDREN, *arguments]
    run = subprocess.run(command, env=env, capture_output=True, text=True, timeout=150, check=False)
    assert run.returncode == 0, run.stderr
    return {"stderr": run.stderr, "root": root, **json.loads(run.stdout)}


@pytest.mark.parametrize("point", [f"{step}, {when}" for step, when, _ in KILLED])
def test_killed_at_any_step_the_target_is_absent(children: dict[str, Any], point: str) -> None:
    said, names = children["killed"][point]
    assert said == ["killed", str(int(signal.SIGKILL))]
    assert "bundle" not in names
    assert all(name.startswith(".bundle.tmp-") for name in names)
    assert names  # the control: there is something to clean up


def test_the_next_export_succeeds_and_cleans_up(children: dict[str, Any]) -> None:
    assert len(children["strewn"]) >= 2 * len(KILLED)  # a folder and a lock each
    said, names = children["again"]
    assert said == ["done", ""]
    assert names == ["bundle"]
    bundle.open_bundle(children["root"] / "killed-0" / "bundle")


@pytest.mark.parametrize("point", [f"{step}, {when}" for step, when, _ in LIMITED])
def test_a_full_disk_is_an_export_error_and_leaves_nothing(children: dict[str, Any], point: str) -> None:
    (kind, message), names = children["limited"][point]
    assert kind == "ExportError", message
    assert "File too large" in message
    assert "ulimit -f" in message
    assert names == []


def test_of_two_exports_at_once_one_wins(children: dict[str, Any]) -> None:
    said, names = children["race"]
    assert sorted(kind for kind, _ in said) == ["ExportError", "done"]
    (message,) = [text for kind, text in said if kind == "ExportError"]
    assert "pass overwrite=True or --overwrite" in message  # whether it is found before the rename, or at it
    assert names == ["bundle"]
    bundle.open_bundle(children["root"] / "race" / "bundle")


def test_the_first_export_of_a_process_is_silent(children: dict[str, Any]) -> None:
    assert children["stderr"] == ""


def test_errors_of_the_engine_do_not_leak() -> None:
    assert not issubclass(BundleError, ExportError)  # so they have to be turned into one
    assert issubclass(ExportError, RaskrankError)
