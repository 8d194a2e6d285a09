"""A head that sentence-transformers keeps in modules of its own beside the encoder: read from their files, never run.

modules.json lists them: Transformer, Pooling, then Dense and LayerNorm up to one score. Each has a folder with its config.json,
and model.safetensors where it has weights.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from raskrank.checkpoint.files import is_file, parse_json, read_json
from raskrank.checkpoint.suggestion import unsupported
from raskrank.errors import CheckpointError
from raskrank.quoting import named, quoted

MODULES, ENCODER_OPTIONS = "modules.json", "sentence_bert_config.json"
NORM_EPSILON = 1e-5  # of sentence-transformers' LayerNorm, which does not save it
SCORES = "scores"  # what a cross-encoder's last module calls its output
_VECTOR = "sentence_embedding"

Pooling = Literal["cls", "mean"]
DenseActivation = Literal["gelu", "identity", "relu", "sigmoid", "silu", "tanh"]
_ACTIVATIONS: Mapping[str, DenseActivation] = {
    "torch.nn.modules.activation.GELU": "gelu",
    "torch.nn.modules.linear.Identity": "identity",
    "torch.nn.modules.activation.ReLU": "relu",
    "torch.nn.modules.activation.Sigmoid": "sigmoid",
    "torch.nn.modules.activation.SiLU": "silu",
    "torch.nn.modules.activation.Tanh": "tanh",
}
# How sentence-transformers before 5.4 wrote pooling_mode: true for what is pooled.
_OLDER_POOLING = "pooling_mode_"
_OLDER_NAMES = {"cls_token": "cls", "mean_tokens": "mean"}


@dataclass(frozen=True, kw_only=True)
class Dense:
    """activation(x W^T + b): from `inputs` to `outputs` values."""

    folder: str  # in the checkpoint's, where its weights lie
    inputs: int
    outputs: int
    bias: bool
    activation: DenseActivation


@dataclass(frozen=True, kw_only=True)
class Norm:
    """Layer normalization with weight and bias of `size` values."""

    folder: str
    size: int


@dataclass(frozen=True, kw_only=True)
class Head:
    """What makes one logit of the encoder's last states, in order."""

    pooling: Pooling
    modules: tuple[Dense | Norm, ...]

    def tensors(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        """Folder and name of each tensor, "2_Dense/linear.weight", and its shape."""
        for module in self.modules:
            if isinstance(module, Norm):
                yield f"{module.folder}/norm.weight", (module.size,)
                yield f"{module.folder}/norm.bias", (module.size,)
                continue
            yield f"{module.folder}/linear.weight", (module.outputs, module.inputs)
            if module.bias:
                yield f"{module.folder}/linear.bias", (module.outputs,)


def module_types(folder: Path) -> list[str]:
    """Class names in modules.json, "Transformer", "Pooling", ...; empty without the file."""
    return [kind.rpartition(".")[2] for kind, _ in _listed(folder / MODULES)]


def module_folders(folder: Path) -> list[str]:
    """Folders of the modules behind the encoder. Raises CheckpointError for a path that is no plain name."""
    folders = [path for _, path in _listed(folder / MODULES)[1:]]
    for path in folders:
        if not re.fullmatch(r"\w[\w.-]{0,63}", path):
            raise CheckpointError(f"{folder / MODULES} is not valid: {quoted(path)} is not the name of a folder beside it.")
    return folders


def weights_files(folder: Path) -> list[Path]:
    """The safetensors of a checkpoint in order of name; those of modules behind the encoder come last."""
    files = [folder / name / "model.safetensors" for name in module_folders(folder)]
    return sorted(folder.glob("*.safetensors")) + [file for file in files if is_file(file)]


def has_head(folder: Path, card: Mapping[str, object]) -> bool:
    """Whether the folder was saved as a CrossEncoder with modules behind its encoder, and not as a bi-encoder.

    card: config_sentence_transformers.json, {} where there is none.
    """
    kinds = module_types(folder)
    return card.get("model_type") == "CrossEncoder" and kinds[:2] == ["Transformer", "Pooling"]


def stated_length(folder: Path) -> int | None:
    """The longest input that the encoder's module allows; None where it says nothing. Raises CheckpointError."""
    path = folder / ENCODER_OPTIONS
    values = read_json(path)
    if values.get("do_lower_case"):
        raise CheckpointError(
            f"{path}: do_lower_case is set, which is not supported: it changes texts before the tokenizer. Set it to false, "
            "and give texts in lower case."
        )
    length = values.get("max_seq_length")
    if length is not None and (not isinstance(length, int) or isinstance(length, bool) or length < 1):
        raise CheckpointError(f"{path}: max_seq_length must be a number of tokens, got {quoted(length)}.")
    return length


def read_head(folder: Path, hidden_size: int) -> Head:
    """The head of a folder that has one. Raises CheckpointError for whatever is not computed here as its modules do."""
    for kind, _ in _listed(folder / MODULES):
        if not kind.startswith("sentence_transformers."):
            raise unsupported(f"{folder / MODULES} lists {named(kind)}: it would need code of its own, which is never run.")
    kinds, folders = module_types(folder), module_folders(folder)
    pooling = _pooling(folder / folders[0], hidden_size)
    width, modules, output = hidden_size, list[Dense | Norm](), _VECTOR
    for kind, name in zip(kinds[2:], folders[1:], strict=True):
        config = folder / name / "config.json"
        values = read_json(config, required=True)
        if output != _VECTOR:
            raise unsupported(f"{folder / MODULES}: {named(name)} comes after the module that gives the scores.")
        if kind == "Dense":
            dense = _dense(config, values, name, width)
            modules.append(dense)
            width, output = dense.outputs, str(values.get("module_output_name") or _VECTOR)
        elif kind == "LayerNorm":
            _expect(config, values, "dimension", width)
            modules.append(Norm(folder=name, size=width))
        else:
            raise unsupported(
                f"{folder / MODULES} lists {named(kind)}, which is not supported behind the pooling: only Dense and LayerNorm."
            )
    if output != SCORES or width != 1:
        raise unsupported(
            f"{folder / MODULES}: its modules give {width} values under the name {quoted(output)}. A reranker's give one, "
            f"under {SCORES!r}."
        )
    return Head(pooling=pooling, modules=tuple(modules))


def _listed(path: Path) -> list[tuple[str, str]]:
    """Class, with the module that it is in, and folder of each module."""
    modules = parse_json(path) if is_file(path) else []
    if not isinstance(modules, list) or not all(isinstance(module, dict) for module in modules):
        raise CheckpointError(f"{path} is not valid: a list of objects was expected.")
    return [(str(module.get("type")), str(module.get("path", ""))) for module in modules]


def _pooling(folder: Path, hidden_size: int) -> Pooling:
    config = folder / "config.json"
    values = read_json(config, required=True)
    size = "embedding_dimension" if "embedding_dimension" in values else "word_embedding_dimension"
    _expect(config, values, size, hidden_size)
    mode = values.get("pooling_mode")
    if mode is None:
        active = [key.removeprefix(_OLDER_POOLING) for key in values if key.startswith(_OLDER_POOLING) and values[key]]
        mode = _OLDER_NAMES.get(active[0], active[0]) if len(active) == 1 else active or "mean"
    if mode == "cls":
        return "cls"
    if mode == "mean":
        return "mean"
    raise unsupported(f"{config}: pooling_mode {quoted(mode)} is not supported, only 'cls' and 'mean'.")


def _dense(config: Path, values: Mapping[str, object], name: str, width: int) -> Dense:
    _expect(config, values, "in_features", width)
    outputs, bias, activation = values.get("out_features"), values.get("bias", True), values.get("activation_function")
    if not isinstance(outputs, int) or isinstance(outputs, bool) or outputs < 1:
        raise CheckpointError(f"{config}: out_features must be an integer of at least 1, got {quoted(outputs)}.")
    if not isinstance(bias, bool):
        raise CheckpointError(f"{config}: bias must be true or false, got {quoted(bias)}.")
    if activation is None:
        activation = "torch.nn.modules.activation.Tanh"
    if not isinstance(activation, str) or activation not in _ACTIVATIONS:
        raise unsupported(
            f"{config}: activation_function {quoted(activation)} is not supported. Supported are {', '.join(_ACTIVATIONS)}."
        )
    if values.get("use_residual"):
        raise unsupported(f"{config}: use_residual is set, which is not supported.")
    _expect(config, {"module_input_name": _VECTOR, **values}, "module_input_name", _VECTOR)
    return Dense(folder=name, inputs=width, outputs=outputs, bias=bias, activation=_ACTIVATIONS[activation])


def _expect(config: Path, values: Mapping[str, object], key: str, expected: object) -> None:
    if values.get(key) != expected:
        raise CheckpointError(f"{config}: {key} must be {expected!r} here, got {quoted(values.get(key))}.")
