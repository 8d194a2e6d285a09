"""Configs, names and shapes of the published models whose graphs are written: DeBERTa-v3, mGTE and JinaBERT.

Nothing of them is in ../shared. Configs are put together from what is public: sizes from their cards, keys from each family's
code and from what others have shown of them; numbers of parameters confirm them.
"""

from collections.abc import Iterator, Mapping

from builders import DEBERTA, GTE, JINA_BERT, Family

MXBAI_XSMALL, MXBAI_BASE, MXBAI_LARGE = (f"mixedbread-ai/mxbai-rerank-{size}-v1" for size in ("xsmall", "base", "large"))
GTE_MULTILINGUAL = "Alibaba-NLP/gte-multilingual-reranker-base"
JINA_TINY, JINA_TURBO = (f"jinaai/jina-reranker-v1-{size}-en" for size in ("tiny", "turbo"))

Shapes = Iterator[tuple[str, tuple[int, ...]]]
_LABEL: dict[str, object] = {"id2label": {"0": "LABEL_0"}, "label2id": {"LABEL_0": 0}}
_DROPOUT: dict[str, object] = {"attention_probs_dropout_prob": 0.1, "hidden_dropout_prob": 0.1, "initializer_range": 0.02}


def _sizes(hidden: int, layers: int, heads: int) -> dict[str, object]:
    return {
        "hidden_size": hidden,
        "intermediate_size": 4 * hidden,
        "num_attention_heads": heads,
        "num_hidden_layers": layers,
    }


_DEBERTA_V3: dict[str, object] = {
    **DEBERTA,
    **_LABEL,
    **_DROPOUT,
    "architectures": ["DebertaV2ForSequenceClassification"],
    "hidden_act": "gelu",
    "max_position_embeddings": 512,
    "model_type": "deberta-v2",
    "pad_token_id": 0,
    "position_buckets": 256,
    "torch_dtype": "float16",
    "vocab_size": 128100,
}
# As others have shown it: no label is declared, and the card's example passes num_labels=1.
_JINA_V1: dict[str, object] = {
    **JINA_BERT,
    **_DROPOUT,
    "architectures": ["JinaBertForSequenceClassification"],
    "classifier_dropout": None,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-12,
    "max_position_embeddings": 8192,
    "pad_token_id": 0,
    "torch_dtype": "bfloat16",
    "type_vocab_size": 2,
    "vocab_size": 61056,
}
CONFIGS: dict[str, dict[str, object]] = {
    MXBAI_XSMALL: _DEBERTA_V3 | _sizes(384, 12, 6) | {"pooler_hidden_size": 384},
    MXBAI_BASE: _DEBERTA_V3 | _sizes(768, 12, 12) | {"pooler_hidden_size": 768},
    MXBAI_LARGE: _DEBERTA_V3 | _sizes(1024, 24, 16) | {"pooler_hidden_size": 1024},
    GTE_MULTILINGUAL: {
        **GTE,
        **_LABEL,
        **_sizes(768, 12, 12),
        "architectures": ["NewForSequenceClassification"],
        "attention_probs_dropout_prob": 0.0,
        "classifier_dropout": 0.0,
        "hidden_act": "gelu",
        "hidden_dropout_prob": 0.1,
        "initializer_range": 0.02,
        "max_position_embeddings": 8192,
        "pad_token_id": 1,
        "torch_dtype": "float16",
        "type_vocab_size": 1,
        "vocab_size": 250048,
    },
    JINA_TINY: _JINA_V1 | _sizes(384, 4, 12),
    JINA_TURBO: _JINA_V1 | _sizes(384, 6, 12),
}
# Those of xsmall and turbo have been published to the last one, the others in millions: 184, 435, 306 and 33.
PARAMETERS: Mapping[str, int] = {
    MXBAI_XSMALL: 70_830_337,
    MXBAI_BASE: 184_422_913,
    MXBAI_LARGE: 435_062_785,
    GTE_MULTILINGUAL: 305_959_681,
    JINA_TINY: 33_046_273,
    JINA_TURBO: 37_771_777,
}
FAMILIES: Mapping[str, Family] = {
    **dict.fromkeys((MXBAI_XSMALL, MXBAI_BASE, MXBAI_LARGE), "deberta-v2"),
    GTE_MULTILINGUAL: "new",
    **dict.fromkeys((JINA_TINY, JINA_TURBO), "jina-bert"),
}
LENGTHS: Mapping[str, int] = dict.fromkeys((GTE_MULTILINGUAL, JINA_TINY, JINA_TURBO), 8192)  # tokens, where not 512


def shapes(family: Family, numbers: Mapping[str, int]) -> Shapes:
    """Names and shapes of the tensors that model.safetensors holds."""
    hidden, inner = numbers["hidden_size"], numbers["intermediate_size"]
    base = {"deberta-v2": "deberta", "new": "new", "jina-bert": "bert"}[family]
    yield f"{base}.embeddings.word_embeddings.weight", (numbers["vocab_size"], hidden)
    yield from _two(f"{base}.embeddings.LayerNorm", hidden)
    if family == "deberta-v2":
        yield "deberta.encoder.rel_embeddings.weight", (2 * numbers["position_buckets"], hidden)
        yield from _two("deberta.encoder.LayerNorm", hidden)
        yield from _two("pooler.dense", hidden, hidden)
    else:
        yield f"{base}.embeddings.token_type_embeddings.weight", (numbers["type_vocab_size"], hidden)
        yield from _two(f"{base}.pooler.dense", hidden, hidden)
    for index in range(numbers["num_hidden_layers"]):
        layer = f"{base}.encoder.layer.{index}"
        if family == "new":
            yield from _two(f"{layer}.attention.qkv_proj", 3 * hidden, hidden)
            yield from _two(f"{layer}.attention.o_proj", hidden, hidden)
            yield f"{layer}.mlp.up_gate_proj.weight", (2 * inner, hidden)
            yield from _two(f"{layer}.mlp.down_proj", hidden, inner)
            yield from _two(f"{layer}.attn_ln", hidden)
            yield from _two(f"{layer}.mlp_ln", hidden)
            continue
        for part in ("query", "key", "value"):
            yield from _two(f"{layer}.attention.self.{part}{'_proj' if family == 'deberta-v2' else ''}", hidden, hidden)
        yield from _two(f"{layer}.attention.output.dense", hidden, hidden)
        yield from _two(f"{layer}.attention.output.LayerNorm", hidden)
        if family == "deberta-v2":
            yield from _two(f"{layer}.intermediate.dense", inner, hidden)
            yield from _two(f"{layer}.output.dense", hidden, inner)
            yield from _two(f"{layer}.output.LayerNorm", hidden)
        else:
            yield f"{layer}.mlp.gated_layers.weight", (2 * inner, hidden)
            yield from _two(f"{layer}.mlp.wo", hidden, inner)
            yield from _two(f"{layer}.mlp.layernorm", hidden)
    yield from _two("classifier", 1, hidden)


def _two(name: str, *shape: int) -> Shapes:
    """Weight and bias."""
    yield f"{name}.weight", shape
    yield f"{name}.bias", shape[:1]
