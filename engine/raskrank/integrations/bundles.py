"""What every adapter takes: a bundle by name, as `Reranker.load` takes it, or a Reranker that is loaded already."""

import os

from raskrank import InputError, Reranker
from raskrank.settings import EMBEDDED

Bundle = str | os.PathLike[str] | Reranker | None


def loaded(bundle: Bundle) -> Reranker:
    """`bundle` itself if it is loaded already. Raises as `Reranker.load` does."""
    return bundle if isinstance(bundle, Reranker) else Reranker.load(bundle)


def name_of(bundle: Bundle) -> str | None:
    """What loads the same bundle where a framework stores its parts as JSON or YAML; None for the embedded model.

    Of a Reranker that is the bundle's folder, and not how it was loaded: threads, backend, limits.

    Raises InputError for a Reranker that runs a checkpoint in PyTorch, since no name leads to it.
    """
    if not isinstance(bundle, Reranker):
        return None if bundle is None else os.fspath(bundle)
    info = bundle.info()
    if info.bundle is None:
        raise InputError("bundle: a Reranker that runs a checkpoint in PyTorch cannot be stored; pass the name of a bundle")
    return None if info.model_from == EMBEDDED else info.bundle
