"""Read what a Hugging Face checkpoint says about itself, and refuse what is no cross-encoder. Runs none of its code."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from raskrank.activation import Activation
from raskrank.checkpoint.conversion import Origin, conversion
from raskrank.checkpoint.files import is_file, is_folder, parse_json, read_json, require_utf8
from raskrank.checkpoint.layouts import Layout, recognize
from raskrank.checkpoint.model_card import front_matter
from raskrank.checkpoint.tokenizer_options import check_options, stated_length
from raskrank.checkpoint.weights import SUGGESTION, check_weights
from raskrank.errors import CheckpointError, NotACrossEncoder
from raskrank.quoting import named, quoted

# What read_configuration reads, where it is there.
CONFIGURATION = (
    "config.json",
    "tokenizer_config.json",
    "modules.json",
    "config_sentence_transformers.json",
    "adapter_config.json",
    "README.md",
)

_MODEL_TYPES = {
    "BertForSequenceClassification": "bert",
    "RobertaForSequenceClassification": "roberta",
    "XLMRobertaForSequenceClassification": "xlm-roberta",
}
_ARCHITECTURES = {model_type: architecture for architecture, model_type in _MODEL_TYPES.items()}
# fmt: off
_DECODERS = frozenset({
    "bloom", "falcon", "gemma", "gemma2", "gemma3", "gemma3_text", "gpt2", "gpt_neox", "gptj", "granite", "llama",
    "minicpm", "mistral", "mixtral", "olmo", "opt", "phi", "phi3", "qwen2", "qwen2_moe", "qwen2_vl", "qwen2_5_vl",
    "qwen3", "qwen3_moe", "qwen3_vl", "smollm3",
})
_HEADLESS = ("Model", "ForMaskedLM", "ForPreTraining", "ForTokenClassification", "ForQuestionAnswering")
# As transformers names them; its prelu and xielu have weights of their own.
HIDDEN_ACTIVATIONS = frozenset({
    "gelu", "gelu_10", "gelu_accurate", "gelu_fast", "gelu_new", "gelu_python", "gelu_python_tanh", "gelu_pytorch_tanh",
    "laplace", "leaky_relu", "linear", "mish", "quick_gelu", "relu", "relu2", "relu6", "sigmoid", "silu", "swish", "tanh",
})
# fmt: on
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
# Notes that transformers leaves in a config; none of them chooses code, nor is it read.
_HARMLESS_PRIVATE_KEYS = frozenset({"_name_or_path", "_commit_hash", "_attn_implementation_autoset", "_num_labels"})


@dataclass(frozen=True, kw_only=True)
class Configuration:
    """What a checkpoint's small files say: a cross-encoder with one logit."""

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
    activation: Activation
    license: str | None  # as the model card spells it, "apache-2.0"
    languages: tuple[str, ...]  # as the model card lists them


@dataclass(frozen=True, kw_only=True)
class Checkpoint(Configuration):
    """A folder whose configuration, tokenizer and weights fit together."""

    parameters: int  # of the tensors that the architecture uses


def read_checkpoint(folder: Path, origin: Origin | None = None) -> Checkpoint:
    """Read `folder`'s configuration and safetensors headers; no weights, no code. origin: where it is from, for advice.

    Raises as `read_configuration` does.
    """
    configuration = read_configuration(folder)
    origin = origin or Origin(str(folder))
    if not is_file(folder / "tokenizer.json"):
        raise CheckpointError(f"{origin.name} has no tokenizer.json. {conversion(folder, origin)}")
    parameters = check_weights(folder, configuration.architecture, configuration.config, configuration.layout, origin)
    return Checkpoint(**vars(configuration), parameters=parameters)


