"""Read what a Hugging Face checkpoint says about itself, and refuse what is no cross-encoder. Runs none of its code."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from raskrank.activation import Activation
from raskrank.checkpoint import modernbert, modules
from raskrank.checkpoint.conversion import Origin, conversion
from raskrank.checkpoint.files import is_file, is_folder, read_json, require_integers, require_utf8
from raskrank.checkpoint.kinds import ENCODER_TYPES, MODEL_TYPES, architecture_of
from raskrank.checkpoint.layouts import Layout, recognize
from raskrank.checkpoint.model_card import front_matter
from raskrank.checkpoint.modules import NORM_EPSILON, Head
from raskrank.checkpoint.tokenizer_options import check_options, stated_length
from raskrank.checkpoint.weights import check_weights
from raskrank.errors import CheckpointError
from raskrank.quoting import named, quoted

# What read_configuration reads, where it is there.
CONFIGURATION = (
    "config.json",
    "tokenizer_config.json",
    modules.MODULES,
    modules.ENCODER_OPTIONS,
    "config_sentence_transformers.json",
    "adapter_config.json",
    "README.md",
)

# fmt: off
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


@dataclass(frozen=True, kw_only=True)
class Configuration:
    """What a checkpoint's small files say: a cross-encoder with one logit."""

    folder: Path
    architecture: str  # "BertForSequenceClassification"
    model_type: str  # "bert", "roberta", "xlm-roberta" or "modernbert"
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
    head: Head | None = None  # behind the encoder, where it lies in modules of sentence-transformers

    @property
    def hidden_act(self) -> str:
        """The activation of its layers, as transformers names it."""
        return str(self.config.get("hidden_activation", self.config.get("hidden_act")))

    @property
    def epsilons(self) -> frozenset[float]:
        """What its layer normalizations add."""
        own = float(str(self.config.get("norm_eps", self.config.get("layer_norm_eps"))))
        return frozenset({own} if self.head is None else {own, NORM_EPSILON})


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
    parameters = check_weights(
        folder, configuration.architecture, configuration.config, configuration.layout, origin, configuration.head
    )
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

    architecture = architecture_of(folder, written, card)
    check_options(folder / "tokenizer_config.json", tokenizer)
    model_type = (MODEL_TYPES | ENCODER_TYPES)[architecture]
    numbers = _numbers(folder / "config.json", written, model_type)
    config = _config(folder / "config.json", written, model_type, numbers)
    head = modules.read_head(folder, numbers["hidden_size"]) if architecture in ENCODER_TYPES else None
    license, languages = front_matter(folder / "README.md")
    return Configuration(
        folder=folder,
        architecture=architecture,
        model_type=model_type,
        layout=layout,
        config=config,
        layers=numbers["num_hidden_layers"],
        heads=numbers["num_attention_heads"],
        hidden_size=numbers["hidden_size"],
        vocab_size=numbers["vocab_size"],
        type_vocab_size=numbers.get("type_vocab_size", 1),
        max_length=_max_length(folder, model_type, numbers, tokenizer, head),
        pad_id=numbers["pad_token_id"],
        activation=_activation(folder, written, card),
        license=license,
        languages=languages,
        head=head,
    )


def _config(path: Path, written: Mapping[str, object], model_type: str, numbers: Mapping[str, int]) -> Mapping[str, object]:
    """The arguments of transformers' config class."""
    if model_type == modernbert.MODEL_TYPE:
        return modernbert.read_config(path, written, numbers)
    return {
        **numbers,
        "num_labels": 1,
        "hidden_act": _hidden_activation(path, written),
        "position_embedding_type": "absolute",
        "layer_norm_eps": _epsilon(path, written),
    }


def _numbers(path: Path, written: Mapping[str, object], model_type: str) -> dict[str, int]:
    """The integers that give the model its shape, with transformers' defaults."""
    written = {**written}
    if model_type == "bert" and written.get("pad_token_id", 0) is None:
        written["pad_token_id"] = 0  # BERT computes the same without; RoBERTa's kinds count positions from it
    if model_type == modernbert.MODEL_TYPE:
        numbers = modernbert.read_numbers(path, written)
    else:
        numbers = require_integers(
            path,
            written,
            vocab_size=(50265 if model_type == "roberta" else 30522, 1),
            hidden_size=(768, 1),
            num_hidden_layers=(12, 1),
            num_attention_heads=(12, 1),
            intermediate_size=(3072, 1),
            max_position_embeddings=(512, 1),
            type_vocab_size=(2, 1),
            pad_token_id=(0 if model_type == "bert" else 1, 0),
        )
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


def _max_length(
    folder: Path, model_type: str, numbers: Mapping[str, int], tokenizer: Mapping[str, object], head: Head | None
) -> int:
    """Tokens that fit. RoBERTa's kinds count positions from the one after the padding id."""
    reserved = numbers["pad_token_id"] + 1 if model_type in ("roberta", "xlm-roberta") else 0
    stated = stated_length(folder / "tokenizer_config.json", tokenizer)
    allowed = modules.stated_length(folder) if head else None
    usable = min(
        [numbers["max_position_embeddings"] - reserved, *(length for length in (stated, allowed) if length is not None)]
    )
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
