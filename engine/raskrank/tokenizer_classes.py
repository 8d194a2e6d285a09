"""What transformers' tokenizer classes do beside reading tokenizer.json: the same in every version, where the versions differ.

A class is named by its stem: "Bert" of BertTokenizer and BertTokenizerFast.
"""

import json
from collections.abc import Mapping
from typing import Any

from tokenizers import Tokenizer, normalizers, pre_tokenizers

GENERIC = "PreTrained"  # reads tokenizer.json as it is
_LIKE_BERT = frozenset(
    {"Bert", "ConvBert", "DistilBert", "Electra", "Funnel", "LayoutLM", "Lxmert", "MPNet", "MobileBert", "SqueezeBert"}
)
# Transformers 4 took tokenizer.json as it is for these, too, but for what `follow` does. 5 builds them anew from the pieces
# alone, and so gives other ids than the published XLM-R tokenizers do, or a BERT's with a normalizer of its own.
_REBUILT = _LIKE_BERT | {
    *("Albert", "Bart", "Barthez", "BigBird", "Camembert", "DebertaV2", "GPT2", "Longformer", "MBart", "RemBert", "Roberta"),
    *("T5", "XLMRoberta", "XLNet"),
}
# Those of models without token types. All others pass them to the model; in transformers 5 some forget to, GENERIC among them.
_WITHOUT_TYPES = frozenset(
    {
        *("Bart", "Barthez", "BigBird", "Camembert", "DistilBert", "GPT2", "Longformer", "MBart", "MPNet", "Roberta", "T5"),
        "XLMRoberta",
    }
)
_NEW_GENERIC = "TokenizersBackend"  # what transformers 5 calls it


def class_of(stem: str, *, whole: bool) -> Any:
    """transformers' class that reads the tokenizer, or None where this version of it has none.

    whole: whether there is a tokenizer.json. Else the class makes one of the vocabulary.
    """
    import transformers

    renamed = whole and stem in _REBUILT and hasattr(transformers, _NEW_GENERIC)
    return getattr(transformers, f"{GENERIC if renamed else stem}TokenizerFast", None)


def follow(stem: str, options: Mapping[str, object], tokenizer: Tokenizer) -> None:
    """Change what was read of tokenizer.json as the classes of transformers 4 do by `options`, of tokenizer_config.json.

    Where they have done so already, nothing changes.
    """
    if stem in _LIKE_BERT and tokenizer.normalizer is not None:
        wanted = {"lowercase": options.get("do_lower_case", True), "strip_accents": options.get("strip_accents")}
        if stem != "MPNet":
            wanted["handle_chinese_chars"] = options.get("tokenize_chinese_chars", True)
        tokenizer.normalizer = _with(tokenizer.normalizer, normalizers, wanted)
    if tokenizer.pre_tokenizer is not None:
        space = {"add_prefix_space": options.get("add_prefix_space", False)}
        tokenizer.pre_tokenizer = _with(tokenizer.pre_tokenizer, pre_tokenizers, space)


def _with(part: Any, module: Any, wanted: Mapping[str, object]) -> Any:
    """The part with the wanted settings, where it has one of them that differs."""
    state = json.loads(part.__getstate__())
    if all(state.get(name, value) == value for name, value in wanted.items()):
        return part
    return getattr(module, state.pop("type"))(**state | wanted)


def passes_types(stem: str, options: Mapping[str, object]) -> bool:
    """Whether the model gets the token types of tokenizer.json. options: of tokenizer_config.json, which decides if it can."""
    stated = options.get("model_input_names")
    return "token_type_ids" in stated if isinstance(stated, list | tuple) else stem not in _WITHOUT_TYPES
