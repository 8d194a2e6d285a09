"""Read what a Hugging Face checkpoint says about itself, and refuse what is no cross-encoder. Runs none of its code."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from raskrank.activation import Activation
from raskrank.checkpoint import modules
from raskrank.checkpoint.conversion import Origin, conversion
from raskrank.checkpoint.families import OF_ARCHITECTURE, Family
from raskrank.checkpoint.files import is_file, is_folder, read_json, require_integer, require_utf8
from raskrank.checkpoint.kinds import architecture_of
from raskrank.checkpoint.labels import Relevant, read_labels
from raskrank.checkpoint.layouts import Layout, recognize
from raskrank.checkpoint.model_card import front_matter
from raskrank.checkpoint.modules import NORM_EPSILON, Head
from raskrank.checkpoint.score import activation_of
from raskrank.checkpoint.suggestion import unsupported
from raskrank.checkpoint.tokenizer_options import check_options, has_tokenizer, stated_length
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

# Of ALBERT, whose layers share their tensors, so that these do not tell how many there are. The largest published has 12.
MAX_SHARED_LAYERS = 100
# fmt: off
# As transformers names them; its prelu and xielu have weights of their own.
HIDDEN_ACTIVATIONS = frozenset({
    "gelu", "gelu_10", "gelu_accurate", "gelu_fast", "gelu_new", "gelu_python", "gelu_python_tanh", "gelu_pytorch_tanh",
    "laplace", "leaky_relu", "linear", "mish", "quick_gelu", "relu", "relu2", "relu6", "sigmoid", "silu", "swish", "tanh",
})
# fmt: on


@dataclass(frozen=True, kw_only=True)
class Configuration:
    """What a checkpoint's small files say: a cross-encoder with one logit, or two."""

    folder: Path
    architecture: str  # "BertForSequenceClassification"
    model_type: str  # "bert", "xlm-roberta", "electra", ...: of FAMILIES
    layout: Layout  # what its tensors are called
    config: Mapping[str, object]  # known keys only, defaults filled: the arguments of transformers' config class
    numbers: Mapping[str, int]  # the integers among them under BERT's names
    hidden_act: str
    epsilon: float  # of every LayerNorm of the encoder
    relevant: Relevant | None  # of two labels; None where there is one
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
    def shape(self) -> Mapping[str, object]:
        """What its tensors and their shapes follow from."""
        return {**self.config, **self.numbers}

    @property
    def epsilons(self) -> frozenset[float]:
        """What its layer normalizations add."""
        return frozenset({self.epsilon} if self.head is None else {self.epsilon, NORM_EPSILON})


@dataclass(frozen=True, kw_only=True)
class Checkpoint(Configuration):
    """A folder whose configuration, tokenizer and weights fit together."""

    parameters: int  # of the tensors that the architecture uses


def read_checkpoint(folder: Path, origin: Origin | None = None, relevant_label: str | int | None = None) -> Checkpoint:
    """Read `folder`'s configuration and safetensors headers; no weights, no code. origin: where it is from, for advice.

    relevant_label: of two labels, the name or the index of the one that means relevant. Raises as `read_configuration` does.
    """
    configuration = read_configuration(folder, relevant_label)
    origin = origin or Origin(str(folder))
    family = OF_ARCHITECTURE[configuration.architecture]
    if not has_tokenizer(folder, family):
        names = f", nor {' and '.join(family.vocabulary)}" if family.vocabulary else ""
        raise CheckpointError(f"{origin.name} has no tokenizer.json{names}. {conversion(folder, origin)}")
    parameters = check_weights(
        folder, configuration.architecture, configuration.shape, configuration.layout, origin, configuration.head
    )
    return Checkpoint(**vars(configuration), parameters=parameters)


def read_configuration(folder: Path, relevant_label: str | int | None = None) -> Configuration:
    """Read the files of CONFIGURATION in `folder`: all that tells what kind of model it is, and no weights.

    relevant_label: as for `read_checkpoint`. Raises NotACrossEncoder for another kind of model (bi-encoder, causal or listwise,
    no classification head), CheckpointError for whatever else cannot be exported (files missing or broken, remote code, several
    labels, ...), and InputError for a label that is not there.
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

    family = OF_ARCHITECTURE[architecture_of(folder, written, card)]
    check_options(folder / "tokenizer_config.json", tokenizer)
    path = folder / "config.json"
    relevant = _labels(path, written, family, relevant_label)
    numbers = _numbers(path, written, family) | {"num_labels": 1 if relevant is None else 2}
    hidden_act, epsilon = _hidden_activation(path, written, family), _epsilon(path, written, family)
    head = modules.read_head(folder, numbers["hidden_size"]) if family.modular else None
    license, languages = front_matter(folder / "README.md")
    return Configuration(
        folder=folder,
        architecture=family.architecture,
        model_type=family.model_type,
        layout=layout,
        config=_arguments(family, numbers, hidden_act, epsilon)
        | (family.arguments(path, written, numbers) if family.arguments else {}),
        numbers=numbers,
        hidden_act=hidden_act,
        epsilon=epsilon,
        relevant=relevant,
        layers=numbers["num_hidden_layers"],
        heads=numbers["num_attention_heads"],
        hidden_size=numbers["hidden_size"],
        vocab_size=numbers["vocab_size"],
        type_vocab_size=numbers.get("type_vocab_size", 1),
        max_length=_max_length(folder, family, numbers, tokenizer, head),
        pad_id=numbers["pad_token_id"],
        activation=activation_of(folder, written, card, relevant),
        license=license,
        languages=languages,
        head=head,
    )


def _arguments(family: Family, numbers: Mapping[str, int], hidden_act: str, epsilon: float) -> dict[str, object]:
    """What transformers' config class of the family is called with."""
    arguments: dict[str, object] = {
        **numbers,
        "hidden_act": hidden_act,
        "position_embedding_type": "absolute",
        "layer_norm_eps": epsilon,
    }
    left_out = family.lacks | ({"layer_norm_eps"} if family.epsilon is not None else set())
    return {family.spelled(name): value for name, value in arguments.items() if name not in left_out}


