"""Where a checkpoint comes from: a folder that is there, or a model of the Hugging Face hub."""

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from raskrank.checkpoint import CONFIGURATION, Checkpoint, Configuration, read_checkpoint, read_configuration, registry
from raskrank.checkpoint.conversion import Origin
from raskrank.checkpoint.families import OF_ARCHITECTURE
from raskrank.checkpoint.files import read_json
from raskrank.checkpoint.modules import has_head, module_folders
from raskrank.checkpoint.suggestion import SUGGESTION
from raskrank.checkpoint.tokenizer_options import has_tokenizer
from raskrank.errors import CheckpointError, NotACrossEncoder
from raskrank.extras import need_exporter
from raskrank.license import restricts_use
from raskrank.quoting import quoted
from raskrank.settings import HUB_ID, folder_hint

# What the rest needs, once the configuration is that of a cross-encoder. No pickles, no code, no other formats.
TOKENIZER_FILES = ("tokenizer.json", "special_tokens_map.json", "added_tokens.json")
WEIGHTS_FILES = ("*.safetensors", "*.safetensors.index.json")
# The hub's patterns match across folders: onnx/config.json would come along.
HUB_FILES_LEFT = ("*/*",)

_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True, kw_only=True)
class ResolvedSource:
    """A checkpoint's folder on this machine, and where it is from."""

    folder: Path
    name: str  # as the user wrote it
    revision: str | None  # the commit of a hub model, 40 hexadecimal digits; None for a folder
    known: registry.KnownModel | None = None  # what is known of a hub model
    asked_revision: str | None = None  # as the user wrote it

    @property
    def export_length(self) -> int | None:
        """Tokens that an export allows without being asked; None for all that the checkpoint allows."""
        return None if self.known is None else self.known.export_length


def resolve(
    model: str,
    *,
    revision: str | None = None,
    accepted_license: str | None = None,
    relevant_label: str | int | None = None,
) -> ResolvedSource:
    """The hub model "owner/name", downloaded into the hub's own cache, or else the folder that `model` names.

    What looks like a hub model is one, whatever folders there are: a folder of that form is written "./owner/name".

    `revision` is a branch, tag or commit of a hub model, its main branch by default. With HF_HUB_OFFLINE=1 only the
    cache is read. Raises CheckpointError when there is no such folder or model, it may not be read, or the hub is away; and,
    before the hub is asked for weights, as `read` does for what a model's configuration or card says, or where a known model is
    not what the registry says.
    """
    there = _path_kind(model)
    if there == "folder":
        if revision is not None:
            raise CheckpointError(f"{model} is a folder, which has no revision {quoted(revision)}. Leave the revision out.")
        return ResolvedSource(folder=Path(model), name=model, revision=None)
    if there == "file":
        raise CheckpointError(f"{model} is not a folder. Give the folder that holds the model's config.json.")
    if not HUB_ID.fullmatch(model):
        raise CheckpointError(f"There is no folder {quoted(model)}. Give a checkpoint's folder, or a hub model as owner/name.")
    if refused := registry.refused(model):
        kind = CheckpointError if refused.exported else NotACrossEncoder
        raise kind(f"{model} is {refused.reason}. Instead: raskrank export {refused.instead}. {SUGGESTION}")
    known = registry.known(model)
    if known is not None:
        _check_license(model, known.license, accepted_license)
    folder = _download(model, revision, CONFIGURATION)
    # The hub's cache keeps each commit in a folder of its name.
    commit = folder.name if _COMMIT.fullmatch(folder.name) else None
    if modules := _modules(folder):
        _download(model, revision, tuple(f"{name}/config.json" for name in modules), commit, left=())
    configuration = read_configuration(folder, relevant_label)
    _check_license(model, configuration.license, accepted_license)
    source = ResolvedSource(folder=folder, name=model, revision=commit, known=known, asked_revision=revision)
    if known is not None:
        _check_facts(source, known, configuration)
    family = OF_ARCHITECTURE[configuration.architecture]
    _download(model, revision, TOKENIZER_FILES, commit)
    if family.vocabulary and not has_tokenizer(folder, family):
        _download(model, revision, family.vocabulary, commit)
    if has_tokenizer(folder, family):  # otherwise `read` says so, without the weights
        _download(model, revision, WEIGHTS_FILES, commit)
        if modules:
            _download(model, revision, tuple(f"{name}/model.safetensors" for name in modules), commit, left=())
    return source


