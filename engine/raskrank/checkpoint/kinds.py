"""Which kind of model a checkpoint is: a cross-encoder that is supported, or the name of what it is instead."""

from collections.abc import Mapping
from pathlib import Path

from raskrank.checkpoint import modernbert
from raskrank.checkpoint.families import CLASSIFIERS, ENCODERS, OF_ARCHITECTURE, OF_MODEL_TYPE
from raskrank.checkpoint.modules import MODULES, has_head, module_types
from raskrank.checkpoint.suggestion import SUGGESTION, unsupported
from raskrank.errors import CheckpointError, NotACrossEncoder
from raskrank.quoting import named, quoted

# fmt: off
_DECODERS = frozenset({
    "bloom", "falcon", "gemma", "gemma2", "gemma3", "gemma3_text", "gpt2", "gpt_neox", "gptj", "granite", "llama",
    "minicpm", "mistral", "mixtral", "olmo", "opt", "phi", "phi3", "qwen2", "qwen2_moe", "qwen2_vl", "qwen2_5_vl",
    "qwen3", "qwen3_moe", "qwen3_vl", "smollm3",
})
_HEADLESS = ("Model", "ForMaskedLM", "ForPreTraining", "ForTokenClassification", "ForQuestionAnswering")
# fmt: on
_UNSUPPORTED = {
    "is_decoder": SUGGESTION,
    "add_cross_attention": SUGGESTION,
    "pruned_heads": SUGGESTION,
    "quantization_config": "Export from the checkpoint in float that it was made from; int8 is made here.",
}
# Notes that transformers leaves in a config; none of them chooses code, nor is it read.
_HARMLESS_PRIVATE_KEYS = frozenset({"_name_or_path", "_commit_hash", "_attn_implementation_autoset", "_num_labels"})


def architecture_of(folder: Path, written: Mapping[str, object], card: Mapping[str, object]) -> str:
    """transformers' class for this cross-encoder, a key of OF_ARCHITECTURE: of an encoder, where the head lies in modules.

    written: config.json. card: config_sentence_transformers.json, {} where there is none.

    Raises NotACrossEncoder for another kind of model, and CheckpointError for remote code and for what is not supported.
    """
    _refuse_other_kinds(folder, written, card)
    _refuse_code(folder / "config.json", written)
    if has_head(folder, card):
        architecture = _encoder(folder / "config.json", written)
    else:
        architecture = _architecture(folder / "config.json", written)
    _refuse_unsupported(folder, written, card, OF_ARCHITECTURE[architecture].model_type)
    return architecture


def _refuse_other_kinds(folder: Path, written: Mapping[str, object], card: Mapping[str, object]) -> None:
    """Raise NotACrossEncoder for what computes something else than one score for a pair."""
    names = _names(written)
    kind = str(written.get("model_type", ""))
    if kind in _DECODERS:
        raise NotACrossEncoder(f"{folder} is a causal or listwise reranker ({named(', '.join(names)) or kind}). {SUGGESTION}")
    if not CLASSIFIERS.keys() & set(names):
        for name in names:
            if name.endswith("ForCausalLM") or name == "JinaForRanking":
                raise NotACrossEncoder(f"{folder} is a causal or listwise reranker ({named(name)}). {SUGGESTION}")
            if name.endswith("ForConditionalGeneration"):
                raise NotACrossEncoder(f"{folder} is a model that generates text ({named(name)}). {SUGGESTION}")
    if has_head(folder, card):
        return
    modules = module_types(folder)
    saved_as = str(card.get("model_type", "CrossEncoder"))
    if "Pooling" in modules or saved_as == "SentenceTransformer":
        listed = named(", ".join(modules) or saved_as)
        raise NotACrossEncoder(f"{folder} is a bi-encoder (sentence-transformers modules: {listed}). {SUGGESTION}")
    if saved_as != "CrossEncoder":
        raise NotACrossEncoder(f"{folder} was saved as a {named(saved_as)}, not as a CrossEncoder. {SUGGESTION}")
    if names and all(name.endswith(_HEADLESS) for name in names):
        raise NotACrossEncoder(
            f"{folder} is an encoder without a classification head ({named(', '.join(names))}). {SUGGESTION}"
        )
    others = [name for name in modules if name != "Transformer"]
    if others:
        raise CheckpointError(
            f"{folder / MODULES} lists {named(', '.join(others))}: only a lone Transformer is supported. {SUGGESTION}"
        )


