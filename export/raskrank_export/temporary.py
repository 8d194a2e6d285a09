"""Temporary folders beside a target, and what killed exports leave of them.

Beside the target `NAME` lie, while an export runs:

    .NAME.tmp-PID-HEX        what the caller fills; renamed to NAME at the end
    .NAME.tmp-PID-HEX.lock   empty, and flock-held by the export; made before the folder and removed after it, so that a
                             folder whose lock can be taken is stale
    .NAME.tmp-PID-HEX.old    the bundle to replace, for the moment between two renames where swapping is not offered

Others may write into the folder around NAME, too: what lies under such names is touched only if it is what an export of this
user leaves, and no link is followed.
"""

import errno
import os
import re
import secrets
import shutil
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

if sys.platform != "win32":
    import fcntl

# A new lock is lost only to another export that takes it for stale in the instant before it is held.
_CLAIM_ATTEMPTS = 100


@contextmanager
def claimed(place: Path) -> Iterator[Path]:
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
        lock = os.open(beside(temp, ".lock"), os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
        try:
            held = _take(lock)
        except OSError:
            held = True  # No locks here, so that no export can take this one for stale.
        if held and beside(temp, ".lock").exists():
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


def remove_stale(place: Path) -> None:
    """Tidies up after killed exports of `place`; those that still run, here or in another process, are left alone."""
    if sys.platform == "win32":
        return  # without locks nobody can tell which are stale
    pattern = re.compile(rf"(\.{re.escape(place.name)}\.tmp-[0-9]+-[0-9a-f]{{8}})\.lock")
    found: set[str] = set()
    with suppress(OSError):
        found = {match[1] for path in place.parent.iterdir() if (match := pattern.fullmatch(path.name))}
    for name in sorted(found):
        temp = place.with_name(name)
        with suppress(OSError):
            # Not blocking: a pipe would wait for its other end.
            lock = os.open(beside(temp, ".lock"), os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK)
            try:
                if _is_stale(temp, lock):
                    _tidy(temp, place)
            finally:
                os.close(lock)


def _is_stale(temp: Path, lock: int) -> bool:
    """Whether no export holds `lock`, now held here, and under `temp`'s names lies only what one of this user leaves."""
    status = os.fstat(lock)
    return (
        stat.S_ISREG(status.st_mode)
        and status.st_uid == os.geteuid()
        and not status.st_size
        and _take(lock)
        and all(_is_own_folder(path) for path in (temp, beside(temp, ".old")) if os.path.lexists(path))
    )


def _is_own_folder(path: Path) -> bool:
    status = path.lstat()
    return stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid()


def _tidy(temp: Path, place: Path) -> None:
    """Removes what lies under `temp`'s names, the lock last; an old bundle that nothing has replaced is put back."""
    old = beside(temp, ".old")
    if not old.is_symlink() and old.is_dir() and not os.path.lexists(place):
        old.rename(place)
    for path in (old, temp):
        shutil.rmtree(path, ignore_errors=True)  # follows no link, nor one that is put there meanwhile
    if not (os.path.lexists(old) or os.path.lexists(temp)):
        with suppress(OSError):  # the next export tries again, as long as there is a lock
            beside(temp, ".lock").unlink()


def beside(temp: Path, suffix: str) -> Path:
    """A path of the same name and a suffix."""
    return temp.with_name(temp.name + suffix)
