"""Encoders whose published code is not run: written in plain PyTorch from their descriptions, as the reference to judge by.

Their modules have the names of the published tensors. One door, `build`; PyTorch is imported there and not before.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch.nn import Module

GTE, JINA_BERT = "NewForSequenceClassification", "JinaBertForSequenceClassification"
ARCHITECTURES = frozenset({GTE, JINA_BERT})


def build(architecture: str, config: Mapping[str, Any]) -> "Module":
    """The classifier of that published name, one of ARCHITECTURES, with weights that nobody has set.

    Called with input_ids, attention_mask and, if its type vocabulary has more than one, token_type_ids, int64 (B, L) each, it
    gives `logits`, (B, num_labels).
    """
    from raskrank.reimplemented.gte import NewForSequenceClassification
    from raskrank.reimplemented.jina_bert import JinaBertForSequenceClassification

    classes = {GTE: NewForSequenceClassification, JINA_BERT: JinaBertForSequenceClassification}
    return classes[architecture](config)
