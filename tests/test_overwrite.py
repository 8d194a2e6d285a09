"""Where the target of a bundle exists already: replaced in one step if asked for, and otherwise left as it is."""

import errno
import os
import shutil
from pathlib import Path
from types import ModuleType

import pytest

import bundles
from raskrank.errors import ExportError
from raskrank_export import write
from raskrank_export.write import bundle_folder
from writing import MANIFEST, NANO, NEW, OLD, content, export, fill, names, raising, running

pytestmark = pytest.mark.timeout(60)


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
