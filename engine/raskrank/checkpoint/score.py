"""What turns a logit into a score, as a checkpoint states it."""

from collections.abc import Mapping
from pathlib import Path
from typing import get_args

from raskrank.activation import Activation
from raskrank.checkpoint.labels import Relevant
from raskrank.checkpoint.suggestion import SUGGESTION
from raskrank.errors import CheckpointError
from raskrank.quoting import quoted

_ACTIVATIONS: Mapping[str, Activation] = {
    "torch.nn.modules.linear.Identity": "identity",
    "torch.nn.Identity": "identity",
    "torch.nn.modules.activation.Sigmoid": "sigmoid",
    "torch.nn.Sigmoid": "sigmoid",
    "torch.nn.modules.activation.Softplus": "softplus",
    "torch.nn.Softplus": "softplus",
    "torch.nn.modules.activation.Tanh": "tanh",
    "torch.nn.Tanh": "tanh",
}
# Of two labels: their logits as they are, or their shares, and neither changes which document is the more relevant.
_OF_TWO = tuple(
    f"torch.nn.{module}{name}" for name in ("Identity", "Softmax") for module in ("", "modules.linear.", "modules.activation.")
)


def activation_of(
    folder: Path, written: Mapping[str, object], card: Mapping[str, object], relevant: Relevant | None
) -> Activation:
    """Of one logit, as stated, with sentence-transformers' default; of two, what makes of their difference a share.

    written: config.json. card: config_sentence_transformers.json. Raises CheckpointError for what is not supported.
    """
    stated = _stated(written, card)
    if relevant is not None:
        kind = written.get("problem_type")
        apart = stated if kind in (None, "single_label_classification") else kind
        if apart is not None and apart not in _OF_TWO:
            raise CheckpointError(
                f"{folder}: its two labels are scored apart ({quoted(apart)}), not one against the other. {SUGGESTION}"
            )
        return "sigmoid"
    if stated is None:
        return "sigmoid"
    if not isinstance(stated, str) or stated not in _ACTIVATIONS:
        raise CheckpointError(
            f"{folder}: the score's activation {quoted(stated)} is not supported. Supported are those of "
            f"{', '.join(get_args(Activation))}, in torch.nn: they keep the order of the logits. {SUGGESTION}"
        )
    return _ACTIVATIONS[stated]


def _stated(written: Mapping[str, object], card: Mapping[str, object]) -> object:
    """In sentence-transformers' order."""
    stated = card.get("activation_fn")
    if stated is None:
        nested = written.get("sentence_transformers")
        if isinstance(nested, dict) and "activation_fn" in nested:
            stated = nested["activation_fn"]
        else:
            stated = written.get("sbert_ce_default_activation_function")
    return stated
