"""Folders that are the published models' in every respect but the weights: config, tokenizer, tensor names, shapes, dtypes."""

import json
import math
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

import published_written as written
from builders import TOKENIZERS, Family, save_tokenizer, unigram_tokenizer, wordpiece_tokenizer, write_json
from paths import shared

BGE_BASE, BGE_LARGE, BGE_M3 = "BAAI/bge-reranker-base", "BAAI/bge-reranker-large", "BAAI/bge-reranker-v2-m3"
MS_MARCO, MMARCO = "cross-encoder/ms-marco-MiniLM-L-6-v2", "cross-encoder/mmarco-mMiniLMv2-L12-H384-v1"
JINA = "jinaai/jina-reranker-v2-base-multilingual"
TINYBERT = "cross-encoder/ms-marco-TinyBERT-L-2-v2"
MINILM_2, MINILM_4, MINILM_12 = (f"cross-encoder/ms-marco-MiniLM-L-{layers}-v2" for layers in (2, 4, 12))
SMALLER = (TINYBERT, MINILM_2, MINILM_4, MINILM_12)  # and larger
ELECTRA, DANISH = "cross-encoder/ms-marco-electra-base", "KennethTM/MiniLM-L6-danish-reranker-v2"
AMBEROAD = "amberoad/bert-multilingual-passage-reranking-msmarco"

BLOCK = 1 << 22  # values drawn at a time: 16 MB, whatever the size of the tensor
HEAD_GAIN = 4.0  # so that seeded logits spread over about a unit, as scores that rank do

