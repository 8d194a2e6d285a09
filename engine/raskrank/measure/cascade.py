"""Models in a row, measured beside the last of them alone."""

from collections.abc import Sequence
from contextlib import suppress

from raskrank.cascade import Cascade
from raskrank.errors import NonFiniteScore
from raskrank.measure.contender import Contender, Ranking
from raskrank.measure.cross_encoder import CrossEncoder


class CascadeContender:
    """A Contender of cross-encoders that are contenders themselves. Whoever loaded those closes them."""

    backend = runs = "cascade"
    reference: Contender | None = None
    license: str | None = None  # each of the models says its own

    def __init__(self, models: Sequence[CrossEncoder], keep: Sequence[int]) -> None:
        """As for `Cascade`."""
        self._models, self._keep = models, keep
        self._cascade = Cascade([model.reranker for model in models], keep)
        steps = [f"{model.name} → {number}" for model, number in zip(models[:-1], keep, strict=True)]
        self.name = " → ".join([*steps, models[-1].name])
        self.origin = ", ".join(model.origin for model in models)
        self.parameters = sum(model.parameters for model in models)
        self.disk_bytes: int | None = sum(model.disk_bytes or 0 for model in models)

    @property
    def alone(self) -> Contender:
        """The last model, for which the others prune."""
        return self._models[-1]

    def rank(self, query: str, documents: Sequence[str]) -> Ranking:
        """As `Cascade.rank` does, and behind its documents those that each model left out, in its order."""
        places, pruned, non_finite = list(range(len(documents))), list[int](), 0
        for model, keep in zip(self._models, [*self._keep, None], strict=True):
            if keep is not None and len(places) <= keep:
                continue
            order, broken = model.rank(query, [documents[place] for place in places])
            ranked, non_finite = [places[index] for index in order], non_finite + broken
            places, pruned = ranked[:keep], ranked[len(ranked) if keep is None else keep :] + pruned
        return Ranking((*places, *pruned), non_finite)

    def run(self, query: str, documents: Sequence[str]) -> None:
        with suppress(NonFiniteScore):
            self._cascade.rank(query, documents)

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """The last model's."""
        return self._models[-1].count_tokens(texts)

    def close(self) -> None:
        """There is nothing to free."""
