"""A bi-encoder of sentence-transformers, as a baseline for cross-encoders. Imported only when one is asked for."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from raskrank.errors import InferenceError
from raskrank.extras import need
from raskrank.measure.contender import Contender, Ranking


class BiEncoder:
    """Ranks by the cosine of query and document. Each call encodes all of them, as if none had been seen before."""

    backend = runs = "bi-encoder"
    reference: Contender | None = None
    license: str | None = None  # sentence-transformers does not say

    def __init__(self, model: str) -> None:
        """model: a hub id or a folder. Raises MissingExtra, or InferenceError if sentence-transformers cannot load it."""
        need("--bi-encoder", "bi-encoder", "sentence_transformers")
        from sentence_transformers import SentenceTransformer

        try:
            self._model = SentenceTransformer(model, device="cpu", model_kwargs={"use_safetensors": True})
        except (OSError, ValueError, RuntimeError, ImportError) as error:
            reason = next(iter(str(error).splitlines()), type(error).__name__)
            raise InferenceError(f"sentence-transformers cannot load {model}: {reason}") from error
        self.origin, self.name = model, Path(model).name
        self.parameters = sum(parameter.numel() for parameter in self._model.parameters())
        self.disk_bytes: int | None = None
        if Path(model).is_dir():
            files = [*Path(model).rglob("*.safetensors"), *Path(model).rglob("tokenizer.json")]
            self.disk_bytes = sum(file.stat().st_size for file in files)

    def rank(self, query: str, documents: Sequence[str]) -> Ranking:
        vectors = self._model.encode([query, *documents], normalize_embeddings=True, show_progress_bar=False)
        scores = vectors[1:] @ vectors[0]
        finite = np.isfinite(scores)
        order = np.argsort(np.where(finite, -scores, np.inf), kind="stable")
        return Ranking(tuple(order.tolist()), int((~finite).sum()))

    def run(self, query: str, documents: Sequence[str]) -> None:
        self.rank(query, documents)

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        return [len(ids) for ids in self._model.tokenizer(list(texts), add_special_tokens=False, verbose=False)["input_ids"]]

    def close(self) -> None:
        del self._model
