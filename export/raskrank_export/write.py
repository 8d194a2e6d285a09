"""Atomic writing of a bundle folder: the target is whole or absent, and never written in place."""

import ctypes
import errno
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from raskrank.bundle import read_manifest
from raskrank.errors import BundleError, ExportError, Incompatible
from raskrank.manifest import FILES, MANIFEST
from raskrank_export.temporary import beside, claimed, remove_stale

_AT_FDCWD = -100
_RENAME_EXCHANGE = 2

_MORE_SPACE = "free some space, or choose a folder on another disk"
_WRITABLE = "choose a folder that you may write to"
_TAKEN = "something was put there meanwhile, perhaps by another export; pass overwrite=True or --overwrite"
# What the manifest of every format has, and hardly one of another program.
_KEYS = {"format", "name", "source", "recipe", "files", "self_test"}
_HINTS = {
    errno.ENOSPC: _MORE_SPACE,
    errno.EDQUOT: _MORE_SPACE,
    errno.EFBIG: "raise the file size limit (ulimit -f), or choose a folder on another file system",
    errno.EACCES: _WRITABLE,
    errno.EPERM: _WRITABLE,
    errno.EROFS: _WRITABLE,
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.ENOTDIR: "choose a path whose parents are folders",
    errno.EBUSY: "choose a folder that is not mounted",
    errno.EEXIST: _TAKEN,
    errno.ENOTEMPTY: _TAKEN,
}


@contextmanager
def bundle_folder(target: Path, *, overwrite: bool = False) -> Iterator[Path]:
    """Yields an empty temporary folder beside `target`; once the block has filled it, it becomes `target`.

    Missing parents are made. When the block ends, every file and folder is synced to disk, then renamed. When it raises
    anything at all, the temporary folder and the parents made for it are removed, and nothing else has changed. What
    killed exports of the same target left behind is removed at the start.

    With `overwrite`, an existing bundle is swapped for the new one and then removed; processes that have its files
    open or mapped keep them. Only a folder that is empty, or holds the files of a bundle alone and a manifest of Raskrank's,
    of whatever format, is replaced. Other folders, a file, a link, a mount point and the current folder are refused.

    Raises ExportError: before yielding where `target` exists or may not be overwritten; and for every OSError, also
    one from the block, with that error as its cause.
    """
    place = _place(target)
    try:
        remove_stale(place)
        _refuse_existing(place, target, overwrite=overwrite)
        with _parents(place.parent), claimed(place) as temp:
            yield temp
            for path in [*temp.rglob("*"), temp]:
                _sync(path)
            _refuse_existing(place, target, overwrite=overwrite)
            _put_in_place(temp, place, overwrite=overwrite)
    except OSError as error:
        hint = _HINTS.get(error.errno or 0, "mend the cause, or choose another folder")
        raise ExportError(f"{target}: the bundle could not be written: {error}; {hint}") from error


def _place(target: Path) -> Path:
    """The absolute path of `target`, its parents free of links and dots."""
    _refuse_name(target)
    whole = target.name in ("", "..")
    place = Path(os.path.realpath(target)) if whole else Path(os.path.realpath(target.parent), target.name)
    _refuse_name(place)
    return place


def _refuse_name(path: Path) -> None:
    """PyTorch and onnxruntime, which write and read there, know no names but UTF-8."""
    try:
        usable = b"\0" not in str(path).encode()
    except UnicodeEncodeError:
        usable = False
    if not usable:
        raise ExportError(f"{str(path)!r} cannot name a bundle's folder: it holds NUL or is not UTF-8; choose another name")


def _refuse_existing(place: Path, target: Path, *, overwrite: bool) -> None:
    if not os.path.lexists(place):
        return
    if not overwrite:
        raise ExportError(f"{target} exists; pass overwrite=True or --overwrite, or choose another folder")
    reason = _why_not_replaceable(place)
    if reason:
        raise ExportError(f"{target} {reason}, so it is not overwritten; choose another folder, or remove it yourself")


def _why_not_replaceable(place: Path) -> str | None:
    if place.is_symlink():
        return "is a symbolic link"
    if not place.is_dir():
        return "is not a folder"
    if place.is_mount():
        return "is a mount point"
    if place in (cwd := Path(os.path.realpath(os.curdir)), *cwd.parents):
        return "is, or holds, the current folder"
    if not os.access(place, os.W_OK | os.X_OK):
        return "may not be written to"
    entries = sorted(place.iterdir())
    if not entries:
        return None
    if not (place / MANIFEST).is_file():
        return f"is not empty and not a bundle (no {MANIFEST})"
    if foreign := [entry.name for entry in entries if entry.name not in (*FILES, MANIFEST) or not entry.is_file()]:
        return f"holds {foreign[0]!r}, as no bundle does"
    return _why_not_ours(place)


def _why_not_ours(folder: Path) -> str | None:
    try:
        read_manifest(folder)
    except Incompatible:  # of another format: its keys have to do
        values = json.loads((folder / MANIFEST).read_text("utf-8"))
        return None if values.keys() >= _KEYS else f"has a {MANIFEST} that is not Raskrank's"
    except BundleError as error:
        return f"has a {MANIFEST} that is damaged or not Raskrank's ({error})"
    return None


@contextmanager
def _parents(folder: Path) -> Iterator[None]:
    """Makes `folder` and its missing parents, and takes those back, where still empty, if the block raises."""
    made: list[Path] = []
    try:
        for path in [*reversed(folder.parents), folder]:
            if path.exists():
                continue
            with suppress(FileExistsError):  # another export made it meanwhile
                path.mkdir()
                made.append(path)
        yield
    except BaseException:
        for path in reversed(made):
            with suppress(OSError):
                path.rmdir()
        raise
    # The bundle is whole either way; a crash of the machine could only undo the renames.
    with suppress(OSError):
        for path in [folder, *(path.parent for path in reversed(made))]:
            _sync(path)


def _put_in_place(temp: Path, place: Path, *, overwrite: bool) -> None:
    """Renames `temp` to `place`. Afterwards an overwritten bundle lies under one of `temp`'s names."""
    if overwrite and os.path.lexists(place):
        if _exchange(temp, place):
            return
        place.rename(beside(temp, ".old"))
    temp.rename(place)


def _exchange(one: Path, other: Path) -> bool:
    """Swaps two folders in one step; False where this system or this file system does not offer it."""
    if sys.platform != "linux":
        return False
    renameat2 = getattr(ctypes.CDLL(None), "renameat2", None)
    if renameat2 is None:
        return False
    return bool(renameat2(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE) == 0)


def _sync(path: Path) -> None:
    """Flushes a file or a folder to disk."""
    if os.name == "nt" and path.is_dir():
        return
    descriptor = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
