"""A bundle folder is whole or absent: after kills, full disks, races, interrupts and odd names."""

import errno
import fcntl
import json
import os
import shutil
import signal
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import pytest

import bundles
from paths import ROOT
from raskrank.errors import ExportError
from raskrank_export import write
from raskrank_export.write import bundle_folder

pytestmark = pytest.mark.timeout(60)

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


# The target exists


@pytest.mark.parametrize("kind", ["bundle", "empty folder", "file", "link", "dangling link"])
def test_an_existing_target_is_refused_before_the_block(tmp_path: Path, kind: str) -> None:
    target = tmp_path / "bundle"
    make(target, kind)
    before = names(tmp_path)
    with pytest.raises(ExportError, match=r"bundle exists; pass overwrite=True or --overwrite"), bundle_folder(target):
        pytest.fail("the block must not run")
    assert names(tmp_path) == before


@pytest.mark.parametrize("name", [".", "..", "/"])
@pytest.mark.parametrize("overwrite", [False, True])
def test_the_current_folder_and_those_around_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, overwrite: bool
) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "a" / "b")
    message = "mount point|current folder" if overwrite else "exists"
    with pytest.raises(ExportError, match=message):
        export(Path(name), overwrite=overwrite)
    assert names(tmp_path / "a") == ["b"]


def make(target: Path, kind: str) -> None:
    if kind == "bundle":
        fill(target, OLD)
    elif kind == "empty folder":
        target.mkdir()
    elif kind == "file":
        target.write_text("mine")
    elif kind == "link":
        fill(target.with_name("linked"), OLD)
        target.symlink_to("linked")
    elif kind == "dangling link":
        target.symlink_to("nowhere")
    elif kind == "home":
        fill(target, {"letter.txt": "mine"})
    elif kind == "project":
        fill(target)
        fill(target / "src", {"main.js": "mine"})
    elif kind == "bundle and notes":
        fill(target, {**OLD, "notes.txt": "mine"})
    elif kind == "bundle and pipe":
        fill(target, {"manifest.json": MANIFEST})
        os.mkfifo(target / "model.onnx")
    elif kind == "browser extension":
        fill(target, {"manifest.json": '{"manifest_version": 3, "name": "Mine", "version": "1.0"}', "background.js": "mine"})
    elif kind == "bare extension":
        fill(target, {"manifest.json": '{"manifest_version": 3, "name": "Mine", "version": "1.0"}'})
    elif kind == "another program's format":
        fill(target, {"manifest.json": '{"format": "3.0", "files": {}, "name": "Mine"}'})
    elif kind == "damaged manifest":
        fill(target, {**OLD, "manifest.json": MANIFEST[:-100]})
    elif kind == "large manifest":
        fill(target, {"manifest.json": MANIFEST + " " * 2**20})
    elif kind == "manifest folder":
        (target / "manifest.json").mkdir(parents=True)


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("file", "not a folder"),
        ("link", "symbolic link"),
        ("dangling link", "symbolic link"),
        ("home", "no manifest.json"),
        ("project", "holds 'src', as no bundle does"),
        ("bundle and notes", "holds 'notes.txt', as no bundle does"),
        ("bundle and pipe", "holds 'model.onnx', as no bundle does"),
        ("browser extension", "holds 'background.js', as no bundle does"),
        ("bare extension", "damaged or not Raskrank's .*remove it yourself"),
        ("another program's format", "a manifest.json that is not Raskrank's"),
        ("damaged manifest", "damaged or not Raskrank's .*remove it yourself"),
        ("large manifest", "damaged or not Raskrank's .*remove it yourself"),
        ("manifest folder", "no manifest.json"),
    ],
)
def test_overwrite_refuses_what_is_no_bundle(tmp_path: Path, kind: str, reason: str) -> None:
    target = tmp_path / "bundle"
    make(target, kind)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(ExportError, match=reason), bundle_folder(target, overwrite=True):
        pytest.fail("the block must not run")
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.skipif(not Path("/proc").is_mount(), reason="needs /proc to be a mount point")
def test_overwrite_refuses_a_mount_point() -> None:
    with pytest.raises(ExportError, match="is a mount point"):
        export(Path("/proc"), overwrite=True)


