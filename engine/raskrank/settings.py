"""Which bundle is loaded: one value, named by an argument, the environment or a settings file; else the embedded model.

The value is a bundle's folder, or the id of a hub model, "owner/name", whose bundle an export left in the cache folder:

    owner--name--int8      the one that an id means
    owner--name--fp32      what an id means where there is no int8
"""

import importlib.resources
import os
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from raskrank.errors import InputError, MissingFile
from raskrank.manifest import Precision

ENVIRONMENT = "RASKRANK_MODEL"
CACHE = "RASKRANK_CACHE"
SETTINGS, PYPROJECT = "raskrank.toml", "pyproject.toml"
ARGUMENT, EMBEDDED = "argument", "embedded model"
HUB_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*")
PRECISIONS: tuple[Precision, ...] = ("int8", "fp32")


@dataclass(frozen=True, kw_only=True)
class Choice:
    """A bundle, and what named it. Means the same in any folder and environment, so that it can be sent to other processes."""

    folder: Path | None  # absolute; None is the embedded model, wherever this package is installed
    named_by: str

    @property
    def path(self) -> Path:
        return Path(str(importlib.resources.files("raskrank") / "nano")) if self.folder is None else self.folder


def choose(bundle: str | Choice | None) -> Choice:
    """The bundle to load. The first of these that names one decides, and what comes after it is not read:

    1. `bundle`; a Choice stays as it is
    2. the environment variable RASKRANK_MODEL, unless empty
    3. `model` in raskrank.toml, or else in [tool.raskrank] of pyproject.toml: of the current folder, or of the nearest above
       it where one of them has it
    4. the embedded model

    Relative paths start at the current folder, in a settings file at the file's own. Raises MissingFile where the value
    names no folder and no bundle in the cache, and InputError for a settings file that cannot be used.
    """
    if isinstance(bundle, Choice):
        return bundle
    if bundle is not None:
        return _find(bundle, Path(), ARGUMENT)
    if named := os.environ.get(ENVIRONMENT):
        return _find(named, Path(), f"environment variable {ENVIRONMENT}")
    for file in _settings_files():
        if model := _read_model(file):
            return _find(model, file.parent, str(file))
    return Choice(folder=None, named_by=EMBEDDED)


def cache_folder() -> Path:
    """Where bundles of hub models lie: RASKRANK_CACHE, else `raskrank` in the platform's folder for caches."""
    if own := os.environ.get(CACHE):
        return _expanded(own)
    if sys.platform == "win32":
        caches = os.environ.get("LOCALAPPDATA") or "~/AppData/Local"
    elif sys.platform == "darwin":
        caches = "~/Library/Caches"
    else:
        caches = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return _expanded(caches) / "raskrank"


def default_output(model: str, precision: Precision) -> Path:
    """The folder in the cache for a hub model's bundle. Raises InputError for what is, or could only be, a local folder."""
    if not HUB_ID.fullmatch(model) or _is_there(Path(model)):
        raise InputError(
            "OUTPUT is missing, the folder to write to; only bundles of hub models (owner/name) have a place of their own: "
            f"raskrank export {model} OUTPUT"
        )
    return _cached(model, precision)


def value_for(model: str, output: Path) -> str:
    """What to set as the model to get the bundle at `output`, an export of `model`: the hub id where it leads there."""
    return model if next(filter(_is_there, _places(model, Path())), None) == output else str(output)


def absolute(path: Path) -> Path:
    """`path` from the root, its links left as they are."""
    try:
        return path.absolute()
    except OSError:  # the current folder was removed; there is nothing to find in it
        return path


def _find(value: str, base: Path, named_by: str) -> Choice:
    folder, *cached = places = _places(value, base)
    if place := next(filter(_is_there, places), None):
        return Choice(folder=absolute(place), named_by=named_by)
    by = "" if named_by == ARGUMENT else f" (named by {named_by})"
    command = f"raskrank export MODEL {folder}"
    if not cached:
        raise MissingFile(f"no bundle at {folder}{by}; make one with: {command}")
    raise MissingFile(
        f"no bundle at {folder}{by}, and none of a hub model {value} in {cache_folder()}; "
        f"make one with: raskrank export {value}, which puts it into that cache, or: {command}"
    )


def _places(value: str, base: Path) -> list[Path]:
    """Where the bundle may lie that `value` names; the first that is there is meant."""
    cached = [_cached(value, precision) for precision in PRECISIONS] if HUB_ID.fullmatch(value) else []
    return [base / _expanded(value), *cached]


def _cached(hub_id: str, precision: Precision) -> Path:
    # The hub allows no "--" in a name, so that no two models share a folder.
    return cache_folder() / f"{hub_id.replace('/', '--')}--{precision}"


def _settings_files() -> Iterator[Path]:
    here = absolute(Path())
    for folder in (here, *here.parents):
        yield from (folder / name for name in (SETTINGS, PYPROJECT) if _is_file(folder / name))


def _read_model(file: Path) -> str | None:
    """The model that a settings file names, if it does."""
    import tomllib  # most processes have no file to read

    try:
        data = tomllib.loads(file.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise InputError(
            f"{file} cannot be read for the model to load: {reason}; mend it, or name the model with {ENVIRONMENT}"
        ) from None
    table, where = data, f"{file}:"
    if file.name == PYPROJECT:
        table, where = _tool_table(data, file), f"{file}: [tool.raskrank]"
    if unknown := sorted(set(table) - {"model"}):
        raise InputError(f"{where} unknown key {unknown[0]!r}; the only one is 'model'")
    model = table.get("model")
    if model is not None and not isinstance(model, str):
        raise InputError(f"{where} model: expected a string, a bundle's folder or owner/name, got {type(model).__name__}")
    if model == "":
        raise InputError(f"{where} model: expected a bundle's folder or owner/name, got an empty string; remove the line")
    return model


def _tool_table(data: dict[str, Any], file: Path) -> dict[str, Any]:
    tools = data.get("tool")
    table = tools.get("raskrank", {}) if isinstance(tools, dict) else {}
    if not isinstance(table, dict):
        raise InputError(f"{file}: tool.raskrank: expected a table with the key 'model', got {type(table).__name__}")
    return table


def _expanded(path: str) -> Path:
    try:
        return Path(path).expanduser()
    except (RuntimeError, ValueError):  # no home, no such user, or no path at all
        return Path(path)


def _is_there(folder: Path) -> bool:
    try:
        return folder.is_dir()
    except OSError:  # a name too long, a parent that may not be searched: whoever reads it says so
        return True


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # in a folder that may not be searched
        return False
