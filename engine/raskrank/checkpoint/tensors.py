"""The tensors of each family's classifier, as transformers names them, with their shapes."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from raskrank.checkpoint import modernbert
from raskrank.checkpoint.families import OF_ARCHITECTURE, Tensors
from raskrank.checkpoint.modules import Head

Shapes = Iterator[tuple[str, tuple[int, ...]]]
Numbers = Mapping[str, Any]


def expected_tensors(architecture: str, numbers: Numbers, head: Head | None = None) -> Shapes:
    """Name and shape, the head first. Lazy: a hostile layer count ends at the first that is missing.

    numbers: under BERT's names, with num_labels, and of ModernBERT what else its config says. head: what lies in modules of
    sentence-transformers, if anything does.
    """
    if head is not None:
        yield from head.tensors()
    yield from _SHAPES[OF_ARCHITECTURE[architecture].tensors](numbers)


def is_head(name: str) -> bool:
    """Whether a tensor is of what makes a classifier of an encoder."""
    return name.startswith(("classifier.", "pre_classifier.", "pooler.", "head.")) or ".pooler." in name


def after_last_layer(architecture: str, numbers: Numbers) -> str:
    """A part of the names of tensors of one layer more than there are."""
    match OF_ARCHITECTURE[architecture].tensors:
        case "distilbert":
            return f"distilbert.transformer.layer.{numbers['num_hidden_layers']}."
        case "modernbert" | "modernbert-encoder":
            return f"layers.{numbers['num_hidden_layers']}."
        case "albert":
            return f"albert.encoder.albert_layer_groups.{numbers['num_hidden_groups']}."
        case _:
            return f"encoder.layer.{numbers['num_hidden_layers']}."


def _bert(numbers: Numbers) -> Shapes:
    hidden = numbers["hidden_size"]
    yield from _linear("classifier", numbers["num_labels"], hidden)
    yield from _linear("bert.pooler.dense", hidden, hidden)
    yield from _embeddings("bert", numbers, hidden)
    yield from _bert_layers("bert", numbers)


def _roberta(numbers: Numbers) -> Shapes:
    hidden = numbers["hidden_size"]
    yield from _two_layers(numbers)
    yield from _embeddings("roberta", numbers, hidden)
    yield from _bert_layers("roberta", numbers)


def _electra(numbers: Numbers) -> Shapes:
    hidden, embedding = numbers["hidden_size"], numbers["embedding_size"]
    yield from _two_layers(numbers)
    yield from _embeddings("electra", numbers, embedding)
    if embedding != hidden:
        yield from _linear("electra.embeddings_project", hidden, embedding)
    yield from _bert_layers("electra", numbers)


def _distilbert(numbers: Numbers) -> Shapes:
    hidden, inner = numbers["hidden_size"], numbers["intermediate_size"]
    yield from _linear("classifier", numbers["num_labels"], hidden)
    yield from _linear("pre_classifier", hidden, hidden)
    yield from _embeddings("distilbert", numbers, hidden)
    for index in range(numbers["num_hidden_layers"]):
        layer = f"distilbert.transformer.layer.{index}"
        for part in ("q_lin", "k_lin", "v_lin", "out_lin"):
            yield from _linear(f"{layer}.attention.{part}", hidden, hidden)
        yield from _norm(f"{layer}.sa_layer_norm", hidden)
        yield from _linear(f"{layer}.ffn.lin1", inner, hidden)
        yield from _linear(f"{layer}.ffn.lin2", hidden, inner)
        yield from _norm(f"{layer}.output_layer_norm", hidden)


def _mpnet(numbers: Numbers) -> Shapes:
    hidden, inner = numbers["hidden_size"], numbers["intermediate_size"]
    yield from _two_layers(numbers)
    yield from _embeddings("mpnet", numbers, hidden)
    buckets = numbers["relative_attention_num_buckets"]
    yield "mpnet.encoder.relative_attention_bias.weight", (buckets, numbers["num_attention_heads"])
    for index in range(numbers["num_hidden_layers"]):
        layer = f"mpnet.encoder.layer.{index}"
        for part in ("q", "k", "v", "o"):
            yield from _linear(f"{layer}.attention.attn.{part}", hidden, hidden)
        yield from _norm(f"{layer}.attention.LayerNorm", hidden)
        yield from _linear(f"{layer}.intermediate.dense", inner, hidden)
        yield from _linear(f"{layer}.output.dense", hidden, inner)
        yield from _norm(f"{layer}.output.LayerNorm", hidden)


def _albert(numbers: Numbers) -> Shapes:
    hidden, inner, embedding = numbers["hidden_size"], numbers["intermediate_size"], numbers["embedding_size"]
    yield from _linear("classifier", numbers["num_labels"], hidden)
    yield from _linear("albert.pooler", hidden, hidden)
    yield from _embeddings("albert", numbers, embedding)
    yield from _linear("albert.encoder.embedding_hidden_mapping_in", hidden, embedding)
    for group in range(numbers["num_hidden_groups"]):
        for index in range(numbers["inner_group_num"]):
            layer = f"albert.encoder.albert_layer_groups.{group}.albert_layers.{index}"
            yield from _norm(f"{layer}.full_layer_layer_norm", hidden)
            for part in ("query", "key", "value", "dense"):
                yield from _linear(f"{layer}.attention.{part}", hidden, hidden)
            yield from _norm(f"{layer}.attention.LayerNorm", hidden)
            yield from _linear(f"{layer}.ffn", inner, hidden)
            yield from _linear(f"{layer}.ffn_output", hidden, inner)


def _deberta(numbers: Numbers) -> Shapes:
    hidden, inner = numbers["hidden_size"], numbers["intermediate_size"]
    yield from _linear("classifier", numbers["num_labels"], hidden)
    yield from _linear("pooler.dense", hidden, hidden)
    yield "deberta.embeddings.word_embeddings.weight", (numbers["vocab_size"], hidden)
    yield from _norm("deberta.embeddings.LayerNorm", hidden)
    yield "deberta.encoder.rel_embeddings.weight", (2 * numbers["position_buckets"], hidden)
    yield from _norm("deberta.encoder.LayerNorm", hidden)
    for index in range(numbers["num_hidden_layers"]):
        layer = f"deberta.encoder.layer.{index}"
        for part in ("query_proj", "key_proj", "value_proj"):
            yield from _linear(f"{layer}.attention.self.{part}", hidden, hidden)
        yield from _linear(f"{layer}.attention.output.dense", hidden, hidden)
        yield from _norm(f"{layer}.attention.output.LayerNorm", hidden)
        yield from _linear(f"{layer}.intermediate.dense", inner, hidden)
        yield from _linear(f"{layer}.output.dense", hidden, inner)
        yield from _norm(f"{layer}.output.LayerNorm", hidden)


def _gte(numbers: Numbers) -> Shapes:
    hidden, inner = numbers["hidden_size"], numbers["intermediate_size"]
    yield from _linear("classifier", numbers["num_labels"], hidden)
    yield from _linear("new.pooler.dense", hidden, hidden)
    yield from _words_and_types("new", numbers)
    for index in range(numbers["num_hidden_layers"]):
        layer = f"new.encoder.layer.{index}"
        yield from _linear(f"{layer}.attention.qkv_proj", 3 * hidden, hidden)
        yield from _linear(f"{layer}.attention.o_proj", hidden, hidden)
        yield from _norm(f"{layer}.attn_ln", hidden)
        yield f"{layer}.mlp.up_gate_proj.weight", (2 * inner, hidden)
        yield from _linear(f"{layer}.mlp.down_proj", hidden, inner)
        yield from _norm(f"{layer}.mlp_ln", hidden)


def _jina_bert(numbers: Numbers) -> Shapes:
    hidden, inner = numbers["hidden_size"], numbers["intermediate_size"]
    yield from _linear("classifier", numbers["num_labels"], hidden)
    yield from _linear("bert.pooler.dense", hidden, hidden)
    yield from _words_and_types("bert", numbers)
    for index in range(numbers["num_hidden_layers"]):
        layer = f"bert.encoder.layer.{index}"
        for part in ("query", "key", "value"):
            yield from _linear(f"{layer}.attention.self.{part}", hidden, hidden)
        yield from _linear(f"{layer}.attention.output.dense", hidden, hidden)
        yield from _norm(f"{layer}.attention.output.LayerNorm", hidden)
        yield f"{layer}.mlp.gated_layers.weight", (2 * inner, hidden)
        yield from _linear(f"{layer}.mlp.wo", hidden, inner)
        yield from _norm(f"{layer}.mlp.layernorm", hidden)


def _words_and_types(base: str, numbers: Numbers) -> Shapes:
    yield f"{base}.embeddings.word_embeddings.weight", (numbers["vocab_size"], numbers["hidden_size"])
    yield f"{base}.embeddings.token_type_embeddings.weight", (numbers["type_vocab_size"], numbers["hidden_size"])
    yield from _norm(f"{base}.embeddings.LayerNorm", numbers["hidden_size"])


_SHAPES: Mapping[Tensors, Callable[[Numbers], Shapes]] = {
    "bert": _bert,
    "roberta": _roberta,
    "electra": _electra,
    "distilbert": _distilbert,
    "mpnet": _mpnet,
    "albert": _albert,
    "deberta": _deberta,
    "gte": _gte,
    "jina-bert": _jina_bert,
    "modernbert": modernbert.classifier_tensors,
    "modernbert-encoder": modernbert.encoder_tensors,
}


def _two_layers(numbers: Numbers) -> Shapes:
    """RoBERTa's head, which others have taken over."""
    yield from _linear("classifier.out_proj", numbers["num_labels"], numbers["hidden_size"])
    yield from _linear("classifier.dense", numbers["hidden_size"], numbers["hidden_size"])