@pytest.fixture(params=["exchange", "two renames"])
def swap(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "two renames":
        monkeypatch.setattr(write, "_exchange", lambda *_: False)
    return str(request.param)


@pytest.mark.parametrize("kind", ["bundle", "empty folder", "absent"])
def test_overwrite_replaces(tmp_path: Path, swap: str, kind: str) -> None:
    make(tmp_path / "bundle", kind)
    export(tmp_path / "bundle", overwrite=True)
    assert content(tmp_path / "bundle") == NEW
    assert names(tmp_path) == ["bundle"]


def test_overwrite_replaces_a_bundle_of_links(tmp_path: Path) -> None:
    (tmp_path / "bundle").mkdir()
    for file in NANO.iterdir():
        (tmp_path / "bundle" / file.name).symlink_to(file)
    export(tmp_path / "bundle", overwrite=True)
    assert content(tmp_path / "bundle") == NEW
    assert (NANO / "manifest.json").read_text("utf-8") == MANIFEST


@pytest.mark.parametrize("number", ["0.9", "99.0"])
def test_overwrite_replaces_a_bundle_of_another_format(tmp_path: Path, number: str) -> None:
    bundles.edit(bundles.copy_bundle(NANO, tmp_path / "bundle"), format=number)
    export(tmp_path / "bundle", overwrite=True)
    assert content(tmp_path / "bundle") == NEW


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_overwrite_refuses_a_bundle_that_may_not_be_written_to(tmp_path: Path) -> None:
    fill(tmp_path / "bundle", OLD)
    (tmp_path / "bundle").chmod(0o500)
    with pytest.raises(ExportError, match="may not be written to"):
        export(tmp_path / "bundle", overwrite=True)
    assert content(tmp_path / "bundle") == OLD


def test_the_swap_is_one_step_where_the_file_system_offers_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("one", "other"):
        fill(tmp_path / name, {"name": name})
    if not write._exchange(tmp_path / "one", tmp_path / "other"):
        pytest.skip("needs renameat2(RENAME_EXCHANGE) on the file system of the temporary folder")
    assert (tmp_path / "one" / "name").read_text() == "other"
    fill(tmp_path / "bundle", OLD)
    # No rename takes part, so at no time is the target absent.
    monkeypatch.delattr(os, "rename")
    export(tmp_path / "bundle", overwrite=True)
    assert content(tmp_path / "bundle") == NEW


def test_exchange_says_no_instead_of_raising(tmp_path: Path) -> None:
    assert not write._exchange(tmp_path / "absent", tmp_path / "absent too")


def failing_rename(monkeypatch: pytest.MonkeyPatch, numbers: set[int]) -> None:
    """From now on the n-th rename fails, for each n of `numbers`, counted from 1."""
    real, calls = os.rename, 0

    def rename(source: Path, destination: Path) -> None:
        nonlocal calls
        calls += 1
        if calls in numbers:
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(source), None, str(destination))
        real(source, destination)

    monkeypatch.setattr(os, "rename", rename)
    monkeypatch.setattr(write, "_exchange", lambda *_: False)


@pytest.mark.parametrize("number", [1, 2])
def test_the_old_bundle_stays_if_a_rename_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    fill(tmp_path / "bundle", OLD)
    failing_rename(monkeypatch, {number})
    with pytest.raises(ExportError, match="Input/output error"):
        export(tmp_path / "bundle", overwrite=True)
    assert content(tmp_path / "bundle") == OLD
    assert names(tmp_path) == ["bundle"]


