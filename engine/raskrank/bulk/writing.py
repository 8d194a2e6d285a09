"""Files that are whole or absent."""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from raskrank.errors import RaskrankError
from raskrank.quoting import shown


@contextmanager
def whole_file(place: Path) -> Iterator[BinaryIO]:
    """A new file, which is at `place` once the block has ended and it is on disk; nothing is left of it if the block raises.

    Folders on the way are made. Raises RaskrankError for what the system says against it.
    """
    temp = place.with_name(f".{place.name}.tmp-{secrets.token_hex(4)}")
    with writable(place):
        place.parent.mkdir(parents=True, exist_ok=True)
    try:
        with writable(place), temp.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        with writable(place):
            temp.replace(place)
            sync_folder(place.parent)
    except BaseException:
        with suppress(OSError):
            temp.unlink(missing_ok=True)
        raise


def remove_stale(folder: Path) -> None:
    """Removes what killed runs have left of files that they had not finished. Nobody else may be writing there."""
    for path in folder.rglob(".part-*.tmp-*"):
        with suppress(OSError):
            path.unlink()


@contextmanager
def writable(place: Path) -> Iterator[None]:
    """What the system says while a file is written, as RaskrankError."""
    try:
        yield
    except OSError as error:
        raise RaskrankError(f"{shown(place)}: cannot be written: {error.strerror or error}") from error


def sync_folder(folder: Path) -> None:
    """So that a rename or a new file in it survives a crash of the machine."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
