"""mGTE's encoder, as in gte-multilingual-reranker-base (arXiv:2407.19669): BERT's order of things, with rotary positions.

Query and key are turned by angles that grow with the position; the products' lengths stay, and a score depends on the distance.
The base of the angles is stretched for long texts as in https://kexue.fm/archives/9706: theta * factor, and every angle divided
by factor ** (2 / D). The feed-forward part is gated: down(gelu(gate) * up), the first half of one product being `up`.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from raskrank.reimplemented.parts import Embeddings, Pooler, Scores, attend, in_heads, padding_bias


def rotations(length: int, width: int, theta: float, factor: float) -> tuple[Tensor, Tensor]:
    """Cosine and sine of each position's angles, float32 (length, width / 2) each."""
    exponents = torch.arange(0, width, 2, dtype=torch.float32) / width
    speeds = 1.0 / (theta * factor) ** exponents / factor ** (2 / width)
    angles = torch.outer(torch.arange(length, dtype=torch.float32), speeds)
    return angles.cos(), angles.sin()


def turned(states: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """(B, N, L, D), whose halves are the two coordinates of D / 2 pairs, turned by the angles (L, D / 2)."""
    first, second = states.chunk(2, dim=-1)
    return torch.cat([first * cosine - second * sine, second * cosine + first * sine], dim=-1)


class NewForSequenceClassification(nn.Module):
    """The published name. config: the arguments that `raskrank.checkpoint` reads."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        self.new = _Encoder(config)
        self.classifier = nn.Linear(config["hidden_size"], config["num_labels"])

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None) -> Scores:
        """int64 (B, L) each. token_type_ids: zeros where there are none."""
        return Scores(self.classifier(self.new(input_ids, attention_mask, token_type_ids)))


class _Encoder(nn.Module):
    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        self._width = config["hidden_size"] // config["num_attention_heads"]
        self._theta, self._factor = config["rope_theta"], config["rope_factor"]
        self.embeddings = Embeddings(config)
        self.encoder = nn.ModuleDict({"layer": nn.ModuleList(_Layer(config) for _ in range(config["num_hidden_layers"]))})
        self.pooler = Pooler(config["hidden_size"])

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None) -> Tensor:
        states = self.embeddings(input_ids, token_type_ids)
        angles, bias = rotations(input_ids.shape[1], self._width, self._theta, self._factor), padding_bias(attention_mask)
        for layer in self.encoder["layer"].children():
            states = layer(states, *angles, bias)
        pooled: Tensor = self.pooler(states)
        return pooled


class _Layer(nn.Module):
    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        self.attention, self.mlp = _Attention(config), _Gated(config)
        self.attn_ln, self.mlp_ln = (nn.LayerNorm(config["hidden_size"], eps=config["layer_norm_eps"]) for _ in range(2))

    def forward(self, states: Tensor, cosine: Tensor, sine: Tensor, bias: Tensor) -> Tensor:
        states = self.attn_ln(states + self.attention(states, cosine, sine, bias))
        found: Tensor = self.mlp_ln(states + self.mlp(states))
        return found


class _Attention(nn.Module):
    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        hidden, self._heads = config["hidden_size"], config["num_attention_heads"]
        self.qkv_proj, self.o_proj = nn.Linear(hidden, 3 * hidden), nn.Linear(hidden, hidden)

    def forward(self, states: Tensor, cosine: Tensor, sine: Tensor, bias: Tensor) -> Tensor:
        query, key, value = (in_heads(part, self._heads) for part in self.qkv_proj(states).chunk(3, dim=-1))
        found: Tensor = self.o_proj(attend(turned(query, cosine, sine), turned(key, cosine, sine), value, bias))
        return found


class _Gated(nn.Module):
    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        hidden, inner = config["hidden_size"], config["intermediate_size"]
        self.up_gate_proj, self.down_proj = nn.Linear(hidden, 2 * inner, bias=False), nn.Linear(inner, hidden)

    def forward(self, states: Tensor) -> Tensor:
        up, gate = self.up_gate_proj(states).chunk(2, dim=-1)
        down: Tensor = self.down_proj(nn.functional.gelu(gate) * up)
        return down