@pytest.mark.parametrize("overwrite", [False, True])
def test_the_next_export_puts_the_old_bundle_back_if_this_one_could_not(tmp_path: Path, overwrite: bool) -> None:
    fill(tmp_path / "bundle", OLD)
    with pytest.MonkeyPatch.context() as patch:
        failing_rename(patch, {2, 3})
        with pytest.raises(ExportError, match=r"\.old' -> '.*/bundle'"):
            export(tmp_path / "bundle", overwrite=True)
    assert not (tmp_path / "bundle").exists()
    with pytest.raises(ZeroDivisionError if overwrite else ExportError):
        export(tmp_path / "bundle", overwrite=overwrite, meanwhile=raising(ZeroDivisionError()))
    assert content(tmp_path / "bundle") == OLD
    assert names(tmp_path) == ["bundle"]


def test_mapped_files_outlive_an_overwrite(tmp_path: Path, swap: str) -> None:
    script = (
        "import mmap, sys\n"
        "with open(sys.argv[1], 'rb') as file: view = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)\n"
        "print('mapped', flush=True); input(); print(len(view), view[:].count(b'old'))"
    )
    fill(tmp_path / "bundle", {**OLD, "model.onnx.data": "old" * 100_000})
    with running(script, tmp_path / "bundle" / "model.onnx.data") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "mapped\n"
        export(tmp_path / "bundle", overwrite=True)
        assert process.communicate("\n", timeout=30)[0] == "300000 100000\n"
    assert content(tmp_path / "bundle") == NEW


# Something happens to the target while the block runs


@pytest.mark.parametrize("kind", ["bundle", "empty folder", "file", "dangling link"])
def test_a_target_that_appears_meanwhile_is_not_replaced(tmp_path: Path, kind: str) -> None:
    target = tmp_path / "bundle"
    with pytest.raises(ExportError, match="exists"):
        export(target, meanwhile=lambda _: make(target, kind))
    assert names(tmp_path) == ["bundle"]
    assert kind != "bundle" or content(target) == OLD


@pytest.mark.parametrize(("owner", "step"), [(write, "_put_in_place"), (os, "rename")])
@pytest.mark.parametrize("kind", ["bundle", "file"])
def test_a_target_that_appears_at_the_last_moment_is_not_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, owner: ModuleType, step: str, kind: str
) -> None:
    real = getattr(owner, step)

    def make_first(source: Path, destination: Path, **options: bool) -> None:
        make(destination, kind)
        real(source, destination, **options)

    monkeypatch.setattr(owner, step, make_first)
    with pytest.raises(ExportError, match="could not be written"):
        export(tmp_path / "bundle")
    assert names(tmp_path) == ["bundle"]
    assert kind != "bundle" or content(tmp_path / "bundle") == OLD


def test_a_bundle_that_becomes_something_else_meanwhile_is_kept(tmp_path: Path) -> None:
    fill(tmp_path / "bundle", OLD)
    with pytest.raises(ExportError, match="holds 'notes', as no bundle does"):
        export(
            tmp_path / "bundle",
            overwrite=True,
            meanwhile=lambda _: fill(tmp_path / "bundle" / "notes", {"mine": "mine"}),
        )
    assert content(tmp_path / "bundle" / "notes") == {"mine": "mine"}
    assert names(tmp_path) == ["bundle"]


def test_a_bundle_that_vanishes_meanwhile(tmp_path: Path, swap: str) -> None:
    fill(tmp_path / "bundle", OLD)
    with bundle_folder(tmp_path / "bundle", overwrite=True) as temp:
        fill(temp)
        shutil.rmtree(tmp_path / "bundle")
    assert content(tmp_path / "bundle") == NEW


# Two exports at once

