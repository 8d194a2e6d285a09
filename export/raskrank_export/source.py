"""Where a checkpoint comes from: a folder that is there, or a model of the Hugging Face hub."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from raskrank.errors import ExportError

# What read_checkpoint and the tokenizer need. No pickles, no code, no other formats.
HUB_FILES = (
    "config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "modules.json",
    "config_sentence_transformers.json",
    "README.md",
    "*.safetensors",
    "*.safetensors.index.json",
)
# The hub's patterns match across folders: onnx/config.json would come along.
HUB_FILES_LEFT = ("*/*",)

_HUB_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*")
_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True, kw_only=True)
class ResolvedSource:
    """A checkpoint's folder on this machine, and where it is from."""

    folder: Path
    name: str  # as the user wrote it
    revision: str | None  # the commit of a hub model, 40 hexadecimal digits; None for a folder


def resolve(model: str, *, revision: str | None = None) -> ResolvedSource:
    """The folder `model` names, or else the hub model "owner/name", downloaded into the hub's own cache.

    `revision` is a branch, tag or commit of a hub model, its main branch by default. With HF_HUB_OFFLINE=1 only the
    cache is read. Raises ExportError when there is no such folder or model, it may not be read, or the hub is away.
    """
    there = _path_kind(model)
    if there == "folder":
        if revision is not None:
            raise ExportError(f"{model} is a folder, which has no revision {revision!r}. Leave the revision out.")
        return ResolvedSource(folder=Path(model), name=model, revision=None)
    if there == "file":
        raise ExportError(f"{model} is not a folder. Give the folder that holds the model's config.json.")
    if not _HUB_ID.fullmatch(model):
        raise ExportError(f"There is no folder {model!r}. Give a checkpoint's folder, or a hub model as owner/name.")
    folder = _download(model, revision)
    # The hub's cache keeps each commit in a folder of its name.
    return ResolvedSource(folder=folder, name=model, revision=folder.name if _COMMIT.fullmatch(folder.name) else None)


def _path_kind(model: str) -> Literal["folder", "file", "nothing"]:
    path = Path(model)
    try:
        if not model or not path.exists():
            return "nothing"
        return "folder" if path.is_dir() else "file"
    except OSError:  # a name too long for a path, or a parent that may not be read
        return "nothing"


def _download(model: str, revision: str | None) -> Path:
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import (
            GatedRepoError,
            HFValidationError,
            LocalEntryNotFoundError,
            OfflineModeIsEnabled,
            RepositoryNotFoundError,
            RevisionNotFoundError,
        )
    except ImportError as error:
        raise ExportError(
            f"There is no folder {model!r}, and huggingface_hub, which would download it, is not installed: "
            "pip install 'raskrank[export]'"
        ) from error
    asked = model if revision is None else f"{model} at {revision!r}"
    try:
        return Path(snapshot_download(model, revision=revision, allow_patterns=[*HUB_FILES], ignore_patterns=[*HUB_FILES_LEFT]))
    except GatedRepoError as error:
        raise ExportError(
            f"{asked} is gated: accept its terms on the hub, then log in with `hf auth login` or set HF_TOKEN."
        ) from error
    except RepositoryNotFoundError as error:
        raise ExportError(
            f"There is neither a folder {model!r} here nor a model of that name on the hub (or it is private: "
            "log in with `hf auth login`)."
        ) from error
    except RevisionNotFoundError as error:
        raise ExportError(f"{model} has no revision {revision!r} on the hub. Give a branch, a tag or a commit.") from error
    except HFValidationError as error:
        raise ExportError(f"There is no folder {model!r}, and the hub allows no such name.") from error
    except LocalEntryNotFoundError as error:
        if isinstance(error.__cause__, OfflineModeIsEnabled):
            reason = "HF_HUB_OFFLINE is set and the cache does not hold it. Unset it"
        else:
            reason = f"the hub cannot be reached ({type(error.__cause__ or error).__name__}). Try again"
        raise ExportError(f"{asked} was not downloaded: {reason}, or give a local folder.") from error
    except (OSError, RuntimeError) as error:
        raise ExportError(
            f"{asked} was not downloaded: {type(error).__name__}: {error}. Try again, or give a local folder."
        ) from error