_IDENTITY = "torch.nn.modules.linear.Identity"
_COMMON: dict[str, object] = {
    "attention_probs_dropout_prob": 0.1,
    "classifier_dropout": None,
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.1,
    "id2label": {"0": "LABEL_0"},
    "initializer_range": 0.02,
    "label2id": {"LABEL_0": 0},
    "position_embedding_type": "absolute",
    "torch_dtype": "float32",
    "use_cache": True,
}
_XLM_R: dict[str, object] = _COMMON | {
    "architectures": ["XLMRobertaForSequenceClassification"],
    "bos_token_id": 0,
    "eos_token_id": 2,
    "layer_norm_eps": 1e-05,
    "max_position_embeddings": 514,
    "model_type": "xlm-roberta",
    "pad_token_id": 1,
    "type_vocab_size": 1,
    "vocab_size": 250002,
}
_BASE: dict[str, object] = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_attention_heads": 12,
    "num_hidden_layers": 12,
    "output_past": True,
}
_LARGE: dict[str, object] = {
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_attention_heads": 16,
    "num_hidden_layers": 24,
    "output_past": True,
}
_REMOTE_CODE: dict[str, object] = {
    "auto_map": {
        "AutoConfig": "configuration_xlm_roberta.XLMRobertaFlashConfig",
        "AutoModel": "modeling_xlm_roberta.XLMRobertaModel",
        "AutoModelForSequenceClassification": "modeling_xlm_roberta.XLMRobertaForSequenceClassification",
    },
    "emb_pooler": None,
    "num_labels": 1,
    "use_flash_attn": True,
}
CONFIGS: dict[str, dict[str, object]] = {
    BGE_BASE: _XLM_R | _BASE | {"_name_or_path": "xlm-roberta-base", "transformers_version": "4.30.0"},
    BGE_LARGE: _XLM_R | _LARGE | {"_name_or_path": "xlm-roberta-large", "transformers_version": "4.30.0"},
    BGE_M3: _XLM_R
    | _LARGE
    | {"_name_or_path": "BAAI/bge-m3", "max_position_embeddings": 8194, "transformers_version": "4.38.1"},
    MS_MARCO: _COMMON
    | {
        "architectures": ["BertForSequenceClassification"],
        "gradient_checkpointing": False,
        "hidden_size": 384,
        "intermediate_size": 1536,
        "layer_norm_eps": 1e-12,
        "max_position_embeddings": 512,
        "model_type": "bert",
        "num_attention_heads": 12,
        "num_hidden_layers": 6,
        "pad_token_id": 0,
        "transformers_version": "4.55.4",
        "type_vocab_size": 2,
        "vocab_size": 30522,
    },
    MMARCO: _XLM_R
    | {
        "_name_or_path": "nreimers/mMiniLMv2-L12-H384-distilled-from-XLMR-Large",
        "hidden_size": 384,
        "intermediate_size": 1536,
        "num_attention_heads": 12,
        "num_hidden_layers": 12,
        "sbert_ce_default_activation_function": _IDENTITY,
        "transformers_version": "4.18.0",
    },
    # No model_type: its own code brings one.
    JINA: {key: value for key, value in _XLM_R.items() if key != "model_type"}
    | _BASE
    | _REMOTE_CODE
    | {
        "_name_or_path": "jina-reranker-v2-base-multilingual",
        "max_position_embeddings": 1026,
        "torch_dtype": "bfloat16",
        "transformers_version": "4.40.0",
        "use_cache": False,
    },
}
# Of these nothing is in ../shared. The sizes are those of their cards, and the keys those of ms-marco-MiniLM-L-6-v2;
# ms-marco-electra-base's is 730 bytes long, as the published one, which therefore states no activation.
CONFIGS |= {
    TINYBERT: CONFIGS[MS_MARCO]
    | {"hidden_size": 128, "intermediate_size": 512, "num_attention_heads": 2, "num_hidden_layers": 2},
    MINILM_2: CONFIGS[MS_MARCO] | {"num_hidden_layers": 2},
    MINILM_4: CONFIGS[MS_MARCO] | {"num_hidden_layers": 4},
    MINILM_12: CONFIGS[MS_MARCO] | {"num_hidden_layers": 12},
    DANISH: CONFIGS[MS_MARCO] | {"sbert_ce_default_activation_function": _IDENTITY},
    # Two labels, since it names none.
    AMBEROAD: {key: value for key, value in CONFIGS[MS_MARCO].items() if key not in ("id2label", "label2id")}
    | {
        "hidden_size": 768,
        "intermediate_size": 3072,
        "num_attention_heads": 12,
        "num_hidden_layers": 12,
        "vocab_size": 105879,
    },
    ELECTRA: {
        "_name_or_path": "google/electra-base-discriminator",
        "architectures": ["ElectraForSequenceClassification"],
        "attention_probs_dropout_prob": 0.1,
        "embedding_size": 768,
        "hidden_act": "gelu",
        "hidden_dropout_prob": 0.1,
        "hidden_size": 768,
        "id2label": {"0": "LABEL_0"},
        "initializer_range": 0.02,
        "intermediate_size": 3072,
        "label2id": {"LABEL_0": 0},
        "layer_norm_eps": 1e-12,
        "max_position_embeddings": 512,
        "model_type": "electra",
        "num_attention_heads": 12,
        "num_hidden_layers": 12,
        "pad_token_id": 0,
        "summary_activation": "gelu",
        "summary_last_dropout": 0.1,
        "summary_type": "first",
        "summary_use_proj": True,
        "type_vocab_size": 2,
        "vocab_size": 30522,
    },
}
CONFIGS |= written.CONFIGS
WORDPIECE = frozenset({MS_MARCO, *SMALLER, ELECTRA, DANISH, AMBEROAD})
_VOCAB_TXT = frozenset({ELECTRA, AMBEROAD})  # their tokenizer, as published
# Where ../shared has a model's small files. bge-reranker-large's tokenizer.json is the base model's, as the README there says.
# Of bge-reranker-v2-m3 there is nothing: its config is put together from what is known of it, and the base model's tokenizer
# with its own length stands in, which has XLM-R's pieces too.
FOLDERS: Mapping[str, str] = {
    BGE_BASE: "bge-reranker-base-BAAI",
    BGE_LARGE: "bge-reranker-large",
    MS_MARCO: "ms-marco-MiniLM-L-6-v2",
    MMARCO: "mmarco-mMiniLMv2-L12-H384-v1",
    JINA: "jina-reranker-v2-base-multilingual",
}
_LENGTHS: Mapping[str, int] = {BGE_M3: 8192, JINA: 1024, **written.LENGTHS}  # tokens, where not 512
# Saved by transformers before 4.31, which kept this buffer among the weights.
_WITH_POSITION_IDS = frozenset({BGE_BASE, BGE_LARGE, MS_MARCO, MMARCO})
_TINY: dict[str, object] = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 4, "num_hidden_layers": 2}


_DTYPES: Mapping[str, str] = {"float32": "F32", "float16": "F16", "bfloat16": "BF16"}


class Tensor(NamedTuple):
    name: str
    dtype: str  # as safetensors spells it
    shape: tuple[int, ...]


def published_checkpoint(folder: Path, model: str, *, seed: int = 0) -> Path:
    """Write the folder of a published model with seeded weights; skips where ../shared lacks its tokenizer.

    Light: tensors are drawn and written in blocks, so that 2.2 GB take no more memory than a block.
    """
    small_files = shared("data", "tokenizers", FOLDERS.get(model, FOLDERS[BGE_BASE]))
    tokenizer_json = shared("data", "tokenizers", FOLDERS[BGE_BASE if model in (BGE_LARGE, BGE_M3) else model])
    folder.mkdir(parents=True, exist_ok=True)
    for path in [*small_files.iterdir(), tokenizer_json / "tokenizer.json"]:
        if path.suffix in {".json", ".txt"} and ".variant-" not in path.name:
            shutil.copyfile(path, folder / path.name)
    if model not in FOLDERS:
        lengths = {"model_max_length": _LENGTHS[model]}
        write_json(
            folder / "tokenizer_config.json", json.loads((folder / "tokenizer_config.json").read_text("utf-8")) | lengths
        )
    write_json(folder / "config.json", CONFIGS[model])
    write_weights(folder / "model.safetensors", list(tensors(model, CONFIGS[model])), seed)
    return folder


