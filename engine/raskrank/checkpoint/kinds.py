"""Which kind of model a checkpoint is: a cross-encoder that is supported, or the name of what it is instead."""

from collections.abc import Mapping
from pathlib import Path

from raskrank.checkpoint import modernbert
from raskrank.checkpoint.modules import MODULES, has_head, module_types
from raskrank.checkpoint.weights import SUGGESTION
from raskrank.errors import CheckpointError, NotACrossEncoder
from raskrank.quoting import named, quoted

MODEL_TYPES = {
    "BertForSequenceClassification": "bert",
    "RobertaForSequenceClassification": "roberta",
    "XLMRobertaForSequenceClassification": "xlm-roberta",
    modernbert.CLASSIFIER: modernbert.MODEL_TYPE,
}
# Encoders that are read with a head in modules of sentence-transformers.
ENCODER_TYPES = {modernbert.ENCODER: modernbert.MODEL_TYPE}
_ARCHITECTURES = {model_type: architecture for architecture, model_type in MODEL_TYPES.items()}
# fmt: off
_DECODERS = frozenset({
    "bloom", "falcon", "gemma", "gemma2", "gemma3", "gemma3_text", "gpt2", "gpt_neox", "gptj", "granite", "llama",
    "minicpm", "mistral", "mixtral", "olmo", "opt", "phi", "phi3", "qwen2", "qwen2_moe", "qwen2_vl", "qwen2_5_vl",
    "qwen3", "qwen3_moe", "qwen3_vl", "smollm3",
})
_HEADLESS = ("Model", "ForMaskedLM", "ForPreTraining", "ForTokenClassification", "ForQuestionAnswering")
# fmt: on
# Notes that transformers leaves in a config; none of them chooses code, nor is it read.
_HARMLESS_PRIVATE_KEYS = frozenset({"_name_or_path", "_commit_hash", "_attn_implementation_autoset", "_num_labels"})


def architecture_of(folder: Path, written: Mapping[str, object], card: Mapping[str, object]) -> str:
    """transformers' class for this cross-encoder with one logit, a key of MODEL_TYPES; of an encoder whose head lies in modules
    of sentence-transformers, of ENCODER_TYPES.

    written: config.json. card: config_sentence_transformers.json, {} where there is none.

    Raises NotACrossEncoder for another kind of model, and CheckpointError for remote code and for what is not supported.
    """
    _refuse_other_kinds(folder, written, card)
    _refuse_code(folder / "config.json", written)
    if has_head(folder, card):
        architecture = _encoder(folder / "config.json", written)
    else:
        architecture = _architecture(folder / "config.json", written)
        _refuse_other_labels(folder / "config.json", written)
    _refuse_unsupported(folder, written, card)
    return architecture


def _refuse_other_kinds(folder: Path, written: Mapping[str, object], card: Mapping[str, object]) -> None:
    """Raise NotACrossEncoder for what computes something else than one score for a pair."""
    names = _names(written)
    kind = str(written.get("model_type", ""))
    if kind in _DECODERS:
        raise NotACrossEncoder(f"{folder} is a causal or listwise reranker ({named(', '.join(names)) or kind}). {SUGGESTION}")
    if not MODEL_TYPES.keys() & set(names):
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
        raise CheckpointError(f"{folder / MODULES} lists {named(', '.join(others))}: only a lone Transformer is supported.")


def _refuse_code(path: Path, values: Mapping[str, object]) -> None:
    """Refuse keys that name code: `auto_map`, and private or attention keys, which can name a kernel to download."""
    waiting = [values]
    while waiting:
        for key, value in waiting.pop().items():
            if key == "auto_map":
                raise CheckpointError(f"{path} has auto_map: the model would need remote code, which is never run.")
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
    supported = [name for name in MODEL_TYPES if name in names]
    if names and not supported:
        raise CheckpointError(f"{path}: {named(', '.join(names))} is not supported. Supported are {', '.join(MODEL_TYPES)}.")
    if kind is None and len(supported) == 1:
        return supported[0]
    if not isinstance(kind, str) or kind not in _ARCHITECTURES:
        raise CheckpointError(f"{path}: model_type {quoted(kind)} is not supported. Supported are {', '.join(_ARCHITECTURES)}.")
    if supported and all((MODEL_TYPES[name] == "bert") != (kind == "bert") for name in supported):
        raise CheckpointError(
            f"{path}: model_type {kind!r} does not fit {supported[0]}; expected {MODEL_TYPES[supported[0]]!r}."
        )
    return _ARCHITECTURES[kind]  # roberta's class computes what xlm-roberta's does


def _encoder(path: Path, written: Mapping[str, object]) -> str:
    """As `_architecture`, of an encoder with a head in modules."""
    names, kind = _names(written), written.get("model_type")
    for architecture, model_type in ENCODER_TYPES.items():
        if names == [architecture] and kind == model_type:
            return architecture
    found = named(", ".join(names)) or quoted(kind)
    raise CheckpointError(
        f"{path}: {found} with a head in {MODULES} is not supported. Supported are {', '.join(ENCODER_TYPES)}."
    )


def _refuse_other_labels(path: Path, written: Mapping[str, object]) -> None:
    # As in transformers, id2label goes before num_labels, and without either there are two.
    labels = written.get("id2label")
    if labels is not None and not isinstance(labels, dict):
        raise CheckpointError(f"{path}: id2label must be an object, got {quoted(labels)}.")
    count = written.get("num_labels") if labels is None else len(labels)
    if count is None:
        count = 2
    if count != 1 or not isinstance(count, int) or isinstance(count, bool):
        raise CheckpointError(f"{path}: the head has {quoted(count)} labels. A reranker has one (num_labels 1).")


def _refuse_unsupported(folder: Path, written: Mapping[str, object], card: Mapping[str, object]) -> None:
    path = folder / "config.json"
    # ModernBERT has none, whatever its config says: "sans_pos" in those that were trained without transformers.
    modern = written.get("model_type") == modernbert.MODEL_TYPE
    if not modern and written.get("position_embedding_type", "absolute") != "absolute":
        value = quoted(written["position_embedding_type"])
        raise CheckpointError(f"{path}: position_embedding_type {value} is not supported, only 'absolute'.")
    for key in ("is_decoder", "add_cross_attention", "pruned_heads", "quantization_config"):
        if written.get(key):
            raise CheckpointError(f"{path}: {key} is set, which is not supported.")
    if card.get("default_prompt_name") is not None:
        raise CheckpointError(f"{folder / 'config_sentence_transformers.json'}: a default prompt is not supported.")
