"""Files that name a model for the command line: raskrank.toml, and [tool.raskrank] of pyproject.toml.

A library that is imported reads none of them: whoever's folder a program happens to run in does not choose its model.
"""

import os
import stat
import tomllib
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from raskrank.errors import InputError

SETTINGS, PYPROJECT = "raskrank.toml", "pyproject.toml"
# The largest published pyproject.toml are some 100 kB. TOML of this size is parsed in a second, of a hundred times more not.
MAX_SETTINGS_BYTES = 1 << 20
_REPOSITORY = ".git"  # a folder, or a file in a worktree


class Named(NamedTuple):
    """What a settings file says: the model, and the file."""

    model: str
    file: Path


def named_model(start: Path, tell: Callable[[str], object]) -> Named | None:
    """What the nearest settings file that names a model says, from the folder `start` upwards.

    The search ends with the first folder that holds .git, with the home folder, and before another file system. Files of other
    users than this one and root are passed over, and `tell` is told. So is a pyproject.toml that does not have the word
    raskrank, broken or not. Raises InputError for a file that cannot be used.
    """
    for file in _files(start):
        if (owner := _foreign_owner(file)) is not None:
            tell(f"warning: {file} is passed over: it belongs to user {owner}, and counts only if it is yours or root's")
        elif model := _read(file):
            return Named(model, file)
    return None


def _files(start: Path) -> Iterator[Path]:
    home, device = None, _device(start)
    with suppress(RuntimeError):  # this user has none
        home = Path("~").expanduser().resolve()
    for folder in (start, *start.parents):
        if _device(folder) != device:
            return
        yield from (folder / name for name in (SETTINGS, PYPROJECT) if _is_file(folder / name))
        if folder == home or os.path.lexists(folder / _REPOSITORY):
            return


def _device(folder: Path) -> int | None:
    try:
        return folder.stat().st_dev
    except OSError:  # removed, or not to be searched
        return None


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # in a folder that may not be searched
        return False


def _foreign_owner(file: Path) -> int | None:
    """The user that the file, or the link that leads to it, belongs to, if that is neither this one nor root."""
    if os.name == "nt":
        return None
    owners = (status.st_uid for status in (file.lstat(), file.stat()))
    return next((owner for owner in owners if owner not in (0, os.geteuid())), None)


def _read(file: Path) -> str | None:
    """The model that a settings file names, if it does."""
    try:
        content = _content(file)
        if file.name == PYPROJECT and (len(content) > MAX_SETTINGS_BYTES or b"raskrank" not in content):
            return None
        if len(content) > MAX_SETTINGS_BYTES:
            raise ValueError(f"it has more than {MAX_SETTINGS_BYTES:,} bytes")
        data = tomllib.loads(content.decode("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        if file.name == PYPROJECT and isinstance(error, OSError):
            return None  # another program's file, as far as anyone can tell
        reason = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise InputError(
            f"{file} cannot be read for the model to load: {reason}; mend it, or name the model with --bundle or RASKRANK_MODEL"
        ) from None
    table, where = data, f"{file}:"
    if file.name == PYPROJECT:
        table, where = _tool_table(data, file), f"{file}: [tool.raskrank]"
    if unknown := sorted(set(table) - {"model"}):
        raise InputError(f"{where} unknown key {unknown[0][:100]!r}; the only one is 'model'")
    model = table.get("model")
    if model is not None and not isinstance(model, str):
        raise InputError(f"{where} model: expected a string, a bundle's folder or owner/name, got {type(model).__name__}")
    if model == "":
        raise InputError(f"{where} model: expected a bundle's folder or owner/name, got an empty string; remove the line")
    return model


def _content(file: Path) -> bytes:
    """At most a byte more than is allowed. Without blocking: a pipe put there meanwhile would wait for its other end."""
    with os.fdopen(os.open(file, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0)), "rb") as opened:
        if not stat.S_ISREG(os.fstat(opened.fileno()).st_mode):
            raise OSError("it is no file")
        return opened.read(MAX_SETTINGS_BYTES + 1)


def _tool_table(data: dict[str, Any], file: Path) -> dict[str, Any]:
    tools = data.get("tool")
    table = tools.get("raskrank", {}) if isinstance(tools, dict) else {}
    if not isinstance(table, dict):
        raise InputError(f"{file}: tool.raskrank: expected a table with the key 'model', got {type(table).__name__}")
    return table
