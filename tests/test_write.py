"""Bundles are written whole or not at all: names, parents, failures inside the block, a full disk."""

import errno
import json
import os
import shutil
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from raskrank.errors import ExportError
from raskrank_export.write import bundle_folder
from writing import NEW, OLD, answer, content, export, fill, leave_stale, names, raising

pytestmark = pytest.mark.timeout(60)


# The plain case


def test_the_folder_appears_whole_and_alone(tmp_path: Path) -> None:
    with bundle_folder(tmp_path / "bundle") as temp:
        assert temp.parent == tmp_path
        assert temp.name.startswith(f".bundle.tmp-{os.getpid()}-")
        assert list(temp.iterdir()) == []
        fill(temp)
        assert not (tmp_path / "bundle").exists()
    assert content(tmp_path / "bundle") == NEW
    assert names(tmp_path) == ["bundle"]


def test_folders_below_are_kept(tmp_path: Path) -> None:
    with bundle_folder(tmp_path / "bundle") as temp:
        fill(temp / "deep" / "er")
    assert content(tmp_path / "bundle" / "deep" / "er") == NEW


def test_everything_is_synced_before_the_rename_and_the_parents_after(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[int | str] = []
    real_fsync, real_rename = os.fsync, os.rename

    def fsync(descriptor: int) -> None:
        events.append(os.fstat(descriptor).st_ino)
        real_fsync(descriptor)

    def rename(*paths: Path) -> None:
        events.append("rename")
        real_rename(*paths)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "rename", rename)
    target = tmp_path / "new" / "bundle"
    export(target)
    at = events.index("rename")
    before = {path.stat().st_ino for path in [target, *target.iterdir()]}
    assert set(events[:at]) == before
    assert set(events[at + 1 :]) == {target.parent.stat().st_ino, tmp_path.stat().st_ino}


def test_the_folder_has_the_permissions_of_any_new_folder(tmp_path: Path) -> None:
    export(tmp_path / "bundle")
    (tmp_path / "plain").mkdir()
    assert stat.S_IMODE((tmp_path / "bundle").stat().st_mode) == stat.S_IMODE((tmp_path / "plain").stat().st_mode)


# Failures inside the block


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, ValueError, MemoryError, ExportError])
@pytest.mark.parametrize("overwrite", [False, True])
def test_an_exception_passes_and_leaves_nothing(tmp_path: Path, error: type[BaseException], overwrite: bool) -> None:
    if overwrite:
        fill(tmp_path / "bundle", OLD)
    with pytest.raises(error, match="mine"):
        export(tmp_path / "bundle", overwrite=overwrite, meanwhile=raising(error("mine")))
    assert names(tmp_path) == (["bundle"] if overwrite else [])
    assert not overwrite or content(tmp_path / "bundle") == OLD