def read_configuration(folder: Path) -> Configuration:
    """Read the files of CONFIGURATION in `folder`: all that tells what kind of model it is, and no weights.

    Raises NotACrossEncoder for another kind of model (bi-encoder, causal or listwise, no classification head), and
    CheckpointError for whatever else cannot be exported: files missing or broken, remote code, several labels, ...
    """
    if not is_folder(folder):
        raise CheckpointError(f"{named(folder)} is not a folder. Give the folder that holds the model's config.json.")
    require_utf8(folder)
    if is_file(folder / "adapter_config.json"):
        raise CheckpointError(
            f"{folder} has adapter_config.json: the weights are those of another model, which an adapter changes. Merge the "
            "adapter into its model (merge_and_unload of peft) and save that, then export the folder."
        )
    layout, written = recognize(read_json(folder / "config.json", required=True))
    card = read_json(folder / "config_sentence_transformers.json")
    tokenizer = read_json(folder / "tokenizer_config.json")

    _refuse_other_kinds(folder, written, card)
    _refuse_code(folder / "config.json", written)
    architecture = _architecture(folder / "config.json", written)
    _refuse_unsupported(folder, written, card)
    check_options(folder / "tokenizer_config.json", tokenizer)
    numbers = _numbers(folder / "config.json", written, _MODEL_TYPES[architecture])
    license, languages = front_matter(folder / "README.md")
    return Configuration(
        folder=folder,
        architecture=architecture,
        model_type=_MODEL_TYPES[architecture],
        layout=layout,
        config={
            **numbers,
            "num_labels": 1,
            "hidden_act": _hidden_activation(folder / "config.json", written),
            "position_embedding_type": "absolute",
            "layer_norm_eps": _epsilon(folder / "config.json", written),
        },
        layers=numbers["num_hidden_layers"],
        heads=numbers["num_attention_heads"],
        hidden_size=numbers["hidden_size"],
        vocab_size=numbers["vocab_size"],
        type_vocab_size=numbers["type_vocab_size"],
        max_length=_max_length(folder, architecture, numbers, tokenizer),
        pad_id=numbers["pad_token_id"],
        activation=_activation(folder, written, card),
        license=license,
        languages=languages,
    )


def _refuse_other_kinds(folder: Path, written: Mapping[str, object], card: Mapping[str, object]) -> None:
    """Raise NotACrossEncoder for what computes something else than one score for a pair."""
    names = _names(written)
    kind = str(written.get("model_type", ""))
    if kind in _DECODERS:
        raise NotACrossEncoder(f"{folder} is a causal or listwise reranker ({named(', '.join(names)) or kind}). {SUGGESTION}")
    if not _MODEL_TYPES.keys() & set(names):
        for name in names:
            if name.endswith("ForCausalLM") or name == "JinaForRanking":
                raise NotACrossEncoder(f"{folder} is a causal or listwise reranker ({named(name)}). {SUGGESTION}")
            if name.endswith("ForConditionalGeneration"):
                raise NotACrossEncoder(f"{folder} is a model that generates text ({named(name)}). {SUGGESTION}")
    modules = _module_types(folder / "modules.json")
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
            f"{folder / 'modules.json'} lists {named(', '.join(others))}: only a lone Transformer is supported."
        )


def _module_types(path: Path) -> list[str]:
    """Class names from sentence-transformers' modules.json, "Transformer", "Pooling", ...; empty without the file."""
    modules = parse_json(path) if is_file(path) else []
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
    supported = [name for name in _MODEL_TYPES if name in names]
    if names and not supported:
        raise CheckpointError(f"{path}: {named(', '.join(names))} is not supported. Supported are {', '.join(_MODEL_TYPES)}.")
    if kind is None and len(supported) == 1:
        return supported[0]
    if not isinstance(kind, str) or kind not in _ARCHITECTURES:
        raise CheckpointError(f"{path}: model_type {quoted(kind)} is not supported. Supported are {', '.join(_ARCHITECTURES)}.")
    if supported and all((_MODEL_TYPES[name] == "bert") != (kind == "bert") for name in supported):
        raise CheckpointError(
            f"{path}: model_type {kind!r} does not fit {supported[0]}; expected {_MODEL_TYPES[supported[0]]!r}."
        )
    return _ARCHITECTURES[kind]  # roberta's class computes what xlm-roberta's does


