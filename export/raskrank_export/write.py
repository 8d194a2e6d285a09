"""Atomic writing of a bundle folder: the target is whole or absent, and never written in place.

Beside the target `NAME` lie, while an export runs:

    .NAME.tmp-PID-HEX        what the caller fills; renamed to NAME at the end
    .NAME.tmp-PID-HEX.lock   flock-held by the export; made before the folder and removed after it, so that a folder
                             whose lock can be taken is stale
    .NAME.tmp-PID-HEX.old    the bundle to replace, for the moment between two renames where swapping is not offered
"""

import ctypes
import errno
import os
import re
import secrets
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from raskrank.errors import ExportError

if sys.platform != "win32":
    import fcntl

_AT_FDCWD = -100
_RENAME_EXCHANGE = 2
# A new lock is lost only to another export that takes it for stale in the instant before it is held.
_CLAIM_ATTEMPTS = 100

_MORE_SPACE = "free some space, or choose a folder on another disk"
_WRITABLE = "choose a folder that you may write to"
_TAKEN = "something was put there meanwhile, perhaps by another export; pass overwrite=True or --overwrite"
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
    open or mapped keep them. A folder that is no bundle (not empty, and without manifest.json or with folders in it),
    a file, a link, a mount point and the current folder are refused.

    Raises ExportError: before yielding where `target` exists or may not be overwritten; and for every OSError, also
    one from the block, with that error as its cause.
    """
    place = _place(target)
    try:
        _remove_stale(place)
        _refuse_existing(place, target, overwrite=overwrite)
        with _parents(place.parent), _claimed(place) as temp:
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
    try:
        usable = b"\0" not in os.fsencode(target)
    except UnicodeEncodeError:
        usable = False
    if not usable:
        raise ExportError(f"{str(target)!r} cannot name a folder: it holds NUL or invalid Unicode; choose another name")
    if target.name in ("", ".."):
        return Path(os.path.realpath(target))
    return Path(os.path.realpath(target.parent), target.name)


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
    entries = list(place.iterdir())
    if entries and not (place / "manifest.json").is_file():
        return "is not empty and not a bundle (no manifest.json)"
    # Bundles are flat; a manifest.json with folders beside it is somebody's project.
    if any(entry.is_dir() for entry in entries):
        return "holds folders, as no bundle does"
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


@contextmanager
def _claimed(place: Path) -> Iterator[Path]:
    """A new temporary folder for `place`, locked while the block runs; gone afterwards, unless it was renamed."""
    temp, lock = _claim(place)
    try:
        temp.mkdir()
        yield temp
    finally:
        try:
            _tidy(temp, place)
        finally:
            os.close(lock)


def _claim(place: Path) -> tuple[Path, int]:
    """A name that no other export uses, and the descriptor that holds its lock."""
    for _ in range(_CLAIM_ATTEMPTS):
        temp = place.with_name(f".{place.name}.tmp-{os.getpid()}-{secrets.token_hex(4)}")
        lock = os.open(_beside(temp, ".lock"), os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
        try:
            held = _take(lock)
        except OSError:
            held = True  # No locks here, so that no export can take this one for stale.
        if held and _beside(temp, ".lock").exists():
            return temp, lock
        os.close(lock)
    raise BlockingIOError(errno.EAGAIN, f"no lock could be taken beside {place}")


def _take(lock: int) -> bool:
    """Whether the lock is now held here; OSError where the system or the file system has no locks."""
    if sys.platform == "win32":
        raise OSError(errno.ENOTSUP, "no flock")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _remove_stale(place: Path) -> None:
    """Tidies up after killed exports of `place`; those that still run, here or in another process, are left alone."""
    pattern = re.compile(rf"(\.{re.escape(place.name)}\.tmp-[0-9]+-[0-9a-f]{{8}})(\.lock|\.old)?")
    found: set[str] = set()
    with suppress(OSError):
        found = {match[1] for path in place.parent.iterdir() if (match := pattern.fullmatch(path.name))}
    for name in sorted(found):
        temp = place.with_name(name)
        with suppress(OSError):
            lock = os.open(_beside(temp, ".lock"), os.O_RDWR | os.O_CREAT, 0o666)
            try:
                if _take(lock):
                    _tidy(temp, place)
            finally:
                os.close(lock)


def _tidy(temp: Path, place: Path) -> None:
    """Removes what lies under `temp`'s names, the lock last; an old bundle that nothing has replaced is put back."""
    old = _beside(temp, ".old")
    if old.is_dir() and not os.path.lexists(place):
        old.rename(place)
    shutil.rmtree(old, ignore_errors=True)
    shutil.rmtree(temp, ignore_errors=True)
    with suppress(OSError):  # the next export tries again
        _beside(temp, ".lock").unlink()


def _put_in_place(temp: Path, place: Path, *, overwrite: bool) -> None:
    """Renames `temp` to `place`. Afterwards an overwritten bundle lies under one of `temp`'s names."""
    if overwrite and os.path.lexists(place):
        if _exchange(temp, place):
            return
        place.rename(_beside(temp, ".old"))
    temp.rename(place)


def _exchange(one: Path, other: Path) -> bool:
    """Swaps two folders in one step; False where this system or this file system does not offer it."""
    if sys.platform != "linux":
        return False
    renameat2 = getattr(ctypes.CDLL(None), "renameat2", None)
    if renameat2 is None:
        return False
    return bool(renameat2(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE) == 0)


def _beside(temp: Path, suffix: str) -> Path:
    return temp.with_name(temp.name + suffix)


def _sync(path: Path) -> None:
    """Flushes a file or a folder to disk."""
    if os.name == "nt" and path.is_dir():
        return
    descriptor = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