def _embeddings(base: str, numbers: Numbers, width: int) -> Shapes:
    for kind, rows in (("word", "vocab_size"), ("position", "max_position_embeddings"), ("token_type", "type_vocab_size")):
        if rows in numbers:
            yield f"{base}.embeddings.{kind}_embeddings.weight", (numbers[rows], width)
    yield from _norm(f"{base}.embeddings.LayerNorm", width)


def _bert_layers(base: str, numbers: Numbers) -> Shapes:
    hidden, inner = numbers["hidden_size"], numbers["intermediate_size"]
    for index in range(numbers["num_hidden_layers"]):
        layer = f"{base}.encoder.layer.{index}"
        for part in ("query", "key", "value"):
            yield from _linear(f"{layer}.attention.self.{part}", hidden, hidden)
        yield from _linear(f"{layer}.attention.output.dense", hidden, hidden)
        yield from _norm(f"{layer}.attention.output.LayerNorm", hidden)
        yield from _linear(f"{layer}.intermediate.dense", inner, hidden)
        yield from _linear(f"{layer}.output.dense", hidden, inner)
        yield from _norm(f"{layer}.output.LayerNorm", hidden)


def _linear(name: str, rows: int, columns: int) -> Shapes:
    yield f"{name}.weight", (rows, columns)
    yield f"{name}.bias", (rows,)


def _norm(name: str, size: int) -> Shapes:
    yield f"{name}.weight", (size,)
    yield f"{name}.bias", (size,)