def _refuse_code(path: Path, values: Mapping[str, object]) -> None:
    """Refuse keys that name code: `auto_map`, and private or attention keys, which can name a kernel to download."""
    waiting = [values]
    while waiting:
        for key, value in waiting.pop().items():
            if key == "auto_map":
                raise CheckpointError(
                    f"{path} has auto_map: the model would need remote code, which is never run. {SUGGESTION}"
                )
            if key.endswith("_implementation") or (key.startswith("_") and key not in _HARMLESS_PRIVATE_KEYS):
                raise CheckpointError(
                    f"{path} has {quoted(key)}, which can choose code to run. Remove the key, if it is yours."
                )
            if isinstance(value, dict) and key not in {"id2label", "label2id"}:
                waiting.append(value)


def _names(written: Mapping[str, object]) -> list[str]:
    listed = written.get("architectures")
    return [str(name) for name in listed] if isinstance(listed, list) else []


def _architecture(path: Path, written: Mapping[str, object]) -> str:
    """The class that transformers' AutoModelForSequenceClassification takes: model_type decides, architectures may agree.

    Without a model_type, for which transformers looks at the folder's name, the architecture decides.
    """
    names, kind = _names(written), written.get("model_type")
    supported = [name for name in CLASSIFIERS if name in names]
    if names and not supported:
        raise CheckpointError(
            f"{path}: {named(', '.join(names))} is not supported. Supported are {', '.join(CLASSIFIERS)}. {SUGGESTION}"
        )
    if kind is None and len(supported) == 1:
        return supported[0]
    if not isinstance(kind, str) or kind not in OF_MODEL_TYPE:
        raise CheckpointError(
            f"{path}: model_type {quoted(kind)} is not supported. Supported are {', '.join(OF_MODEL_TYPE)}. {SUGGESTION}"
        )
    family = OF_MODEL_TYPE[kind]
    if supported and all(CLASSIFIERS[name].tensors != family.tensors for name in supported):
        raise CheckpointError(
            f"{path}: model_type {kind!r} does not fit {supported[0]}; expected {CLASSIFIERS[supported[0]].model_type!r}."
        )
    return family.architecture  # roberta's class computes what xlm-roberta's and camembert's do


def _encoder(path: Path, written: Mapping[str, object]) -> str:
    """As `_architecture`, of an encoder with a head in modules."""
    names, kind = _names(written), written.get("model_type")
    for family in ENCODERS:
        if names == [family.architecture] and kind not in (None, family.model_type):
            raise CheckpointError(
                f"{path}: model_type {quoted(kind)} does not fit {family.architecture}; expected {family.model_type!r}."
            )
        if names == [family.architecture] or (kind == family.model_type and not names):
            return family.architecture
    found = named(", ".join(names)) or f"model_type {quoted(kind)}"
    listed = ", ".join(family.architecture for family in ENCODERS)
    raise unsupported(f"{path}: {found} with a head in {MODULES} is not supported. Supported are {listed}.")


def _refuse_unsupported(folder: Path, written: Mapping[str, object], card: Mapping[str, object], model_type: str) -> None:
    path = folder / "config.json"
    # ModernBERT has none, whatever its config says: "sans_pos" in those that were trained without transformers.
    modern = model_type == modernbert.MODEL_TYPE
    if not modern and written.get("position_embedding_type", "absolute") != "absolute":
        value = quoted(written["position_embedding_type"])
        raise CheckpointError(f"{path}: position_embedding_type {value} is not supported, only 'absolute'. {SUGGESTION}")
    for key, advice in _UNSUPPORTED.items():
        if written.get(key):
            raise CheckpointError(f"{path}: {key} is set, which is not supported. {advice}")
    if card.get("default_prompt_name") is not None:
        raise CheckpointError(
            f"{folder / 'config_sentence_transformers.json'}: a default prompt is not supported. Set default_prompt_name to "
            "null, and put the prompt in front of the queries yourself."
        )