def _numbers(path: Path, written: Mapping[str, object], model_type: str) -> dict[str, int]:
    """The integers that give the model its shape, with transformers' defaults."""
    numbers: dict[str, int] = {}
    written = {**written}
    if model_type == "bert" and written.get("pad_token_id", 0) is None:
        written["pad_token_id"] = 0  # BERT computes the same without; RoBERTa's kinds count positions from it
    for key, default, least in (
        ("vocab_size", 50265 if model_type == "roberta" else 30522, 1),
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
            raise CheckpointError(f"{path}: {key} must be an integer of at least {least}, got {quoted(value)}.")
        numbers[key] = value
    if numbers["pad_token_id"] >= numbers["vocab_size"]:
        raise CheckpointError(
            f"{path}: pad_token_id {quoted(numbers['pad_token_id'])} is no token of a vocabulary of "
            f"{quoted(numbers['vocab_size'])}."
        )
    if numbers["hidden_size"] % numbers["num_attention_heads"]:
        raise CheckpointError(
            f"{path}: hidden_size {quoted(numbers['hidden_size'])} is no multiple of "
            f"{quoted(numbers['num_attention_heads'])} heads."
        )
    return numbers


def _epsilon(path: Path, written: Mapping[str, object]) -> float:
    value = written.get("layer_norm_eps", 1e-12)
    if not isinstance(value, float | int) or isinstance(value, bool) or not 0 < value < 1:
        raise CheckpointError(f"{path}: layer_norm_eps must lie between 0 and 1, got {quoted(value)}.")
    return float(value)


def _hidden_activation(path: Path, written: Mapping[str, object]) -> str:
    value = written.get("hidden_act", "gelu")
    if not isinstance(value, str) or value not in HIDDEN_ACTIVATIONS:
        raise CheckpointError(
            f"{path}: hidden_act {quoted(value)} is not supported. Supported are {', '.join(sorted(HIDDEN_ACTIVATIONS))}."
        )
    return value


def _refuse_unsupported(folder: Path, written: Mapping[str, object], card: Mapping[str, object]) -> None:
    path = folder / "config.json"
    # As in transformers, id2label goes before num_labels, and without either there are two.
    labels = written.get("id2label")
    if labels is not None and not isinstance(labels, dict):
        raise CheckpointError(f"{path}: id2label must be an object, got {quoted(labels)}.")
    count = written.get("num_labels") if labels is None else len(labels)
    if count is None:
        count = 2
    if count != 1 or not isinstance(count, int) or isinstance(count, bool):
        raise CheckpointError(f"{path}: the head has {quoted(count)} labels. A reranker has one (num_labels 1).")
    if written.get("position_embedding_type", "absolute") != "absolute":
        value = quoted(written["position_embedding_type"])
        raise CheckpointError(f"{path}: position_embedding_type {value} is not supported, only 'absolute'.")
    for key in ("is_decoder", "add_cross_attention", "pruned_heads", "quantization_config"):
        if written.get(key):
            raise CheckpointError(f"{path}: {key} is set, which is not supported.")
    if card.get("default_prompt_name") is not None:
        raise CheckpointError(f"{folder / 'config_sentence_transformers.json'}: a default prompt is not supported.")


def _max_length(folder: Path, architecture: str, numbers: Mapping[str, int], tokenizer: Mapping[str, object]) -> int:
    """Tokens that fit. RoBERTa's kinds count positions from the one after the padding id."""
    reserved = 0 if architecture.startswith("Bert") else numbers["pad_token_id"] + 1
    usable = numbers["max_position_embeddings"] - reserved
    if (stated := stated_length(folder / "tokenizer_config.json", tokenizer)) is not None:
        usable = min(usable, stated)
    if usable < 1:
        raise CheckpointError(f"{folder / 'config.json'}: max_position_embeddings leaves no position for a token.")
    return usable


def _activation(folder: Path, written: Mapping[str, object], card: Mapping[str, object]) -> Activation:
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
        raise CheckpointError(
            f"{folder}: the score's activation {quoted(stated)} is not supported. Supported are those of "
            f"{', '.join(get_args(Activation))}, in torch.nn: they keep the order of the logits."
        )
    return _ACTIVATIONS[stated]