def test_ctrl_c_while_syncing_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda _: signal.raise_signal(signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        export(tmp_path / "sub" / "bundle")
    assert names(tmp_path) == []


def test_an_oserror_becomes_an_export_error_that_says_what_to_do(tmp_path: Path) -> None:
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    with pytest.raises(ExportError) as caught:
        export(tmp_path / "bundle", meanwhile=raising(full))
    assert caught.value.__cause__ is full
    assert str(tmp_path / "bundle") in str(caught.value)
    assert "No space left on device" in str(caught.value)
    assert "free some space" in str(caught.value)
    assert names(tmp_path) == []


def test_an_oserror_without_a_number_is_reported_too(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="lost the line"):
        export(tmp_path / "bundle", meanwhile=raising(OSError("lost the line")))
    assert names(tmp_path) == []


# Parents


def test_missing_parents_are_made(tmp_path: Path) -> None:
    export(tmp_path / "a" / "b" / "bundle")
    assert content(tmp_path / "a" / "b" / "bundle") == NEW


def test_only_own_and_empty_parents_are_removed_after_a_failure(tmp_path: Path) -> None:
    (tmp_path / "given").mkdir()
    target = tmp_path / "given" / "a" / "b" / "bundle"
    with pytest.raises(ZeroDivisionError):
        export(target, meanwhile=raising(ZeroDivisionError()))
    assert names(tmp_path) == ["given"]
    assert names(tmp_path / "given") == []

    def fail_after_a_guest(temp: Path) -> None:
        (tmp_path / "given" / "a" / "foreign").touch()
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        export(target, meanwhile=fail_after_a_guest)
    assert names(tmp_path / "given" / "a") == ["foreign"]


def test_a_parent_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    for target in (tmp_path / "file" / "bundle", tmp_path / "file" / "a" / "bundle"):
        with pytest.raises(ExportError, match=r"Not a directory.*whose parents are folders"):
            export(target)
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.skipif(not Path("/sys/kernel").is_dir(), reason="needs /sys, a folder where nobody can write")
def test_a_parent_that_cannot_be_written_to() -> None:
    for target in (Path("/sys/raskrank-bundle"), Path("/sys/raskrank/bundle")):
        with pytest.raises(ExportError, match="choose a folder that you may write to"):
            export(target)


# Names


@pytest.mark.parametrize(
    "name",
    [
        *("with space", "norsk æøå 日本 🏃", "-rf", ".hidden", "a.b.c", "new\nline", 'it\'s "quoted"', "*[a-z]?("),
        *("x" * 200, "slash/", "./dot", "sub/../bundle"),
    ],
)
def test_odd_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    (last,) = Path(os.path.normpath(name)).parts
    export(Path(name))
    assert content(tmp_path / last) == NEW
    with pytest.raises(ExportError, match="exists"):
        export(Path(name))
    leave_stale(tmp_path / last)
    export(Path(name), OLD, overwrite=True)
    assert content(tmp_path / last) == OLD
    assert names(tmp_path) == [last]


def test_a_relative_target_stays_where_it_was_when_the_block_changes_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    with bundle_folder(Path("bundle")) as temp:
        monkeypatch.chdir(tmp_path / "elsewhere")
        fill(temp)
    assert names(tmp_path) == ["bundle", "elsewhere"]


def test_a_parent_that_is_a_link_is_followed(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    export(tmp_path / "link" / "bundle")
    assert names(tmp_path / "real") == ["bundle"]


@pytest.mark.parametrize("name", ["a\0b", "\ud800", "not UTF-8 \udcff", "\udcff/bundle"])
def test_impossible_names(tmp_path: Path, name: str) -> None:
    with pytest.raises(ExportError, match="cannot name a bundle's folder: it holds NUL or is not UTF-8"):
        export(tmp_path / name)
    assert names(tmp_path) == []


def test_a_current_folder_that_is_not_utf8(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "\udcff").mkdir()
    monkeypatch.chdir(tmp_path / "\udcff")
    with pytest.raises(ExportError, match="cannot name a bundle's folder"):
        export(Path("bundle"))
    assert names(tmp_path / "\udcff") == []


def test_a_name_too_long_for_the_file_system(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="choose a shorter name"):
        export(tmp_path / "sub" / ("x" * 255))
    assert names(tmp_path) == []


def test_links_in_a_circle(tmp_path: Path) -> None:
    (tmp_path / "circle").symlink_to("circle")
    with pytest.raises(ExportError, match="could not be written"):
        export(tmp_path / "circle" / "bundle")


# A full disk


WRITE_LARGE = """
import json, os, resource, signal, sys
from pathlib import Path
from raskrank.errors import ExportError
from raskrank_export.write import bundle_folder

base, limits = Path(sys.argv[1]), json.loads(sys.argv[2])
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
for limit in limits:
    if limit is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    try:
        with bundle_folder(base / "sub" / "bundle") as temp:
            for name, size in (("model.onnx", 5000), ("model.onnx.data", 200_000), ("manifest.json", 300)):
                (temp / name).write_bytes(b"x" * size)
    except ExportError as error:
        result = [type(error.__cause__).__name__, error.__cause__.errno, str(error)]
    else:
        result = ["none", 0, ""]
    print(json.dumps([*result, sorted(os.listdir(base))]), flush=True)
"""


def test_a_file_size_limit_leaves_nothing(tmp_path: Path) -> None:
    limits = [0, 1, 299, 4096, 5000, 65_536, 199_999, 200_000]
    lines = answer(WRITE_LARGE, tmp_path, json.dumps(limits)).splitlines()
    *failed, passed = (json.loads(line) for line in lines)
    assert len(failed) == len(limits) - 1
    for kind, number, message, entries in failed:
        assert (kind, number) == ("OSError", errno.EFBIG)
        assert str(tmp_path / "sub" / "bundle") in message
        assert "ulimit -f" in message
        assert entries == []
    assert passed == ["none", 0, "", ["sub"]]
    assert sorted(path.stat().st_size for path in (tmp_path / "sub" / "bundle").iterdir()) == [300, 5000, 200_000]


def test_a_full_disk_leaves_nothing(tmp_path: Path) -> None:
    # A file system of 64 kB that only this child sees.
    inside = 'mount -t tmpfs -o size=64k tmpfs "$1" && shift && exec "$@"'
    unshare = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", inside, "sh", str(tmp_path)]
    if shutil.which("unshare") is None or subprocess.run([*unshare, "true"], capture_output=True, timeout=30).returncode:
        pytest.skip("needs unshare and the right to mount a tmpfs in a namespace of its own")
    command = [*unshare, sys.executable, "-c", WRITE_LARGE, str(tmp_path), "[null]"]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    run = subprocess.run(command, env=env, capture_output=True, text=True, timeout=50, check=True)
    kind, number, message, entries = json.loads(run.stdout)
    assert (kind, number) == ("OSError", errno.ENOSPC)
    assert str(tmp_path / "sub" / "bundle") in message
    assert "free some space" in message
    assert entries == []