def _modules(folder: Path) -> list[str]:
    """Folders beside the encoder that its head lies in, where it lies in modules of sentence-transformers."""
    return module_folders(folder) if has_head(folder, read_json(folder / "config_sentence_transformers.json")) else []


def read(source: ResolvedSource, *, accepted_license: str | None = None, relevant_label: str | int | None = None) -> Checkpoint:
    """The checkpoint, with license and languages from the registry where its folder states none.

    Raises as `read_checkpoint` does, and CheckpointError if the license restricts use and is not accepted.
    """
    checkpoint = read_checkpoint(source.folder, Origin(source.name, source.asked_revision), relevant_label)
    known = source.known or registry.of_layout(checkpoint.layout)
    if known is not None:
        checkpoint = replace(
            checkpoint,
            license=checkpoint.license or known.license,
            languages=checkpoint.languages or known.languages,
        )
    _check_license(source.name, checkpoint.license, accepted_license)
    return checkpoint


def _check_facts(source: ResolvedSource, known: registry.KnownModel, configuration: Configuration) -> None:
    """An error and no warning: with another activation or length come other scores, which look as good as the right ones."""
    for fact in ("activation", "max_length"):
        expected, found = getattr(known, fact), getattr(configuration, fact)
        if expected is not None and found != expected:
            raise CheckpointError(
                f"{source.name}: the {fact} of this checkpoint is {quoted(found)}, that of the published model {expected!r}. "
                f"To take it as it is, export its folder: {source.folder}"
            )


def _check_license(model: str, license: str | None, accepted: str | None) -> None:
    if license is not None and restricts_use(license) and str(accepted).lower() != license.lower():
        raise CheckpointError(
            f"{model} has the license {license}, which does not allow commercial use. If you may use it, say so with "
            f"accept_license={license!r} or --accept-license {license}."
        )


def _path_kind(model: str) -> Literal["folder", "file", "nothing"]:
    if HUB_ID.fullmatch(model):
        return "nothing"
    path = Path(model)
    try:
        if not model or not path.exists():
            return "nothing"
        return "folder" if path.is_dir() else "file"
    except OSError:  # a name too long for a path, or a parent that may not be read
        return "nothing"


def _download(
    model: str,
    revision: str | None,
    files: tuple[str, ...],
    commit: str | None = None,
    *,
    left: tuple[str, ...] = HUB_FILES_LEFT,
) -> Path:
    """The folder in the hub's cache, with those of `files` that the model has, without those of `left`. commit: what the
    revision was found to be.
    """
    need_exporter("downloading from the hub", "huggingface_hub")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HFValidationError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    asked = model if revision is None else f"{model} at {quoted(revision)}"
    try:
        return Path(snapshot_download(model, revision=commit or revision, allow_patterns=[*files], ignore_patterns=[*left]))
    except GatedRepoError as error:
        raise CheckpointError(
            f"{asked} is gated: accept its terms on the hub, then log in with `hf auth login` or set HF_TOKEN."
        ) from error
    except RepositoryNotFoundError as error:
        raise CheckpointError(
            f"There is no model {quoted(model)} on the hub (or it is private: log in with `hf auth login`){folder_hint(model)}."
        ) from error
    except RevisionNotFoundError as error:
        raise CheckpointError(
            f"{model} has no revision {quoted(revision)} on the hub. Give a branch, a tag or a commit."
        ) from error
    except HFValidationError as error:
        raise CheckpointError(f"The hub allows no such name as {quoted(model)}{folder_hint(model)}.") from error
    except LocalEntryNotFoundError as error:
        if isinstance(error.__cause__, OfflineModeIsEnabled):
            reason = "HF_HUB_OFFLINE is set and the cache does not hold it. Unset it"
        else:
            reason = f"the hub cannot be reached ({type(error.__cause__ or error).__name__}). Try again"
        raise CheckpointError(f"{asked} was not downloaded: {reason}, or give a local folder{folder_hint(model)}.") from error
    except (OSError, RuntimeError) as error:
        raise CheckpointError(
            f"{asked} was not downloaded: {type(error).__name__}: {error}. Try again, or give a local folder"
            f"{folder_hint(model)}."
        ) from error
