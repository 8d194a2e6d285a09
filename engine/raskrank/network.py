"""What a backend of a bundle runs: graph and weights, with what has to be known of them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Self

from raskrank.bundle import Bundle
from raskrank.contents import Contents
from raskrank.manifest import MODEL, WEIGHTS, Encoder


@dataclass(frozen=True, kw_only=True)
class Network:
    """A graph and its weights, of a bundle or of what is to become one.

    graph: model.onnx's bytes. weights: model.onnx.data's. folder: named in errors. inputs: names of the graph's.
    hidden_size: width of a token's state; where it is 0 no run is spread over cores. vocab_size: rows of the words' embedding.
    groups: no operator of the graph lets one pair of a run change another's logit, by a single bit.
    encoder: as the manifest describes it; None where our own kernels do not run it.
    """

    graph: bytes
    weights: Contents
    folder: Path
    inputs: tuple[str, ...]
    hidden_size: int = 0
    vocab_size: int = 0
    groups: bool = True
    encoder: Encoder | None = None

    @classmethod
    def of(cls, bundle: Bundle) -> Self:
        """That of a bundle whose files are verified."""
        manifest = bundle.manifest
        return cls(
            graph=bundle.graph,
            weights=bundle.weights,
            folder=bundle.folder,
            inputs=manifest.inputs,
            hidden_size=manifest.hidden_size,
            vocab_size=manifest.vocab_size,
            groups=manifest.recipe.groups,
            encoder=manifest.encoder,
        )

    @classmethod
    def read(cls, folder: Path, inputs: tuple[str, ...], *, hidden_size: int = 0, groups: bool = True) -> Self:
        """The graph and the weights in a folder, which are not verified; mapped. Raises OSError where they are not there."""
        graph, weights = (folder / MODEL).read_bytes(), Contents(folder / WEIGHTS)
        return cls(graph=graph, weights=weights, folder=folder, inputs=inputs, hidden_size=hidden_size, groups=groups)
