"""What every adapter takes: a bundle by name, as `Reranker.load` takes it, or what is loaded already."""

import os

from raskrank import Cascade, InputError, Reranker
from raskrank.settings import EMBEDDED

Loaded = Reranker | Cascade
Bundle = str | os.PathLike[str] | Loaded | None


def loaded(bundle: Bundle) -> Loaded:
    """What ranks: `bundle` itself if it is loaded already. Raises as `Reranker.load` does."""
    return bundle if isinstance(bundle, Loaded) else Reranker.load(bundle)


def reranker(bundle: Bundle) -> Reranker:
    """What scores pairs. Raises InputError for a Cascade, and as `Reranker.load` does."""
    found = loaded(bundle)
    if isinstance(found, Cascade):
        raise InputError("bundle: a Cascade ranks documents and scores no pairs; pass a Reranker or the name of a bundle")
    return found


def title(ranker: Loaded) -> str:
    """The name of the model, or of each model in order, for people to read."""
    infos = ranker.info() if isinstance(ranker, Cascade) else (ranker.info(),)
    return ", ".join(info.name for info in infos)


def name_of(bundle: Bundle) -> str | None:
    """What loads the same bundle where a framework stores its parts as JSON or YAML; None for the embedded model.

    Of a Reranker that is the bundle's folder, and not how it was loaded: threads, backend, limits.

    Raises InputError for what no name leads to: a Cascade, or a Reranker that runs a checkpoint in PyTorch.
    """
    if isinstance(bundle, Cascade):
        raise InputError("bundle: a Cascade cannot be stored; pass the name of a bundle")
    if not isinstance(bundle, Reranker):
        return None if bundle is None else os.fspath(bundle)
    info = bundle.info()
    if info.bundle is None:
        raise InputError("bundle: a Reranker that runs a checkpoint in PyTorch cannot be stored; pass the name of a bundle")
    return None if info.model_from == EMBEDDED else info.bundle
