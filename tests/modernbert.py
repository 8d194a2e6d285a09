"""Tiny ModernBERT checkpoints as the hub has them: with transformers' own head, or with sentence-transformers' modules."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from builders import PAIRS, SENTENCES, SPREAD, write_json
from raskrank.torch_backend import quiet

if TYPE_CHECKING:
    from torch import Tensor

CLASSIFIER, ENCODER = "ModernBertForSequenceClassification", "ModernBertModel"
_TOKENS = {name: f"[{name[:-6].upper()}]" for name in ("unk_token", "sep_token", "pad_token", "cls_token", "mask_token")}
_MODULE = "sentence_transformers.{}"
_GELU, _IDENTITY = "torch.nn.modules.activation.GELU", "torch.nn.modules.linear.Identity"


def modernbert_tokenizer() -> Tokenizer:
    """ModernBERT's layout: byte-level BPE of NFC; [CLS] A [SEP] B [SEP], every type 0; special tokens after the pieces."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=800, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False)
    tokenizer.train_from_iterator(SENTENCES, trainer)
    specials = ["[UNK]", "[CLS]", "[SEP]", "[PAD]"]
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in specials])
    tokenizer.add_special_tokens([AddedToken("[MASK]", lstrip=True, special=True, normalized=False)])
    ids = [(token, tokenizer.token_to_id(token)) for token in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:0 [SEP]", special_tokens=ids
    )
    return tokenizer


def modernbert_config(tokenizer: Tokenizer, **changes: object) -> dict[str, object]:
    """A config.json as transformers 4 writes it. The window and the distance of global layers are small, so that both kinds of
    layers and several blocks are there."""
    ids = {f"{name}_token_id": tokenizer.token_to_id(f"[{name.upper()}]") for name in ("cls", "sep", "pad")}
    return {
        "architectures": [CLASSIFIER],
        "attention_bias": False,
        "attention_dropout": 0.0,
        "bos_token_id": ids["cls_token_id"],
        "classifier_activation": "gelu",
        "classifier_bias": False,
        "classifier_dropout": 0.0,
        "classifier_pooling": "cls",
        "decoder_bias": True,
        "embedding_dropout": 0.0,
        "eos_token_id": ids["sep_token_id"],
        "global_attn_every_n_layers": 3,
        "global_rope_theta": 160000.0,
        "hidden_activation": "gelu",
        "hidden_size": 64,
        "id2label": {"0": "LABEL_0"},
        "initializer_range": 0.02,
        "intermediate_size": 96,
        "label2id": {"LABEL_0": 0},
        "layer_norm_eps": 1e-05,  # which is there, and not read
        "local_attention": 16,
        "local_rope_theta": 10000.0,
        "max_position_embeddings": 128,
        "mlp_bias": False,
        "model_type": "modernbert",
        "norm_bias": False,
        "norm_eps": 1e-05,
        "num_attention_heads": 4,
        "num_hidden_layers": 4,
        "position_embedding_type": "absolute",
        "torch_dtype": "float32",
        "transformers_version": "4.57.6",
        "vocab_size": tokenizer.get_vocab_size(),
        **ids,
        **changes,
    }


def as_transformers_5(config: Mapping[str, object]) -> dict[str, object]:
    """The same config.json as transformers 5 writes it."""
    written = dict(config)
    every, layers = int(str(written.pop("global_attn_every_n_layers"))), int(str(config["num_hidden_layers"]))
    thetas = {"full_attention": written.pop("global_rope_theta"), "sliding_attention": written.pop("local_rope_theta")}
    written["layer_types"] = ["sliding_attention" if index % every else "full_attention" for index in range(layers)]
    written["rope_parameters"] = {kind: {"rope_theta": theta, "rope_type": "default"} for kind, theta in thetas.items()}
    return written | {"dtype": written.pop("torch_dtype"), "transformers_version": "5.7.0"}


def modernbert_checkpoint(
    folder: Path,
    *,
    seed: int = 0,
    config_updates: Mapping[str, object] = {},
    tokenizer: Tokenizer | None = None,
    **changes: object,
) -> Path:
    """Write a checkpoint of ModernBertForSequenceClassification, and return its folder.

    changes: of config.json. config_updates: the same after the weights are made, so that they may contradict them.
    """
    tokenizer = modernbert_tokenizer()
    config = modernbert_config(tokenizer, **changes)
    _save_tokenizer(folder, tokenizer, int(str(config["max_position_embeddings"])))
    model = _seeded(config, seed)
    _spread(model, tokenizer, config, model.classifier)
    _save(model.state_dict(), folder / "model.safetensors")
    write_json(folder / "config.json", config | dict(config_updates))
    return folder


