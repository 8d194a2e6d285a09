"""What the encoders of this package share. Shapes: B pairs, L tokens, N heads of width D, H = N * D."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn


class Scores(NamedTuple):
    """logits: (B, 1)."""

    logits: Tensor


class Embeddings(nn.Module):
    """Of words and types, normalized; of positions there is none."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        hidden = config["hidden_size"]
        self.word_embeddings = nn.Embedding(config["vocab_size"], hidden)
        self.token_type_embeddings = nn.Embedding(config["type_vocab_size"], hidden)
        self.LayerNorm = nn.LayerNorm(hidden, eps=config["layer_norm_eps"])

    def forward(self, input_ids: Tensor, token_type_ids: Tensor | None) -> Tensor:
        types = torch.zeros_like(input_ids) if token_type_ids is None else token_type_ids
        states: Tensor = self.LayerNorm(self.word_embeddings(input_ids) + self.token_type_embeddings(types))
        return states


class Pooler(nn.Module):
    """BERT's: dense and tanh of the first token."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.dense = nn.Linear(hidden, hidden)

    def forward(self, states: Tensor) -> Tensor:
        """(B, L, H) -> (B, H)"""
        pooled: Tensor = torch.tanh(self.dense(states[:, 0]))
        return pooled


def in_heads(states: Tensor, heads: int) -> Tensor:
    """(B, L, H) -> (B, N, L, D)"""
    batch, length, hidden = states.shape
    return states.view(batch, length, heads, hidden // heads).transpose(1, 2)


def attend(query: Tensor, key: Tensor, value: Tensor, bias: Tensor) -> Tensor:
    """softmax(query @ key / sqrt(D) + bias) @ value, heads side by side: (B, L, H). Arguments but for the bias (B, N, L, D)."""
    scores = query @ key.transpose(-1, -2) / key.shape[-1] ** 0.5 + bias  # (B, N, L, L)
    found: Tensor = (scores.softmax(dim=-1) @ value).transpose(1, 2).flatten(-2)
    return found


def padding_bias(attention_mask: Tensor) -> Tensor:
    """(B, L) of ones, and zeros for padding, as what is added to scores: (B, 1, 1, L)."""
    return torch.zeros(attention_mask.shape).masked_fill(attention_mask == 0, float("-inf"))[:, None, None, :]