def tiny_published_checkpoint(folder: Path, model: str, *, seed: int = 0, sizes: Mapping[str, object] = _TINY) -> Path:
    """The same with a small tokenizer and few and narrow layers: what is left is the model's layout, dtype and length.

    sizes: keys of config.json in place of the published ones; {} for the published layers.
    """
    tokenizer = wordpiece_tokenizer() if model in WORDPIECE else unigram_tokenizer()
    family: Family = "electra" if model == ELECTRA else "bert" if model in WORDPIECE else "xlm-roberta"
    if model in written.FAMILIES:
        family = written.FAMILIES[model]
        tokenizer = TOKENIZERS[family]()
    save_tokenizer(folder, family, tokenizer, _LENGTHS.get(model, 512))
    if model in _VOCAB_TXT:
        pieces = sorted(tokenizer.get_vocab().items(), key=lambda entry: entry[1])
        (folder / "vocab.txt").write_text("".join(f"{piece}\n" for piece, _ in pieces), "utf-8")
        (folder / "tokenizer.json").unlink()
    config = CONFIGS[model] | dict(sizes) | {"vocab_size": tokenizer.get_vocab_size()}
    if model == ELECTRA:
        config["embedding_size"] = config["hidden_size"]  # as wide as the layers, as published
    if "pooler_hidden_size" in config:
        config["pooler_hidden_size"] = config["hidden_size"]
    write_json(folder / "config.json", config)
    if model in (MS_MARCO, *SMALLER):
        write_json(folder / "config_sentence_transformers.json", {"activation_fn": _IDENTITY, "model_type": "CrossEncoder"})
    write_weights(folder / "model.safetensors", list(tensors(model, config)), seed)
    return folder


def tensors(model: str, config: Mapping[str, object]) -> Iterator[Tensor]:
    """What model.safetensors holds."""
    numbers = {key: value for key, value in config.items() if isinstance(value, int)}
    if model in written.FAMILIES:
        layout = written.shapes(written.FAMILIES[model], numbers)
    elif model == JINA:
        layout = _jina_shapes(numbers)
    elif model == ELECTRA:
        layout = _transformers_shapes(numbers, base="electra", pooled=False)
    elif model in WORDPIECE:
        layout = _transformers_shapes(numbers, base="bert", pooled=True, labels=2 if model == AMBEROAD else 1)
    else:
        layout = _transformers_shapes(numbers, base="roberta", pooled=False)
    for name, shape in layout:
        yield Tensor(name, _DTYPES[str(config.get("torch_dtype", "float32"))], shape)
    if model in _WITH_POSITION_IDS:
        base = "bert" if model in WORDPIECE else "roberta"
        yield Tensor(f"{base}.embeddings.position_ids", "I64", (1, numbers["max_position_embeddings"]))


def _transformers_shapes(
    numbers: Mapping[str, int], *, base: str, pooled: bool, labels: int = 1
) -> Iterator[tuple[str, tuple[int, ...]]]:
    """pooled: the dense layer before the classifier is the encoder's pooler, not the classifier's own."""
    hidden, inner = numbers["hidden_size"], numbers["intermediate_size"]
    yield from _embeddings(base, numbers)
    yield from _weight_and_bias(f"{base}.embeddings.LayerNorm", hidden)
    for index in range(numbers["num_hidden_layers"]):
        layer = f"{base}.encoder.layer.{index}"
        for part in ("query", "key", "value"):
            yield from _weight_and_bias(f"{layer}.attention.self.{part}", hidden, hidden)
        yield from _weight_and_bias(f"{layer}.attention.output.dense", hidden, hidden)
        yield from _weight_and_bias(f"{layer}.attention.output.LayerNorm", hidden)
        yield from _weight_and_bias(f"{layer}.intermediate.dense", inner, hidden)
        yield from _weight_and_bias(f"{layer}.output.dense", hidden, inner)
        yield from _weight_and_bias(f"{layer}.output.LayerNorm", hidden)
    yield from _weight_and_bias(f"{base}.pooler.dense" if pooled else "classifier.dense", hidden, hidden)
    yield from _weight_and_bias("classifier" if pooled else "classifier.out_proj", labels, hidden)