def modular_checkpoint(folder: Path, *, seed: int = 0, pooling: str = "cls", **changes: object) -> Path:
    """Write the folder of an Ettin reranker: transformers 5's config of the encoder alone, and its head in five modules."""
    from torch import nn

    tokenizer = modernbert_tokenizer()
    settings = {"architectures": [ENCODER], "position_embedding_type": "sans_pos", "local_rope_theta": 160000.0}
    config = modernbert_config(tokenizer, classifier_pooling=pooling, **(settings | changes))
    hidden = int(str(config["hidden_size"]))
    _save_tokenizer(folder, tokenizer, int(str(config["max_position_embeddings"])), tokenizer_class="TokenizersBackend")
    # transformers' own head is the same chain but for the norm's bias: what spreads its scores spreads the modules'.
    model = _seeded(config, seed)
    bias = nn.Parameter(model.head.norm.weight.detach().clone().normal_(0.0, 0.1))
    model.head.norm.bias = bias
    _spread(model, tokenizer, config, model.classifier)
    head, classifier = model.head, model.classifier
    for key in ("id2label", "label2id"):
        config.pop(key)
    write_json(folder / "config.json", as_transformers_5(config))
    _save(model.model.state_dict(), folder / "model.safetensors")
    dense = {"in_features": hidden, "module_input_name": "sentence_embedding"}
    modules: list[tuple[str, dict[str, object], Mapping[str, Tensor]]] = [
        (
            "sentence_transformer.modules.pooling.Pooling",
            {"embedding_dimension": hidden, "pooling_mode": pooling, "include_prompt": True},
            {},
        ),
        (
            "base.modules.dense.Dense",
            dense
            | {"out_features": hidden, "bias": False, "activation_function": _GELU, "module_output_name": "sentence_embedding"},
            {"linear.weight": head.dense.weight},
        ),
        (
            "sentence_transformer.modules.layer_norm.LayerNorm",
            {"dimension": hidden},
            {"norm.weight": head.norm.weight, "norm.bias": bias},
        ),
        (
            "base.modules.dense.Dense",
            dense | {"out_features": 1, "bias": True, "activation_function": _IDENTITY, "module_output_name": "scores"},
            {"linear.weight": classifier.weight, "linear.bias": classifier.bias},
        ),
    ]
    listed = [{"idx": 0, "name": "0", "path": "", "type": _MODULE.format("base.modules.transformer.Transformer")}]
    for index, (kind, values, weights) in enumerate(modules, 1):
        name = f"{index}_{kind.rpartition('.')[2]}"
        (folder / name).mkdir()
        write_json(folder / name / "config.json", values)
        if weights:
            _save(weights, folder / name / "model.safetensors")
        listed.append({"idx": index, "name": str(index), "path": name, "type": _MODULE.format(kind)})
    write_json(folder / "modules.json", listed)
    write_json(
        folder / "config_sentence_transformers.json",
        {
            "__version__": {"sentence_transformers": "5.5.0", "transformers": "5.7.0", "pytorch": "2.13.0"},
            "activation_fn": _IDENTITY,
            "default_prompt_name": None,
            "model_type": "CrossEncoder",
            "prompts": {},
        },
    )
    write_json(
        folder / "sentence_bert_config.json",
        {
            "transformer_task": "feature-extraction",
            "modality_config": {"text": {"method": "forward", "method_output_name": "last_hidden_state"}},
            "module_output_name": "token_embeddings",
        },
    )
    return folder


def _save_tokenizer(folder: Path, tokenizer: Tokenizer, length: int, tokenizer_class: str = "PreTrainedTokenizerFast") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    write_json(folder / "special_tokens_map.json", _TOKENS)
    stated = {"model_max_length": length, "model_input_names": ["input_ids", "attention_mask"]}
    write_json(folder / "tokenizer_config.json", _TOKENS | stated | {"tokenizer_class": tokenizer_class})


def _seeded(config: Mapping[str, object], seed: int) -> Any:
    """transformers' classifier with weights that keep tokens apart through the layers, as in builders.py."""
    import torch

    with quiet():
        from transformers import ModernBertConfig, ModernBertForSequenceClassification
    model: Any = ModernBertForSequenceClassification(ModernBertConfig.from_dict(dict(config)))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name and name.endswith("weight"):
                parameter.normal_(1.0, 0.1, generator=generator)
            elif parameter.ndim == 1:
                parameter.normal_(0.0, 0.1, generator=generator)
            elif "tok_embeddings" in name:
                parameter.normal_(0.0, 1.0, generator=generator)
            else:
                gain = 1.5 if "Wqkv" in name else 1.0
                parameter.normal_(0.0, gain / math.sqrt(parameter.shape[1]), generator=generator)
    return model.eval()


def _spread(model: Any, tokenizer: Tokenizer, config: Mapping[str, object], classifier: Any) -> None:
    """Scale the classifier so that the logits of PAIRS have SPREAD as their deviation, and 0 as their mean."""
    import torch

    longest = int(str(config["max_position_embeddings"]))
    with torch.no_grad():
        ids = [torch.tensor([tokenizer.encode(*pair).ids[:longest]]) for pair in PAIRS]
        logits = torch.cat([model(input_ids=row, attention_mask=torch.ones_like(row)).logits for row in ids])
        scale = SPREAD / logits.std()
        classifier.weight.mul_(scale)
        classifier.bias.copy_((classifier.bias - logits.mean()) * scale)


def _save(tensors: "Mapping[str, Tensor]", path: Path) -> None:
    from safetensors.torch import save_file

    save_file({name: tensor.detach().contiguous() for name, tensor in tensors.items()}, path, metadata={"format": "pt"})


def edit_module(folder: Path, module: str, **values: object) -> None:
    """Replace values of a module's config.json."""
    path = folder / module / "config.json"
    write_json(path, json.loads(path.read_text("utf-8")) | values)