EXPORT_ON_COMMAND = """
import sys
from pathlib import Path
from raskrank.errors import ExportError
from raskrank_export.write import bundle_folder
target, text, overwrite = Path(sys.argv[1]), sys.argv[2], sys.argv[3] == "True"
try:
    with bundle_folder(target, overwrite=overwrite) as temp:
        (temp / "manifest.json").write_text(Path(sys.argv[4]).read_text("utf-8"), "utf-8")
        (temp / "model.onnx").write_text(text)
        print(temp.name, flush=True)
        input()
except ExportError as error:
    print(error)
else:
    print("won")
"""


@pytest.mark.parametrize("overwrite", [False, True])
def test_two_processes_at_once(tmp_path: Path, overwrite: bool) -> None:
    target = tmp_path / "missing" / "bundle"
    if overwrite:
        fill(target, OLD)
    with (
        running(EXPORT_ON_COMMAND, target, "one", overwrite, NANO / "manifest.json") as one,
        running(EXPORT_ON_COMMAND, target, "two", overwrite, NANO / "manifest.json") as two,
    ):
        assert one.stdout is not None
        assert two.stdout is not None
        temps = {one.stdout.readline().strip(), two.stdout.readline().strip()}
        assert temps <= set(names(target.parent))
        for process in (one, two):
            assert process.stdin is not None
            process.stdin.write("\n")
            process.stdin.flush()
        outputs = {"one": one.communicate(timeout=30)[0], "two": two.communicate(timeout=30)[0]}
        assert one.returncode == two.returncode == 0
    winners = [name for name, output in outputs.items() if output == "won\n"]
    assert content(target).get("model.onnx") in winners
    # Where swapping takes two renames, one of two overwriting exports may lose as well.
    assert len(winners) == 1 or (overwrite and len(winners) == 2)
    assert all(output == "won\n" or str(target) in output for output in outputs.values())
    assert names(target.parent) == ["bundle"]


def test_a_live_export_is_left_alone_and_a_killed_one_is_not(tmp_path: Path) -> None:
    target = tmp_path / "bundle"
    with running(EXPORT_ON_COMMAND, target, "one", False, NANO / "manifest.json") as live:
        assert live.stdout is not None
        name = live.stdout.readline().strip()
        export(target)
        assert names(tmp_path) == sorted([name, f"{name}.lock", "bundle"])
        live.send_signal(signal.SIGKILL)
        live.wait(timeout=30)
        assert names(tmp_path) == sorted([name, f"{name}.lock", "bundle"])
        with pytest.raises(ExportError, match="exists"):
            export(target)
    assert names(tmp_path) == ["bundle"]


def test_two_exports_in_one_process(tmp_path: Path) -> None:
    def export_within(outer: Path) -> None:
        export(tmp_path / "bundle")
        assert content(outer) == OLD

    with pytest.raises(ExportError, match="exists"):
        export(tmp_path / "bundle", OLD, meanwhile=export_within)
    assert content(tmp_path / "bundle") == NEW
    assert names(tmp_path) == ["bundle"]


