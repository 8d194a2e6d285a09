"""The labels of a classifier's head: one, whose logit is the score, or two, of which one says that a document is relevant.

The softmax of two logits is the sigmoid of their difference: such a head is one logit too.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, cast

from raskrank.checkpoint.suggestion import SUGGESTION
from raskrank.errors import CheckpointError, InputError
from raskrank.quoting import named, quoted

if TYPE_CHECKING:
    from torch import Tensor

RELEVANT = "relevant"  # the one name that says it by itself, in any letter case


class Relevant(NamedTuple):
    """Of two labels: the one that says that a document is relevant."""

    place: int  # 0 or 1: its index
    name: str  # as config.json calls it, or as transformers does where that names none

    @property
    def other(self) -> int:
        return 1 - self.place

    def difference(self, logits: "Tensor") -> "Tensor":
        """(B, 2) -> (B, 1): the logit whose sigmoid is the softmax's share of this label."""
        return logits[:, self.place, None] - logits[:, self.other, None]


def read_labels(path: Path, written: Mapping[str, object], relevant_label: str | int | None) -> Relevant | None:
    """Which of two labels is the relevant one; None where the head has one.

    path, written: config.json. relevant_label: the name of a label, or its index. Default: the one called "relevant".

    Raises CheckpointError for any other number of labels, or where nobody says which of two it is, and InputError for a
    `relevant_label` that is none of the two.
    """
    names = _names(path, written)
    if len(names) == 1:
        if relevant_label is not None:
            raise InputError(f"relevant_label: {path} has one label, whose logit is the score. Leave it out")
        return None
    if relevant_label is None:
        found = [index for index, name in enumerate(names) if name.lower() == RELEVANT]
        if len(found) != 1:
            listed = " and ".join(named(name) for name in names)
            raise CheckpointError(
                f"{path}: the head has 2 labels, {listed}, and neither is called {RELEVANT!r}. The model card says which one "
                f"means that a document answers the query: export with relevant_label={quoted(names[1])} or "
                f"--relevant-label {named(names[1])}, or call it {RELEVANT!r} in id2label."
            )
        return Relevant(found[0], names[found[0]])
    asked = str(relevant_label)
    matches = [index for index, name in enumerate(names) if asked in (name, str(index))]
    if len(matches) != 1:
        listed = ", ".join(map(quoted, names))
        raise InputError(f"relevant_label: expected a label of {path}, {listed}, or its index, got {quoted(relevant_label)}")
    return Relevant(matches[0], names[matches[0]])


def _names(path: Path, written: Mapping[str, object]) -> list[str]:
    """Of one label or two. As in transformers, id2label goes before num_labels, and without either there are two."""
    labels = written.get("id2label")
    if labels is not None and not isinstance(labels, dict):
        raise CheckpointError(f"{path}: id2label must be an object, got {quoted(labels)}.")
    count: object = written.get("num_labels") if labels is None else len(labels)
    if count is None:
        count = 2
    if not isinstance(count, int) or isinstance(count, bool) or count not in (1, 2):
        raise CheckpointError(
            f"{path}: the head has {quoted(count)} labels. A reranker has one (num_labels 1), or two of which one is "
            f"{RELEVANT!r}. {SUGGESTION}"
        )
    if count == 1:
        return [""]
    if labels is None:
        return [f"LABEL_{index}" for index in range(count)]
    if set(labels) != {"0", "1"}:
        raise CheckpointError(f"{path}: id2label must name the labels 0 and 1.")
    names = [str(cast(dict[str, object], labels)[key]) for key in ("0", "1")]
    if names[0] == names[1]:
        raise CheckpointError(f"{path}: id2label calls both labels {named(names[0])}.")
    return names
