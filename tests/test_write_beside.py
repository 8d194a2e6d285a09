"""Others in the same folder: a second export, what somebody puts there, and what a killed process left."""

import errno
import fcntl
import json
import os
import shutil
import signal
from pathlib import Path

import pytest

from raskrank.errors import ExportError
from raskrank_export import temporary
from raskrank_export.write import bundle_folder
from writing import MANIFEST, NANO, NEW, OLD, answer, content, export, fill, leave_stale, names, raising, running

pytestmark = pytest.mark.timeout(60)


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
            temporary.remove_stale(tmp_path / "bundle")
        real(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", flock)
    with bundle_folder(tmp_path / "bundle") as temp:
        assert names(tmp_path) == [temp.name, f"{temp.name}.lock"]
        temporary.remove_stale(tmp_path / "bundle")
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
        temporary.remove_stale(tmp_path / "bundle")
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
