"""What a checkpoint calls its tensors: as transformers does, or as a published model's own code, which is never run.

jina-reranker-v2-base-multilingual is XLM-R under other names, its query, key and value stacked into one tensor. So nothing of
the code that it brings is needed: its tensors are given XLM-R's names, one third of a stacked tensor each. The code of
gte-multilingual-reranker-base and jina-reranker-v1 is stood in for by `raskrank.reimplemented`, under their own names.
"""

import re
from collections.abc import Mapping
from typing import Literal, NamedTuple

Layout = Literal["transformers", "jina", "gte", "jina-bert"]

# To the letter as published: any other code may compute something else.
_JINA_CODE = {
    "AutoConfig": "configuration_xlm_roberta.XLMRobertaFlashConfig",
    "AutoModel": "modeling_xlm_roberta.XLMRobertaModel",
    "AutoModelForSequenceClassification": "modeling_xlm_roberta.XLMRobertaForSequenceClassification",
}
_CLASSES = {"AutoModelForSequenceClassification": "ForSequenceClassification", "AutoModelForMaskedLM": "ForMaskedLM"}
_CLASSES |= {"AutoModel": "Model", "AutoModelForMultipleChoice": "ForMultipleChoice"}
_CLASSES |= {
    "AutoModelForQuestionAnswering": "ForQuestionAnswering",
    "AutoModelForTokenClassification": "ForTokenClassification",
}
# As published, in the model's own repository or in one of code alone; another one's code may compute something else.
_GTE_CODE = {key: f"modeling.New{name}" for key, name in _CLASSES.items()} | {"AutoConfig": "configuration.NewConfig"}
_GTE_HOMES = ("Alibaba-NLP/new-impl", "Alibaba-NLP/gte-multilingual-reranker-base")
_JINA_BERT_CODE = {key: f"modeling_bert.JinaBert{name}" for key, name in _CLASSES.items()}
_JINA_BERT_CODE |= {"AutoConfig": "configuration_bert.JinaBertConfig"}
_JINA_BERT_HOMES = (
    "jinaai/jina-bert-implementation",
    "jinaai/jina-reranker-v1-tiny-en",
    "jinaai/jina-reranker-v1-turbo-en",
)
# Which attention to compute with, and how, but not what.
_JINA_BERT_NOTES = ("attn_implementation", "emb_pooler", "feed_forward_type")
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
    left: tuple[str, ...] = ("auto_map", "position_embedding_type")
    if _is_jina(config):
        return "jina", _without(config, "auto_map") | {"model_type": "xlm-roberta"}
    if _is_gte(config):
        return "gte", _without(config, *left)
    if _is_jina_bert(config):
        # The card's own example says that there is one label, where config.json does not.
        labels = {} if config.keys() & {"id2label", "num_labels"} else {"num_labels": 1}
        names = {"architectures": ["JinaBertForSequenceClassification"], "model_type": "jina-bert"}
        return "jina-bert", _without(config, *left, *_JINA_BERT_NOTES) | labels | names
    return "transformers", config


def _is_jina(config: Mapping[str, object]) -> bool:
    return (
        config.get("architectures") == ["XLMRobertaForSequenceClassification"]
        and "model_type" not in config  # the code brings its own
        and config.get("auto_map") == _JINA_CODE
        and config.get("emb_pooler") is None
    )


def _is_gte(config: Mapping[str, object]) -> bool:
    return (
        config.get("architectures") == ["NewForSequenceClassification"]
        and config.get("model_type") == "new"
        and config.get("position_embedding_type", "rope") == "rope"
        and _is_code(config.get("auto_map", {}), _GTE_CODE, _GTE_HOMES)
    )


def _is_jina_bert(config: Mapping[str, object]) -> bool:
    names = config.get("architectures")
    return (
        isinstance(names, list)
        and len(names) == 1
        and names[0] in ("JinaBertForSequenceClassification", "JinaBertForMaskedLM", "JinaBertModel")
        and config.get("model_type") == "bert"
        and config.get("position_embedding_type") == "alibi"
        and config.get("feed_forward_type", "geglu") == "geglu"
        and config.get("attn_implementation") in (None, "torch")
        and config.get("emb_pooler") in (None, "mean")
        and _is_code(config.get("auto_map", {}), _JINA_BERT_CODE, _JINA_BERT_HOMES)
    )


def _is_code(found: object, code: Mapping[str, str], homes: tuple[str, ...]) -> bool:
    """Whether auto_map names that code and no other. "owner/name--" before a class says where it lies."""
    if not isinstance(found, dict):
        return False
    places = ["", *(f"{home}--" for home in homes)]
    return all(key in code and value in [place + code[key] for place in places] for key, value in found.items())


def _without(config: Mapping[str, object], *keys: str) -> dict[str, object]:
    return {key: value for key, value in config.items() if key not in keys}


def stored(layout: Layout, name: str) -> Stored:
    """Where a checkpoint of that layout keeps the tensor that is called `name` in PyTorch."""
    if layout != "jina":
        return Stored(name, None)
    if match := re.fullmatch(r"roberta\.encoder\.layer\.(\d+)\.(.+)\.(weight|bias)", name):
        index, part, kind = match.groups()
        theirs, third = _JINA_LAYER[part]
        return Stored(f"roberta.encoder.layers.{index}.{theirs}.{kind}", third)
    return Stored(name.replace("roberta.embeddings.LayerNorm.", "roberta.emb_ln."), None)
