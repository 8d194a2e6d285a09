"""Which bundle is loaded: one value, named by an argument, the environment or a settings file; else the embedded model.

The value is the id of a hub model, owner/name, or a bundle's folder. What looks like an id is one, whatever folders there are:
a folder of that form is written ./owner/name, or given as a Path. The cache folder holds the bundles of hub models:

    owner--name--int8      the one that an id means
    owner--name--fp32      what an id means where there is no int8

all in lower case: an id leads to the same model in any letter case, as on the hub.
"""

import importlib.resources
import os
import re
import shlex
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from raskrank.bundle import no_bundle
from raskrank.checkpoint.registry import canonical
from raskrank.errors import InputError, MissingFile
from raskrank.manifest import Precision

ENVIRONMENT = "RASKRANK_MODEL"
CACHE = "RASKRANK_CACHE"
ARGUMENT, EMBEDDED = "argument", "embedded model"
HUB_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*")
PRECISIONS: tuple[Precision, ...] = ("int8", "fp32")


@dataclass(frozen=True, kw_only=True)
class Choice(os.PathLike[str]):
    """A bundle, and what named it. Means the same in any folder and environment, so that it can be sent to other processes."""

    folder: Path | None  # absolute; None is the embedded model, wherever this package is installed
    named_by: str

    @property
    def path(self) -> Path:
        return Path(str(importlib.resources.files("raskrank") / "nano")) if self.folder is None else self.folder

    def __fspath__(self) -> str:
        return str(self.path)


def choose(bundle: str | os.PathLike[str] | None) -> Choice:
    """The bundle to load. The first of these that names one decides, and what comes after it is not read:

    1. `bundle`; a path that is no str is always a folder, and a Choice stays as it is
    2. the environment variable RASKRANK_MODEL, unless empty
    3. the embedded model

    Relative paths start at the current folder. Raises MissingFile where the value names no folder and no bundle in the cache,
    and InputError where it cannot be a bundle's path.
    """
    return _named(bundle) or Choice(folder=None, named_by=EMBEDDED)


def choose_for_command(bundle: str | os.PathLike[str] | None, tell: Callable[[str], object]) -> Choice:
    """As `choose`, and before the embedded model the settings files around the current folder (`settings_files.named_model`).

    Relative paths in such a file start at its folder. `tell` gets a line for the user about a model that a file chose, and
    about files that may not choose one. Raises InputError also for a settings file that cannot be used.
    """
    if choice := _named(bundle):
        return choice
    from raskrank.settings_files import named_model  # the library reads none

    if named := named_model(absolute(Path()), tell):
        choice = _find(named.model, named.file.parent, str(named.file))
        tell(f"model {choice.path}, named by {named.file}")
        return choice
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
    """The folder in the cache for a hub model's bundle. Raises InputError for what can only be a local folder."""
    if not HUB_ID.fullmatch(model):
        raise InputError(
            "OUTPUT is missing, the folder to write to; only bundles of hub models (owner/name) have a place of their own: "
            f"raskrank export {shlex.quote(model)} OUTPUT"
        )
    return _cached(model, precision)


def value_for(model: str, output: Path) -> str:
    """What to set as the model to get the bundle at `output`, an export of `model`: the hub id where it leads there."""
    leads_to = next(filter(_is_there, _cached_all(model)), None) if HUB_ID.fullmatch(model) else None
    return model if leads_to == output else as_folder(output)


def as_folder(path: str | os.PathLike[str]) -> str:
    """`path` as text that names a folder wherever a model is named, and never a hub model."""
    text = os.fspath(path)
    return f"./{text}" if HUB_ID.fullmatch(text) or text.startswith("~") else text


def folder_hint(hub_id: str, base: Path = Path()) -> str:
    """What to tell whoever meant the folder below `base` that has the form of an id; empty where there is none."""
    with suppress(OSError):  # a name too long, a parent that may not be searched
        if (base / hub_id).is_dir():
            return f"; for the folder of that name write ./{hub_id}"
    return ""


def absolute(path: Path) -> Path:
    """`path` from the root, its links left as they are."""
    try:
        return path.absolute()
    except OSError:  # the current folder was removed; there is nothing to find in it
        return path


def _named(bundle: str | os.PathLike[str] | None) -> Choice | None:
    if isinstance(bundle, Choice):
        return bundle
    if bundle is not None:
        return _find(bundle, Path(), ARGUMENT)
    if named := os.environ.get(ENVIRONMENT):
        return _find(named, Path(), f"environment variable {ENVIRONMENT}")
    return None


def _find(value: str | os.PathLike[str], base: Path, named_by: str) -> Choice:
    by = "" if named_by == ARGUMENT else f" (named by {named_by})"
    if isinstance(value, str) and HUB_ID.fullmatch(value):
        if place := next(filter(_is_there, _cached_all(value)), None):
            return Choice(folder=_utf8(absolute(place)), named_by=named_by)
        raise MissingFile(
            f"no bundle of the hub model {value} in {cache_folder()}{by}; make one with: raskrank export {value}"
            f"{folder_hint(value, base)}"
        )
    folder = base / _expanded(os.fspath(value))
    if not _is_there(folder):
        raise no_bundle(folder, by)
    return Choice(folder=_utf8(absolute(folder)), named_by=named_by)


def _cached_all(hub_id: str) -> list[Path]:
    """Where the bundle of a hub model may lie; the first that is there is meant."""
    return [_cached(hub_id, precision) for precision in PRECISIONS]


def _cached(hub_id: str, precision: Precision) -> Path:
    # The hub allows no "--" in a name, so that no two models share a folder.
    return cache_folder() / f"{canonical(hub_id).replace('/', '--').lower()}--{precision}"


def _utf8(folder: Path) -> Path:
    try:
        str(folder).encode()
    except UnicodeEncodeError:
        raise InputError(f"{str(folder)!r} cannot be a bundle's path: onnxruntime takes UTF-8 alone; rename it") from None
    return folder


def _expanded(path: str) -> Path:
    if not path.startswith("~"):  # "./~" is a folder
        return Path(path)
    try:
        return Path(path).expanduser()
    except (RuntimeError, ValueError):  # no home, no such user, or no path at all
        return Path(path)


def _is_there(folder: Path) -> bool:
    try:
        return folder.is_dir()
    except OSError:  # a name too long, a parent that may not be searched: whoever reads it says so
        return True


def bundle_path(bundle: str | os.PathLike[str] | None) -> Path:
    """The folder of the bundle that `Reranker.load(bundle)` loads. Raises as `choose` does."""
    return choose(bundle).path
