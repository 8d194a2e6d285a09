"""What a checkpoint calls its tensors: as transformers does, or as one published model's own code, which is never run.

jina-reranker-v2-base-multilingual is XLM-R under other names, its query, key and value stacked into one tensor. So nothing of
the code that it brings is needed: its tensors are given XLM-R's names, one third of a stacked tensor each.
"""

import re
from collections.abc import Mapping
from typing import Literal, NamedTuple

Layout = Literal["transformers", "jina"]

# To the letter as published: any other code may compute something else.
_JINA_CODE = {
    "AutoConfig": "configuration_xlm_roberta.XLMRobertaFlashConfig",
    "AutoModel": "modeling_xlm_roberta.XLMRobertaModel",
    "AutoModelForSequenceClassification": "modeling_xlm_roberta.XLMRobertaForSequenceClassification",
}
STACKED = 3  # query, key, value, in this order
_JINA_LAYER: Mapping[str, tuple[str, int | None]] = {
    "attention.self.query": ("mixer.Wqkv", 0),
    "attention.self.key": ("mixer.Wqkv", 1),
    "attention.self.value": ("mixer.Wqkv", 2),
    "attention.output.dense": ("mixer.out_proj", None),
    "attention.output.LayerNorm": ("norm1", None),
    "intermediate.dense": ("mlp.fc1", None),
    "output.dense": ("mlp.fc2", None),
    "output.LayerNorm": ("norm2", None),
}


class Stored(NamedTuple):
    """Where a tensor lies in the file: the name there, and which third of its rows, or None for all."""

    name: str
    third: int | None


def recognize(config: Mapping[str, object]) -> tuple[Layout, Mapping[str, object]]:
    """The layout of a checkpoint's tensors, and its config.json as transformers itself would have written it."""
    jina = (
        config.get("architectures") == ["XLMRobertaForSequenceClassification"]
        and "model_type" not in config  # the code brings its own
        and config.get("auto_map") == _JINA_CODE
        and config.get("emb_pooler") is None
    )
    if not jina:
        return "transformers", config
    return "jina", {key: value for key, value in config.items() if key != "auto_map"} | {"model_type": "xlm-roberta"}


def stored(layout: Layout, name: str) -> Stored:
    """Where a checkpoint of that layout keeps the tensor that transformers calls `name`."""
    if layout == "transformers":
        return Stored(name, None)
    if match := re.fullmatch(r"roberta\.encoder\.layer\.(\d+)\.(.+)\.(weight|bias)", name):
        index, part, kind = match.groups()
        theirs, third = _JINA_LAYER[part]
        return Stored(f"roberta.encoder.layers.{index}.{theirs}.{kind}", third)
    return Stored(name.replace("roberta.embeddings.LayerNorm.", "roberta.emb_ln."), None)
