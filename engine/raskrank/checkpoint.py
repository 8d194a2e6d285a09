"""Read what a Hugging Face checkpoint says about itself, and refuse what is no cross-encoder. Runs none of its code."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from raskrank.errors import CheckpointError, NotACrossEncoder
from raskrank.families import Layout, recognize
from raskrank.files import parse_json, read_bytes, read_json, require_utf8
from raskrank.weights import SUGGESTION, check_weights

# Model cards begin with their front matter; what comes after it is prose.
MAX_CARD_BYTES = 64 * 2**10
# transformers writes 1e30 where a tokenizer has no limit of its own.
MAX_SANE_LENGTH = 10**6

_MODEL_TYPES = {
    "BertForSequenceClassification": "bert",
    "RobertaForSequenceClassification": "roberta",
    "XLMRobertaForSequenceClassification": "xlm-roberta",
}
# fmt: off
_DECODERS = frozenset({
    "bloom", "falcon", "gemma", "gemma2", "gemma3", "gemma3_text", "gpt2", "gpt_neox", "gptj", "granite", "llama",
    "minicpm", "mistral", "mixtral", "olmo", "opt", "phi", "phi3", "qwen2", "qwen2_moe", "qwen2_vl", "qwen2_5_vl",
    "qwen3", "qwen3_moe", "qwen3_vl", "smollm3",
})
# fmt: on
_HEADLESS = ("Model", "ForMaskedLM", "ForPreTraining", "ForTokenClassification", "ForQuestionAnswering")
_ACTIVATIONS: Mapping[str, Literal["sigmoid", "identity"]] = {
    "torch.nn.modules.activation.Sigmoid": "sigmoid",
    "torch.nn.Sigmoid": "sigmoid",
    "torch.nn.modules.linear.Identity": "identity",
    "torch.nn.Identity": "identity",
}
# Notes that transformers leaves in a config; none of them chooses code.
_HARMLESS_PRIVATE_KEYS = frozenset({"_name_or_path", "_commit_hash", "_attn_implementation_autoset"})


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A folder whose config, tokenizer and weights fit together as a cross-encoder with one logit."""

    folder: Path
    architecture: str  # "BertForSequenceClassification"
    model_type: str  # "bert", "roberta" or "xlm-roberta"
    layout: Layout  # what its tensors are called
    config: Mapping[str, object]  # known keys only, defaults filled: the arguments of transformers' config class
    layers: int
    heads: int
    hidden_size: int
    vocab_size: int
    type_vocab_size: int
    max_length: int  # tokens, special tokens included
    pad_id: int
    activation: Literal["sigmoid", "identity"]
    parameters: int  # of the tensors that the architecture uses
    license: str | None  # as the model card spells it, "apache-2.0"
    languages: tuple[str, ...]  # as the model card lists them


def read_checkpoint(folder: Path) -> Checkpoint:
    """Read `folder`'s config.json, tokenizer_config.json, model card and safetensors headers; no weights, no code.

    Raises NotACrossEncoder for another kind of model (bi-encoder, causal or listwise, no classification head), and
    CheckpointError for whatever else cannot be exported: files missing or broken, remote code, several labels, ...
    """
    if not folder.is_dir():
        raise CheckpointError(f"{folder} is not a folder. Give the folder that holds the model's config.json.")
    require_utf8(folder)
    layout, written = recognize(read_json(folder / "config.json", required=True))
    card = read_json(folder / "config_sentence_transformers.json")
    tokenizer = read_json(folder / "tokenizer_config.json")

    _refuse_other_kinds(folder, written, card)
    _refuse_code(folder / "config.json", written)
    _refuse_code(folder / "tokenizer_config.json", {k: v for k, v in tokenizer.items() if k == "auto_map"})
    architecture = _architecture(folder, written)
    _refuse_unsupported(folder, written, card, tokenizer)
    numbers = _numbers(folder / "config.json", written, _MODEL_TYPES[architecture])
    fixed = {"num_labels": 1, "hidden_act": "gelu", "position_embedding_type": "absolute"}
    parameters = check_weights(folder, architecture, numbers, layout)
    license, languages = _front_matter(folder / "README.md")
    return Checkpoint(
        folder=folder,
        architecture=architecture,
        model_type=_MODEL_TYPES[architecture],
        layout=layout,
        config={**numbers, **fixed, "layer_norm_eps": _epsilon(folder / "config.json", written)},
        layers=numbers["num_hidden_layers"],
        heads=numbers["num_attention_heads"],
        hidden_size=numbers["hidden_size"],
        vocab_size=numbers["vocab_size"],
        type_vocab_size=numbers["type_vocab_size"],
        max_length=_max_length(folder, architecture, numbers, tokenizer),
        pad_id=numbers["pad_token_id"],
        activation=_activation(written, card),
        parameters=parameters,
        license=license,
        languages=languages,
    )