def _jina_shapes(numbers: Mapping[str, int]) -> Iterator[tuple[str, tuple[int, ...]]]:
    hidden, inner = numbers["hidden_size"], numbers["intermediate_size"]
    yield from _embeddings("roberta", numbers)
    yield from _weight_and_bias("roberta.emb_ln", hidden)
    for index in range(numbers["num_hidden_layers"]):
        layer = f"roberta.encoder.layers.{index}"
        yield from _weight_and_bias(f"{layer}.mixer.Wqkv", 3 * hidden, hidden)
        yield from _weight_and_bias(f"{layer}.mixer.out_proj", hidden, hidden)
        yield from _weight_and_bias(f"{layer}.norm1", hidden)
        yield from _weight_and_bias(f"{layer}.mlp.fc1", inner, hidden)
        yield from _weight_and_bias(f"{layer}.mlp.fc2", hidden, inner)
        yield from _weight_and_bias(f"{layer}.norm2", hidden)
    yield from _weight_and_bias("classifier.dense", hidden, hidden)
    yield from _weight_and_bias("classifier.out_proj", 1, hidden)


def _embeddings(base: str, numbers: Mapping[str, int]) -> Iterator[tuple[str, tuple[int, ...]]]:
    for kind, rows in (("word", "vocab_size"), ("position", "max_position_embeddings"), ("token_type", "type_vocab_size")):
        yield f"{base}.embeddings.{kind}_embeddings.weight", (numbers[rows], numbers["hidden_size"])


def _weight_and_bias(name: str, *shape: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield f"{name}.weight", shape
    yield f"{name}.bias", shape[:1]


def write_weights(path: Path, contents: list[Tensor], seed: int) -> None:
    """A safetensors file of seeded tensors: 8 bytes of length, a JSON header, then the values."""
    sizes = {"F32": 4, "F16": 2, "BF16": 2, "I64": 8}
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    end = 0
    for tensor in contents:
        start, end = end, end + math.prod(tensor.shape) * sizes[tensor.dtype]
        header[tensor.name] = {"dtype": tensor.dtype, "shape": tensor.shape, "data_offsets": [start, end]}
    encoded = json.dumps(header).encode()
    encoded += b" " * (-len(encoded) % 8)
    generator = np.random.default_rng(seed)
    with path.open("wb") as file:
        file.write(len(encoded).to_bytes(8, "little") + encoded)
        for tensor in contents:
            for block in _values(tensor, generator):
                file.write(block)


def _values(tensor: Tensor, generator: np.random.Generator) -> Iterator[bytes]:
    if tensor.dtype == "I64":
        yield np.arange(math.prod(tensor.shape)).tobytes()
        return
    mean, deviation = _distribution(tensor)
    size = math.prod(tensor.shape)
    for start in range(0, size, BLOCK):
        block = generator.standard_normal(min(BLOCK, size - start), np.float32) * np.float32(deviation) + np.float32(mean)
        if tensor.dtype == "BF16":  # the upper half of a float32
            yield (block.view(np.uint32) >> 16).astype(np.uint16).tobytes()
        elif tensor.dtype == "F16":
            yield block.astype(np.float16).tobytes()
        else:
            yield block.tobytes()


def _distribution(tensor: Tensor) -> tuple[float, float]:
    """Mean and standard deviation that keep tokens apart through the layers, as in builders.py."""
    name, shape = tensor.name, tensor.shape
    if name.endswith(".bias"):
        return 0.0, 0.1
    if len(shape) == 1:
        return 1.0, 0.1
    if "_embeddings." in name:
        return 0.0, 1.0 if ".word_" in name else 0.5
    gain = HEAD_GAIN if shape[0] <= 2 else 1.5 if ".query" in name or ".key" in name else 1.0
    return 0.0, gain / math.sqrt(shape[1])


# ModernBERT's kinds: their published sizes, and how many parameters are published.
GTE, ETTIN = "Alibaba-NLP/gte-reranker-modernbert-base", "cross-encoder/ettin-reranker-{}-v1"
_MODERN = ("num_hidden_layers", "hidden_size", "num_attention_heads", "intermediate_size")
MODERNBERT: Mapping[str, Mapping[str, int]] = {
    model: {"vocab_size": 50368, "max_position_embeddings": 7999, **dict(zip(_MODERN, sizes, strict=True))}
    for model, sizes in {
        ETTIN.format("17m"): (7, 256, 4, 384),
        ETTIN.format("32m"): (10, 384, 6, 576),
        ETTIN.format("68m"): (19, 512, 8, 768),
        ETTIN.format("150m"): (22, 768, 12, 1152),
        ETTIN.format("400m"): (28, 1024, 16, 2624),
        GTE: (22, 768, 12, 1152),
    }.items()
}
MODERNBERT_PARAMETERS: Mapping[str, float] = {  # in millions, to as many digits as are published; an Ettin's without its head
    ETTIN.format("17m"): 16.8,
    ETTIN.format("32m"): 31.9,
    ETTIN.format("68m"): 68.1,
    GTE: 149.605633,
}
