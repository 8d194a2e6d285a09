"""Published models that are known by name: what models.toml says of them."""

import functools
import importlib.resources
import tomllib
from dataclasses import dataclass
from typing import Any

from raskrank.activation import Activation
from raskrank.checkpoint.layouts import Layout

DEFAULT_MODEL = "BAAI/bge-reranker-base"


@dataclass(frozen=True, kw_only=True)
class Reference:
    """Logits published for the pairs of a query; `tolerance` is how far the model in fp32 may be from them."""

    source: str
    query: str
    documents: tuple[str, ...]
    logits: tuple[float, ...]  # one for each document
    tolerance: float


@dataclass(frozen=True, kw_only=True)
class KnownModel:
    """A model of the hub, and the facts that its repository states."""

    id: str  # on the hub, "owner/name"
    aliases: tuple[str, ...]  # other ids under which the hub has it
    license: str
    languages: tuple[str, ...]
    activation: Activation | None  # None where nobody has published it
    max_length: int | None  # tokens that it can read, special tokens included; None likewise
    export_length: int | None  # tokens that an export allows without being asked; None for all that it can read
    layout: Layout  # what its tensors are called
    note: str
    reference: tuple[Reference, ...]


@dataclass(frozen=True, kw_only=True)
class RefusedModel:
    """A model that is often asked for, and why it is not exported."""

    id: str
    reason: str  # what it is
    instead: str  # the id of a known model
    exported: bool  # it is that model, exported by others


def canonical(model_id: str) -> str:
    """The registry's own id for a known model's id, alias or another letter case of them; any other string as it is.

    The hub takes an id in any letter case and answers with its owner's. Which that is for a model that is not in the registry
    only the hub knows, so such an id stays as it was written.
    """
    return _ids().get(model_id.lower(), model_id)


def known(model_id: str) -> KnownModel | None:
    """The model of that hub id, alias or another letter case of them, if it is known."""
    return next((model for model in known_models() if model.id == canonical(model_id)), None)


def of_layout(layout: Layout) -> KnownModel | None:
    """The model that alone has a layout of its own: a copy of it is known by that, whatever its folder is called."""
    return next((model for model in known_models() if layout != "transformers" and model.layout == layout), None)


def refused(model_id: str) -> RefusedModel | None:
    """The model of that hub id in any letter case, if it is known to be another kind of model."""
    return next((model for model in refused_models() if model.id == canonical(model_id)), None)


@functools.cache
def _ids() -> dict[str, str]:
    """Every id and alias in lower case, and the id that it leads to."""
    names = {name.lower(): model.id for model in known_models() for name in (model.id, *model.aliases)}
    return names | {model.id.lower(): model.id for model in refused_models()}


@functools.cache
def known_models() -> tuple[KnownModel, ...]:
    """All of them, in the order of the file."""
    return tuple(
        KnownModel(
            id=entry["id"],
            aliases=tuple(entry.get("aliases", ())),
            license=entry["license"],
            languages=tuple(entry["languages"]),
            activation=entry.get("activation"),
            max_length=entry.get("max_length"),
            export_length=entry.get("export_length", entry.get("max_length")),
            layout=entry.get("layout", "transformers"),
            note=entry["note"],
            reference=tuple(map(_reference, entry.get("reference", ()))),
        )
        for entry in _registry()["models"]
    )


@functools.cache
def refused_models() -> tuple[RefusedModel, ...]:
    """All of them, in the order of the file."""
    return tuple(
        RefusedModel(id=entry["id"], reason=entry["reason"], instead=entry["instead"], exported=entry.get("exported", False))
        for entry in _registry()["refused"]
    )


def _reference(entry: dict[str, Any]) -> Reference:
    return Reference(
        source=entry["source"],
        query=entry["query"],
        documents=tuple(entry["documents"]),
        logits=tuple(entry["logits"]),
        tolerance=entry["tolerance"],
    )


def _registry() -> dict[str, Any]:
    return tomllib.loads((importlib.resources.files("raskrank.checkpoint") / "models.toml").read_text("utf-8"))
