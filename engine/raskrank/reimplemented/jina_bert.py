"""JinaBERT, as in jina-reranker-v1 (arXiv:2310.19923): BERT without positions, whose scores fall with the distance of tokens.

What is added to a score is -slope * |i - j|, with a slope for each head (ALiBi, arXiv:2108.12409, in both directions). The
feed-forward part is gated: wo(gelu(gate) * rest), the first half of one product being `gate`.
"""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from raskrank.reimplemented.parts import Embeddings, Pooler, Scores, attend, in_heads, padding_bias


def slopes(heads: int) -> list[float]:
    """Of each head: a geometric series down to 2 ** -8.

    Where their number is no power of two, that of the power below it, and then every other one of the power above.
    """
    below = 2 ** math.floor(math.log2(heads))
    series = [2 ** (-8 * (index + 1) / below) for index in range(below)]
    return series + [2 ** (-8 * (index + 1) / (2 * below)) for index in range(0, 2 * (heads - below), 2)]


class JinaBertForSequenceClassification(nn.Module):
    """The published name. config: the arguments that `raskrank.checkpoint` reads."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        self.bert = _Encoder(config)
        self.classifier = nn.Linear(config["hidden_size"], config["num_labels"])

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None) -> Scores:
        """int64 (B, L) each. token_type_ids: zeros where there are none."""
        return Scores(self.classifier(self.bert(input_ids, attention_mask, token_type_ids)))


class _Encoder(nn.Module):
    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        self._heads = config["num_attention_heads"]
        self.embeddings = Embeddings(config)
        self.encoder = nn.ModuleDict({"layer": nn.ModuleList(_Layer(config) for _ in range(config["num_hidden_layers"]))})
        self.pooler = Pooler(config["hidden_size"])

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None) -> Tensor:
        states, places = self.embeddings(input_ids, token_type_ids), torch.arange(input_ids.shape[1])
        distances = (places[:, None] - places).abs()  # (L, L)
        bias = padding_bias(attention_mask) - torch.tensor(slopes(self._heads))[:, None, None] * distances  # (B, N, L, L)
        for layer in self.encoder["layer"].children():
            states = layer(states, bias)
        pooled: Tensor = self.pooler(states)
        return pooled


class _Layer(nn.Module):
    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        self.attention = nn.ModuleDict({"self": _Attention(config), "output": _Output(config)})
        self.mlp = _Gated(config)

    def forward(self, states: Tensor, bias: Tensor) -> Tensor:
        states = self.attention["output"](self.attention["self"](states, bias), states)
        found: Tensor = self.mlp(states)
        return found


class _Attention(nn.Module):
    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        hidden, self._heads = config["hidden_size"], config["num_attention_heads"]
        self.query, self.key, self.value = (nn.Linear(hidden, hidden) for _ in range(3))

    def forward(self, states: Tensor, bias: Tensor) -> Tensor:
        query, key, value = (in_heads(product(states), self._heads) for product in (self.query, self.key, self.value))
        return attend(query, key, value, bias)


class _Output(nn.Module):
    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        self.dense = nn.Linear(config["hidden_size"], config["hidden_size"])
        self.LayerNorm = nn.LayerNorm(config["hidden_size"], eps=config["layer_norm_eps"])

    def forward(self, found: Tensor, states: Tensor) -> Tensor:
        normalized: Tensor = self.LayerNorm(self.dense(found) + states)
        return normalized


class _Gated(nn.Module):
    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        hidden, inner = config["hidden_size"], config["intermediate_size"]
        self.gated_layers, self.wo = nn.Linear(hidden, 2 * inner, bias=False), nn.Linear(inner, hidden)
        self.layernorm = nn.LayerNorm(hidden, eps=config["layer_norm_eps"])

    def forward(self, states: Tensor) -> Tensor:
        gate, rest = self.gated_layers(states).chunk(2, dim=-1)
        normalized: Tensor = self.layernorm(self.wo(nn.functional.gelu(gate) * rest) + states)
        return normalized