def test_a_new_lock_that_another_export_takes_for_stale(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Between making a lock file and holding it lies an instant in which another export's tidying may remove it.
    real, calls = fcntl.flock, 0

    def flock(descriptor: int, operation: int) -> None:
        nonlocal calls
        calls += 1
        if calls == 1:
            write._remove_stale(tmp_path / "bundle")
        real(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", flock)
    with bundle_folder(tmp_path / "bundle") as temp:
        assert names(tmp_path) == [temp.name, f"{temp.name}.lock"]
        write._remove_stale(tmp_path / "bundle")
        fill(temp)
    assert calls >= 3
    assert names(tmp_path) == ["bundle"]


def test_a_lock_that_cannot_be_had_is_an_error_and_no_endless_loop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def flock(descriptor: int, operation: int) -> None:
        raise BlockingIOError

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.raises(ExportError, match="no lock could be taken"):
        export(tmp_path / "bundle")
    assert not (tmp_path / "bundle").exists()


def test_without_locks_an_export_works_and_touches_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def flock(descriptor: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    leave_stale(tmp_path / "bundle")
    before = names(tmp_path)
    monkeypatch.setattr(fcntl, "flock", flock)
    export(tmp_path / "bundle")
    assert names(tmp_path) == sorted([*before, "bundle"])


def test_what_merely_looks_like_a_temporary_folder_is_left_alone(tmp_path: Path) -> None:
    kept = [
        ".bundle.tmp",
        ".bundle.tmp-1",
        ".bundle.tmp-1-0123456",
        ".bundle.tmp-1-01234567.bak",
        "bundle.tmp-1-01234567",
    ]
    kept += [".bundle2.tmp-1-01234567", ".bundle.tmp-x-01234567", "x.bundle.tmp-1-01234567", ".bundle.tmp-1-0123456g"]
    kept += [".bundle.tmp-2-01234567"]  # without a lock
    for name in kept:
        fill(tmp_path / name)
    leave_stale(tmp_path / "bundle")
    export(tmp_path / "bundle")
    assert names(tmp_path) == sorted([*kept, "bundle"])


# Others may write into the folder around the target, too

TEMP = ".bundle.tmp-1-01234567"


def plant(folder: Path, what: str) -> None:
    """What another user may put where exports of folder/bundle look for leftovers."""
    lock, elsewhere = folder / f"{TEMP}.lock", folder / "elsewhere"
    fill(elsewhere, {"letter.txt": "mine"})
    if what == "lock is a dangling link":
        lock.symlink_to(folder / "new file")
    elif what == "lock is a link to a file":
        lock.symlink_to(elsewhere / "letter.txt")
    elif what == "lock is a folder":
        lock.mkdir()
    elif what == "lock is a pipe":
        os.mkfifo(lock)
    elif what == "lock is somebody's file":
        lock.write_text("mine")
    else:
        lock.touch()
        place = folder / (TEMP if what.startswith("folder") else f"{TEMP}.old")
        place.symlink_to(elsewhere)


@pytest.mark.parametrize(
    "what",
    [
        "lock is a dangling link",
        "lock is a link to a file",
        "lock is a folder",
        "lock is a pipe",
        "lock is somebody's file",
        "folder is a link",
        "old bundle is a link",
    ],
)
def test_cleaning_up_follows_no_link_and_makes_nothing(tmp_path: Path, what: str) -> None:
    plant(tmp_path, what)
    before = [(path, path.lstat()) for path in sorted(tmp_path.rglob("*"))]
    with pytest.raises(ZeroDivisionError):
        export(tmp_path / "bundle", meanwhile=raising(ZeroDivisionError()))
    after = [(path, path.lstat()) for path in sorted(tmp_path.rglob("*"))]
    assert [(path, status.st_ino) for path, status in after] == [(path, status.st_ino) for path, status in before]
    assert content(tmp_path / "elsewhere") == {"letter.txt": "mine"}


@pytest.mark.parametrize("part", ["", ".lock", ".old"])
def test_what_another_user_left_behind_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: str) -> None:
    leave_stale(tmp_path / "bundle")
    fill(tmp_path / f"{TEMP}.old", OLD)
    theirs = tmp_path / f"{TEMP}{part}"
    if os.geteuid() == 0:
        os.chown(theirs, 12345, -1)
    else:
        monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    before = names(tmp_path)
    export(tmp_path / "bundle")
    assert names(tmp_path) == sorted([*before, "bundle"])
    assert content(tmp_path / "bundle") == NEW


def test_a_link_put_in_place_of_the_temporary_folder_is_not_followed(tmp_path: Path) -> None:
    fill(tmp_path / "elsewhere", {"letter.txt": "mine"})

    def exchange(temp: Path) -> None:
        temp.rename(tmp_path / "stolen")
        temp.symlink_to(tmp_path / "elsewhere")
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        export(tmp_path / "bundle", meanwhile=exchange)
    assert content(tmp_path / "elsewhere") == {"letter.txt": "mine"}
    assert not (tmp_path / "bundle").exists()


def test_a_leftover_that_cannot_be_removed_keeps_its_lock(tmp_path: Path) -> None:
    leave_stale(tmp_path / "bundle")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shutil, "rmtree", lambda *_, **__: None)
        write._remove_stale(tmp_path / "bundle")
    assert names(tmp_path) == [TEMP, f"{TEMP}.lock"]
    export(tmp_path / "bundle")
    assert names(tmp_path) == ["bundle"]


# Killed at each step

KILL = """
import json, os, shutil, signal, sys
from pathlib import Path
from raskrank_export import write

base, mode = Path(sys.argv[1]), sys.argv[2]
old, new, after = json.loads(sys.argv[3])
if mode == "two renames":
    write._exchange = lambda *_: False
overwrite = mode != "new"
target = base / ("parent/bundle" if mode == "new" else "bundle")
os.fsync = lambda descriptor: None  # a kill, unlike a power cut, loses nothing that was not synced

def export(files, overwrite):
    with write.bundle_folder(target, overwrite=overwrite) as temp:
        for name, text in files.items():
            file = os.open(temp / name, os.O_WRONLY | os.O_CREAT)
            os.write(file, text[:2].encode())
            os.write(file, text[2:].encode())
            os.close(file)

def die_at(step):
    done = 0
    def counted(call):
        def wrapped(*args, **kwargs):
            nonlocal done
            done += 1
            if done == step:
                os.kill(os.getpid(), signal.SIGKILL)
            return call(*args, **kwargs)
        return wrapped
    for name in ("open", "write", "close", "mkdir", "rename", "unlink", "rmdir", "fsync"):
        setattr(os, name, counted(getattr(os, name)))

def state():
    files = (path for path in base.rglob("*") if path.is_file())
    return {str(path.relative_to(base)): path.read_text() for path in files}

for step in range(1, 1000):
    shutil.rmtree(base, ignore_errors=True)
    base.mkdir()
    if overwrite:
        export(old, False)
    child = os.fork()
    if child == 0:
        die_at(step)
        export(new, overwrite)
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    killed = state()
    export(after, True)
    entries = sorted(str(path.relative_to(base)) for path in target.parent.iterdir())
    print(json.dumps([status, killed, state(), entries]))
    if status == 0:
        break
"""


@pytest.mark.parametrize("mode", ["new", "exchange", "two renames"])
def test_killed_at_any_step_the_target_is_whole_or_absent(tmp_path: Path, mode: str) -> None:
    after = {"manifest.json": MANIFEST, "model.onnx": "after"}
    lines = answer(KILL, tmp_path / "base", mode, json.dumps([OLD, NEW, after])).splitlines()
    runs = [json.loads(line) for line in lines]
    prefix = "parent/bundle" if mode == "new" else "bundle"
    assert [run[0] for run in runs] == [signal.SIGKILL] * (len(runs) - 1) + [0]
    assert len(runs) > 30
    seen = []
    for _, killed, final, entries in runs:
        target = {name.removeprefix(prefix + "/"): text for name, text in killed.items() if name.startswith(prefix + "/")}
        assert target in ([{}, NEW] if mode == "new" else [OLD, NEW] if mode == "exchange" else [OLD, {}, NEW])
        if mode != "new" and not target:
            saved = {Path(name).name: text for name, text in killed.items() if ".old/" in name}
            assert saved == OLD
        seen.append(target)
        assert final == {f"{prefix}/{name}": text for name, text in after.items()}
        assert entries == [prefix]
    # Every kind of end was met, in this order.
    ends = [end for place, end in enumerate(seen) if place == 0 or seen[place - 1] != end]
    assert ends == {"new": [{}, NEW], "exchange": [OLD, NEW], "two renames": [OLD, {}, NEW]}[mode]


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