def _labels(path: Path, written: Mapping[str, object], family: Family, relevant_label: str | int | None) -> Relevant | None:
    """As `read_labels`; the config of an encoder with a head in modules says nothing of labels."""
    return read_labels(path, {"num_labels": 1} if family.modular else written, relevant_label)


def _numbers(path: Path, written: Mapping[str, object], family: Family) -> dict[str, int]:
    """The integers that give the model its shape, with transformers' defaults, under BERT's names."""
    written = {**written}
    if family.reserved_positions is not None and written.get("pad_token_id", 0) is None:
        written["pad_token_id"] = 0  # they compute the same without; RoBERTa's kinds count positions from it
    numbers: dict[str, int] = {}
    for name, default, least in (
        ("vocab_size", 30522, 1),
        ("hidden_size", 768, 1),
        ("num_hidden_layers", 12, 1),
        ("num_attention_heads", 12, 1),
        ("intermediate_size", 3072, 1),
        ("max_position_embeddings", 512, 1),
        ("type_vocab_size", 2, 1),
        ("pad_token_id", 0, 0),
        *((name, default, 1) for name, default in family.further.items()),
    ):
        if name in family.lacks:
            continue
        key = family.spelled(name)
        numbers[name] = require_integer(path, written, key, default=family.defaults.get(name, default), least=least)
    if numbers["pad_token_id"] >= numbers["vocab_size"]:
        raise CheckpointError(
            f"{path}: pad_token_id {quoted(numbers['pad_token_id'])} is no token of a vocabulary of "
            f"{quoted(numbers['vocab_size'])}."
        )
    if numbers["hidden_size"] % numbers["num_attention_heads"]:
        raise CheckpointError(
            f"{path}: {family.spelled('hidden_size')} {quoted(numbers['hidden_size'])} is no multiple of "
            f"{quoted(numbers['num_attention_heads'])} heads."
        )
    if family.rotary and numbers["hidden_size"] // numbers["num_attention_heads"] % 2:
        raise unsupported(f"{path}: heads of an odd width cannot be turned by their positions.")
    if "num_hidden_groups" in numbers and not numbers["num_hidden_groups"] <= numbers["num_hidden_layers"] <= MAX_SHARED_LAYERS:
        raise CheckpointError(
            f"{path}: num_hidden_layers {quoted(numbers['num_hidden_layers'])} must lie between num_hidden_groups, "
            f"{quoted(numbers['num_hidden_groups'])}, and {MAX_SHARED_LAYERS}."
        )
    return numbers


def _epsilon(path: Path, written: Mapping[str, object], family: Family) -> float:
    if family.epsilon is not None:
        return family.epsilon
    key = family.spelled("layer_norm_eps")
    value = written.get(key, family.default_epsilon)
    if not isinstance(value, float | int) or isinstance(value, bool) or not 0 < value < 1:
        raise CheckpointError(f"{path}: {key} must lie between 0 and 1, got {quoted(value)}.")
    return float(value)


def _hidden_activation(path: Path, written: Mapping[str, object], family: Family) -> str:
    key = family.spelled("hidden_act")
    value = written.get(key, family.hidden_act)
    if not isinstance(value, str) or value not in HIDDEN_ACTIVATIONS:
        known = ", ".join(sorted(HIDDEN_ACTIVATIONS))
        raise unsupported(f"{path}: {key} {quoted(value)} is not supported. Supported are {known}.")
    return value


def _max_length(
    folder: Path, family: Family, numbers: Mapping[str, int], tokenizer: Mapping[str, object], head: Head | None
) -> int:
    """Tokens that fit. RoBERTa's kinds count positions from the one after the padding id."""
    reserved = numbers["pad_token_id"] + 1 if family.reserved_positions is None else family.reserved_positions
    usable = numbers["max_position_embeddings"] - reserved
    stated = stated_length(folder / "tokenizer_config.json", tokenizer)
    allowed = modules.stated_length(folder) if head else None
    usable = min([usable, *(length for length in (stated, allowed) if length is not None)])
    if usable < 1:
        raise CheckpointError(f"{folder / 'config.json'}: max_position_embeddings leaves no position for a token.")
    return usable
