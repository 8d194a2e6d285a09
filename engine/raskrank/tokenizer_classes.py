"""What transformers' tokenizer classes do beside reading tokenizer.json: the same in every version, where the versions differ.

A class is named by its stem: "Bert" of BertTokenizer and BertTokenizerFast.
"""

from collections.abc import Mapping
from typing import Any

GENERIC = "PreTrained"  # reads tokenizer.json as it is
# Transformers 4 took tokenizer.json as it is for these, too. 5 builds them anew from the pieces alone, and so gives other ids
# than the published XLM-R tokenizers do.
_REBUILT = frozenset(
    {"Albert", "Barthez", "BigBird", "Camembert", "DebertaV2", "MBart", "RemBert", "T5", "XLMRoberta", "XLNet"}
)
# Those of models without token types. All others pass them to the model; in transformers 5 some forget to, GENERIC among them.
_WITHOUT_TYPES = frozenset(
    {
        *("Bart", "Barthez", "BigBird", "Camembert", "DistilBert", "GPT2", "Longformer", "MBart", "MPNet", "Roberta", "T5"),
        "XLMRoberta",
    }
)
_NEW_GENERIC = "TokenizersBackend"  # what transformers 5 calls it


def class_of(stem: str) -> Any:
    """transformers' class that reads tokenizer.json, or None where this version of it has none."""
    import transformers

    renamed = stem in _REBUILT and hasattr(transformers, _NEW_GENERIC)
    return getattr(transformers, f"{GENERIC if renamed else stem}TokenizerFast", None)


def passes_types(stem: str, options: Mapping[str, object]) -> bool:
    """Whether the model gets the token types of tokenizer.json. options: of tokenizer_config.json, which decides if it can."""
    stated = options.get("model_input_names")
    return "token_type_ids" in stated if isinstance(stated, list | tuple) else stem not in _WITHOUT_TYPES
