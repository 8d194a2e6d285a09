"""A head from sentence-transformers' modules in PyTorch, after their documentation. None of their code is run."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from raskrank.checkpoint.modules import NORM_EPSILON, Dense, DenseActivation, Head, Norm

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module

_ACTIVATIONS: Mapping[DenseActivation, str] = {  # in torch.nn
    "gelu": "GELU",  # exact
    "identity": "Identity",
    "relu": "ReLU",
    "sigmoid": "Sigmoid",
    "silu": "SiLU",
    "tanh": "Tanh",
}


class Output(NamedTuple):
    """As transformers' classifiers give it."""

    logits: "Tensor"  # (B, 1)


def with_head(encoder: "Module", folder: Path, head: Head) -> "Module":
    """The encoder of transformers with the head whose weights lie in `folder`, float32. Raises what reading those raises."""
    from torch import nn

    class EncoderWithHead(nn.Module):
        """What pools the encoder's last states, and the modules that make one logit of that."""

        def __init__(self) -> None:
            super().__init__()
            self.encoder = encoder
            self.head = nn.Sequential(*(module for described in head.modules for module in _modules(described, folder)))

        def forward(self, input_ids: "Tensor", attention_mask: "Tensor") -> Output:
            """Of ids and mask, both (B, L); the mask is 0 where a row is padded, which it is at its end."""
            states = self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state  # (B, L, H)
            if head.pooling == "cls":
                return Output(self.head(states[:, 0]))
            mask = attention_mask[..., None].to(states.dtype)
            return Output(self.head((states * mask).sum(dim=1) / mask.sum(dim=1)))

    return EncoderWithHead()


def _modules(described: Dense | Norm, folder: Path) -> "list[Module]":
    import torch
    from safetensors.torch import load_file
    from torch import nn

    weights = load_file(folder / described.folder / "model.safetensors")

    def filled(module: "Module", name: str) -> "Module":
        module.load_state_dict({key.removeprefix(f"{name}."): value.to(torch.float32) for key, value in weights.items()})
        return module

    if isinstance(described, Norm):
        return [filled(nn.LayerNorm(described.size, eps=NORM_EPSILON), "norm")]
    linear = filled(nn.Linear(described.inputs, described.outputs, bias=described.bias), "linear")
    return [linear, getattr(nn, _ACTIVATIONS[described.activation])()]