def _refuse_other_kinds(folder: Path, written: Mapping[str, object], card: Mapping[str, object]) -> None:
    """Raise NotACrossEncoder for what computes something else than one score for a pair."""
    named = written.get("architectures")
    first = str(named[0]) if isinstance(named, list) and named else ""
    kind = str(written.get("model_type", ""))
    if first.endswith("ForCausalLM") or first == "JinaForRanking" or kind in _DECODERS:
        raise NotACrossEncoder(f"{folder} is a causal or listwise reranker ({first or kind}). {SUGGESTION}")
    if first.endswith("ForConditionalGeneration"):
        raise NotACrossEncoder(f"{folder} is a model that generates text ({first}). {SUGGESTION}")
    modules = _module_types(folder / "modules.json")
    saved_as = str(card.get("model_type", "CrossEncoder"))
    if "Pooling" in modules or saved_as == "SentenceTransformer":
        listed = ", ".join(modules) or saved_as
        raise NotACrossEncoder(f"{folder} is a bi-encoder (sentence-transformers modules: {listed}). {SUGGESTION}")
    if saved_as != "CrossEncoder":
        raise NotACrossEncoder(f"{folder} was saved as a {saved_as}, not as a CrossEncoder. {SUGGESTION}")
    if first.endswith(_HEADLESS):
        raise NotACrossEncoder(f"{folder} is an encoder without a classification head ({first}). {SUGGESTION}")
    others = [name for name in modules if name != "Transformer"]
    if others:
        raise CheckpointError(f"{folder / 'modules.json'} lists {', '.join(others)}: only a lone Transformer is supported.")


def _module_types(path: Path) -> list[str]:
    """Class names from sentence-transformers' modules.json, "Transformer", "Pooling", ...; empty without the file."""
    modules = parse_json(path) if path.is_file() else []
    if not isinstance(modules, list) or not all(isinstance(module, dict) for module in modules):
        raise CheckpointError(f"{path} is not valid: a list of objects was expected.")
    return [str(module.get("type")).rpartition(".")[2] for module in modules]


def _refuse_code(path: Path, values: Mapping[str, object]) -> None:
    """Refuse keys that name code: `auto_map`, and private or attention keys, which can name a kernel to download."""
    waiting = [values]
    while waiting:
        for key, value in waiting.pop().items():
            if key == "auto_map":
                raise CheckpointError(f"{path} has auto_map: the model would need remote code, which is never run.")
            if key.endswith("_implementation") or (key.startswith("_") and key not in _HARMLESS_PRIVATE_KEYS):
                raise CheckpointError(f"{path} has {key!r}, which can choose code to run. Remove the key, if it is yours.")
            if isinstance(value, dict) and key not in {"id2label", "label2id"}:
                waiting.append(value)


def _architecture(folder: Path, written: Mapping[str, object]) -> str:
    path = folder / "config.json"
    named = written.get("architectures")
    if not isinstance(named, list) or len(named) != 1:
        raise CheckpointError(f"{path} does not name one architecture: architectures is {named!r}.")
    architecture = str(named[0])
    if architecture not in _MODEL_TYPES:
        raise CheckpointError(f"{path}: {architecture} is not supported. Supported are {', '.join(_MODEL_TYPES)}.")
    if written.get("model_type") != _MODEL_TYPES[architecture]:
        raise CheckpointError(
            f"{path}: model_type {written.get('model_type')!r} does not fit {architecture}; "
            f"expected {_MODEL_TYPES[architecture]!r}."
        )
    return architecture


def _numbers(path: Path, written: Mapping[str, object], model_type: str) -> dict[str, int]:
    """The integers that give the model its shape, with transformers' defaults."""
    numbers: dict[str, int] = {}
    for key, default, least in (
        ("vocab_size", 30522, 1),
        ("hidden_size", 768, 1),
        ("num_hidden_layers", 12, 1),
        ("num_attention_heads", 12, 1),
        ("intermediate_size", 3072, 1),
        ("max_position_embeddings", 512, 1),
        ("type_vocab_size", 2, 1),
        ("pad_token_id", 0 if model_type == "bert" else 1, 0),
    ):
        value = written.get(key, default)
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise CheckpointError(f"{path}: {key} must be an integer of at least {least}, got {value!r}.")
        numbers[key] = value
    if numbers["hidden_size"] % numbers["num_attention_heads"]:
        raise CheckpointError(
            f"{path}: hidden_size {numbers['hidden_size']} is no multiple of {numbers['num_attention_heads']} heads."
        )
    return numbers


def _epsilon(path: Path, written: Mapping[str, object]) -> float:
    value = written.get("layer_norm_eps", 1e-12)
    if not isinstance(value, float | int) or isinstance(value, bool) or not 0 < value < 1:
        raise CheckpointError(f"{path}: layer_norm_eps must lie between 0 and 1, got {value!r}.")
    return float(value)


def _refuse_unsupported(
    folder: Path, written: Mapping[str, object], card: Mapping[str, object], tokenizer: Mapping[str, object]
) -> None:
    path = folder / "config.json"
    labels = written.get("id2label")
    # Without either key transformers makes two labels.
    label_count = written.get("num_labels", len(labels) if isinstance(labels, dict) else 2)
    if label_count != 1 or (isinstance(labels, dict) and len(labels) != 1):
        count = len(labels) if isinstance(labels, dict) else label_count
        raise CheckpointError(f"{path}: the head has {count} labels. A reranker has one (num_labels 1).")
    for key, expected in (("hidden_act", "gelu"), ("position_embedding_type", "absolute")):
        if (written.get(key) or expected) != expected:
            raise CheckpointError(f"{path}: {key} {written[key]!r} is not supported, only {expected!r}.")
    for key in ("is_decoder", "add_cross_attention", "pruned_heads", "quantization_config"):
        if written.get(key):
            raise CheckpointError(f"{path}: {key} is set, which is not supported.")
    if card.get("default_prompt_name") is not None:
        raise CheckpointError(f"{folder / 'config_sentence_transformers.json'}: a default prompt is not supported.")
    if tokenizer.get("truncation_side", "right") != "right":
        raise CheckpointError(f"{folder / 'tokenizer_config.json'}: truncation_side must be 'right': texts are cut at the end.")
    if not (folder / "tokenizer.json").is_file():
        raise CheckpointError(
            f"{folder} has no tokenizer.json. Save a fast tokenizer beside the model: "
            "AutoTokenizer.from_pretrained(folder).save_pretrained(folder)."
        )


def _max_length(folder: Path, architecture: str, numbers: Mapping[str, int], tokenizer: Mapping[str, object]) -> int:
    """Tokens that fit. RoBERTa's kinds count positions from the one after the padding id."""
    reserved = 0 if architecture.startswith("Bert") else numbers["pad_token_id"] + 1
    usable = numbers["max_position_embeddings"] - reserved
    stated = tokenizer.get("model_max_length")
    if isinstance(stated, int | float) and not isinstance(stated, bool) and 1 <= stated <= MAX_SANE_LENGTH:
        usable = min(usable, int(stated))
    if usable < 1:
        raise CheckpointError(f"{folder / 'config.json'}: max_position_embeddings leaves no position for a token.")
    return usable


def _activation(written: Mapping[str, object], card: Mapping[str, object]) -> Literal["sigmoid", "identity"]:
    """What turns the logit into the score, read in sentence-transformers' order, with its default for one label."""
    stated = card.get("activation_fn")
    if stated is None:
        nested = written.get("sentence_transformers")
        if isinstance(nested, dict) and "activation_fn" in nested:
            stated = nested["activation_fn"]
        else:
            stated = written.get("sbert_ce_default_activation_function")
    if stated is None:
        return "sigmoid"
    if not isinstance(stated, str) or stated not in _ACTIVATIONS:
        raise CheckpointError(f"activation {stated!r} is not supported. Supported are Sigmoid and Identity.")
    return _ACTIVATIONS[stated]


def _front_matter(path: Path) -> tuple[str | None, tuple[str, ...]]:
    """License and languages from the model card's first lines; only plain values and lists are understood."""
    if not path.is_file():
        return None, ()
    text = read_bytes(path, MAX_CARD_BYTES).decode("utf-8-sig", errors="replace").replace("\r\n", "\n")
    block = re.match(r"---[ \t]*\n(.*?)\n---[ \t]*(?:\n|$)", text, re.DOTALL)
    found: dict[str, list[str]] = {"license": [], "language": []}
    key = ""
    for line in block[1].split("\n") if block else ():
        if entry := re.match(r"([\w-]+):(.*)", line):
            key, values = entry[1], entry[2].split(" #")[0].strip().removeprefix("[").removesuffix("]").split(",")
        elif entry := re.match(r"\s*-\s(.*)", line):
            values = [entry[1].split(" #")[0]]
        else:
            continue
        names = (value.strip().strip("'\"") for value in values)
        found.get(key, []).extend(name for name in names if re.fullmatch(r"[\w.+-]{1,64}", name))
    return next(iter(found["license"]), None), tuple(found["language"])
