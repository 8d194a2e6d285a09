"""What a checkpoint says about itself."""

import json
import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, get_args

import pytest

from builders import REIMPLEMENTED, Family, seeded_checkpoint, tiny_checkpoint, write_json
from checkpoints import IDENTITY, SIGMOID, edit_json, zero_checkpoint
from conftest import MAKERS
from paths import NANO_CHECKPOINT, shared
from raskrank.checkpoint.config import HIDDEN_ACTIVATIONS, Checkpoint, read_checkpoint, read_configuration
from raskrank.errors import CheckpointError, NotACrossEncoder
from raskrank.torch_backend import load_model

# Of the others transformers has no class, nor the architecture by itself a code.
# test_modernbert.py has MAKERS'.
FAMILIES: tuple[Family, ...] = tuple(family for family in get_args(Family) if family not in {*REIMPLEMENTED, *MAKERS})
# Integers of a config that no score depends on; the number of labels is read from id2label.
UNREAD = {"bos_token_id", "eos_token_id", "hidden_dropout_prob", "attention_probs_dropout_prob", "net_structure_type"}


@pytest.mark.parametrize("family", FAMILIES)
def test_reads_what_the_checkpoint_is(originals: Mapping[Family, Path], family: Family) -> None:
    from tokenizers import Tokenizer
    from transformers import AutoModelForSequenceClassification

    model = AutoModelForSequenceClassification.from_pretrained(originals[family])
    tokenizer = Tokenizer.from_file(str(originals[family] / "tokenizer.json"))
    checkpoint = read_checkpoint(originals[family])
    assert checkpoint == Checkpoint(
        folder=originals[family],
        architecture=type(model).__name__,
        model_type=family,
        layout="transformers",
        config=checkpoint.config,
        numbers=checkpoint.numbers,
        hidden_act="gelu_new" if family == "albert" else "gelu",
        relevant=None,
        epsilon=getattr(model.config, "layer_norm_eps", 1e-12),
        layers=model.config.num_hidden_layers,
        heads=model.config.num_attention_heads,
        hidden_size=model.config.hidden_size,
        vocab_size=tokenizer.get_vocab_size(),
        type_vocab_size=getattr(model.config, "type_vocab_size", 0) or 1,
        max_length=64,
        pad_id=tokenizer.token_to_id("<pad>") or 0,
        activation="sigmoid",
        parameters=model.num_parameters(),
        license=None,
        languages=(),
    )


@pytest.mark.parametrize("family", FAMILIES)
def test_config_rebuilds_the_same_model(originals: Mapping[Family, Path], family: Family) -> None:
    import torch
    from safetensors.torch import load_file
    from transformers import AutoModelForSequenceClassification

    reference: Any = AutoModelForSequenceClassification.from_pretrained(originals[family]).eval()
    config = reference.config_class(**read_checkpoint(originals[family]).config)
    rebuilt: Any = type(reference)(config).eval()
    rebuilt.load_state_dict(load_file(originals[family] / "model.safetensors"))
    ids = torch.arange(5, 25)[None]
    with torch.no_grad():
        found, expected = (float(model(input_ids=ids).logits) for model in (rebuilt, reference))
    # Equal models differ by rounding: how PyTorch adds up depends on where a buffer lies.
    assert found == pytest.approx(expected, rel=1e-4, abs=1e-4)


@pytest.mark.parametrize(
    ("family", "usable", "stated", "expected"),
    [
        ("bert", 64, 48, 48),
        ("bert", 64, 512, 64),
        ("bert", 64, 10**30, 64),
        ("bert", 64, 1e30, 64),
        ("bert", 64, ..., 64),
        ("bert", 64, 0, 64),
        ("bert", 64, None, 64),
        ("bert", 64, float("inf"), 64),
        ("bert", 64, float("nan"), 64),
        ("bert", 64, 10**400, 64),
        ("xlm-roberta", 64, 66, 64),
        ("roberta", 64, ..., 64),
    ],
)
def test_max_length_is_what_both_tokenizer_and_positions_allow(
    copy: Callable[..., Path], family: Family, usable: int, stated: object, expected: int
) -> None:
    folder = copy(family)
    edit_json(folder / "tokenizer_config.json", {"model_max_length": stated})
    assert read_checkpoint(folder).max_length == expected


def test_max_length_under_its_older_name(copy: Callable[..., Path]) -> None:
    folder = copy()
    edit_json(folder / "tokenizer_config.json", {"model_max_length": ..., "max_len": 48})
    assert read_checkpoint(folder).max_length == 48


def test_max_length_without_tokenizer_config(copy: Callable[..., Path]) -> None:
    folder = copy("xlm-roberta")
    (folder / "tokenizer_config.json").unlink()
    assert read_checkpoint(folder).max_length == 64


@pytest.mark.parametrize(
    ("config", "card", "expected"),
    [
        ({}, {}, "sigmoid"),
        ({"sentence_transformers": {"activation_fn": IDENTITY, "version": "4.0.1"}}, {}, "identity"),
        ({"sentence_transformers": {"activation_fn": SIGMOID}}, {"activation_fn": IDENTITY}, "identity"),
        ({"sentence_transformers": {"activation_fn": None}}, {}, "sigmoid"),
        (
            {"sentence_transformers": {"activation_fn": None}, "sbert_ce_default_activation_function": IDENTITY},
            {"activation_fn": None},
            "sigmoid",
        ),
        (
            {"sentence_transformers": {"activation_fn": IDENTITY}, "sbert_ce_default_activation_function": SIGMOID},
            {},
            "identity",
        ),
        ({"sentence_transformers": {"version": "4.0.1"}}, {"activation_fn": IDENTITY}, "identity"),
        ({"sbert_ce_default_activation_function": IDENTITY}, {}, "identity"),
        ({"sbert_ce_default_activation_function": SIGMOID}, {"activation_fn": IDENTITY}, "identity"),
        ({"sbert_ce_default_activation_function": None}, {"activation_fn": IDENTITY}, "identity"),
        ({}, {"activation_fn": SIGMOID}, "sigmoid"),
        ({}, {"activation_fn": IDENTITY, "model_type": "CrossEncoder", "default_prompt_name": None}, "identity"),
    ],
)
def test_activation(copy: Callable[..., Path], config: dict[str, object], card: dict[str, object], expected: str) -> None:
    folder = copy(**config)
    write_json(folder / "config_sentence_transformers.json", card)
    assert read_checkpoint(folder).activation == expected


@pytest.mark.parametrize(
    ("stated", "expected"),
    [
        ("torch.nn.modules.activation.Tanh", "tanh"),
        ("torch.nn.Tanh", "tanh"),
        ("torch.nn.modules.activation.Softplus", "softplus"),
        ("torch.nn.Softplus", "softplus"),
    ],
)
def test_a_score_that_rises_with_the_logit_is_read(copy: Callable[..., Path], stated: str, expected: str) -> None:
    assert read_checkpoint(copy(sbert_ce_default_activation_function=stated)).activation == expected


@pytest.mark.parametrize(
    "stated", ["torch.nn.modules.activation.GELU", "torch.nn.SiLU", "torch.nn.modules.activation.Softmax", "os.system", 7, []]
)
def test_activation_of_another_kind_is_refused(copy: Callable[..., Path], stated: object) -> None:
    with pytest.raises(CheckpointError, match=rf"activation {re.escape(repr(stated))} is not supported.*keep the order"):
        read_checkpoint(copy(sbert_ce_default_activation_function=stated))


def test_ms_marco_in_all_five_spellings(tmp_path: Path) -> None:
    source = shared("data", "tokenizers", "ms-marco-MiniLM-L-6-v2")
    folder = zero_checkpoint(tmp_path / "ms-marco", source)
    spellings = [*sorted(source.glob("config.variant-*.json")), source / "config.json"]
    assert len(spellings) == 5
    readings = []
    for spelling in spellings:
        shutil.copyfile(spelling, folder / "config.json")
        checkpoint = read_checkpoint(folder)
        readings.append(checkpoint)
        assert checkpoint.activation == "identity", spelling.name
        assert (checkpoint.layers, checkpoint.hidden_size, checkpoint.vocab_size) == (6, 384, 30522)
        assert (checkpoint.max_length, checkpoint.pad_id, checkpoint.type_vocab_size) == (512, 0, 2)
        assert checkpoint.parameters == 22_713_601
    assert all(reading == readings[0] for reading in readings)


@pytest.mark.parametrize(
    ("name", "activation", "parameters", "heads"),
    [
        ("bge-reranker-base-BAAI", "sigmoid", 278_044_417, 12),
        ("mmarco-mMiniLMv2-L12-H384-v1", "identity", 117_641_089, 12),
    ],
)
def test_published_xlm_roberta(tmp_path: Path, name: str, activation: str, parameters: int, heads: int) -> None:
    folder = zero_checkpoint(tmp_path / name, shared("data", "tokenizers", name))
    checkpoint = read_checkpoint(folder)
    assert (checkpoint.model_type, checkpoint.layers, checkpoint.heads) == ("xlm-roberta", 12, heads)
    assert (checkpoint.max_length, checkpoint.pad_id, checkpoint.vocab_size) == (512, 1, 250_002)
    assert (checkpoint.activation, checkpoint.parameters) == (activation, parameters)


def test_bge_large_has_files_for_all_but_a_tokenizer(tmp_path: Path) -> None:
    folder = zero_checkpoint(tmp_path / "large", shared("data", "tokenizers", "bge-reranker-large"))
    with pytest.raises(CheckpointError, match=r"no tokenizer\.json"):
        read_checkpoint(folder)
    (folder / "tokenizer.json").write_text("{}")
    assert read_checkpoint(folder).parameters == 559_891_457


def test_labse_is_a_bi_encoder() -> None:
    instead = "BAAI/bge-reranker-base.*Norwegian.*BAAI/bge-reranker-v2-m3.*cross-encoder/mmarco-mMiniLMv2-L12-H384-v1"
    with pytest.raises(NotACrossEncoder, match=rf"LaBSE is a bi-encoder .*Pooling.*{instead}"):
        read_checkpoint(shared("data", "tokenizers", "LaBSE"))


def test_nano_is_read() -> None:
    folder = NANO_CHECKPOINT if (NANO_CHECKPOINT / "model.safetensors").exists() else shared("data", "nano")
    checkpoint = read_checkpoint(folder)
    assert (checkpoint.layers, checkpoint.vocab_size, checkpoint.max_length) == (4, 12_000, 512)
    assert checkpoint.activation == "sigmoid"


def test_published_tokenizers_can_sit_in_another_folder(tmp_path: Path) -> None:
    tiny = tiny_checkpoint(tmp_path / "tiny", hidden=16, heads=2)
    bare = tmp_path / "bare"
    bare.mkdir()
    shutil.copyfile(tiny / "config.json", bare / "config.json")
    checkpoint = read_checkpoint(seeded_checkpoint(tmp_path / "made", bare, tokenizer_folder=tiny))
    assert checkpoint.hidden_size == 16


@pytest.mark.parametrize(
    ("family", "updates"),
    [
        ("bert", {"_num_labels": 1}),
        ("bert", {"_num_labels": 2}),
        ("bert", {"num_labels": 7}),
        ("bert", {"id2label": None, "label2id": None, "num_labels": 1}),
        ("bert", {"architectures": ...}),
        ("xlm-roberta", {"architectures": None}),
        ("roberta", {"architectures": []}),
        ("bert", {"architectures": ["BertModel", "BertForSequenceClassification"]}),
        ("xlm-roberta", {"architectures": ["RobertaForSequenceClassification"]}),
        ("roberta", {"architectures": ["RobertaForSequenceClassification", "XLMRobertaForSequenceClassification"]}),
        ("bert", {"pad_token_id": None}),
        ("bert", {"pad_token_id": ...}),
        ("bert", {"position_embedding_type": ..., "hidden_act": ..., "layer_norm_eps": ..., "type_vocab_size": ...}),
    ],
)
def test_a_config_is_read_as_transformers_reads_it(
    copy: Callable[..., Path], family: Family, updates: dict[str, object]
) -> None:
    import torch
    from transformers import AutoModelForSequenceClassification

    folder = copy(family, **updates)
    theirs: Any = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    checkpoint = read_checkpoint(folder)
    assert checkpoint.architecture == type(theirs).__name__
    ids = torch.arange(5, 25)[None]
    with torch.no_grad():
        found, expected = (float(model(input_ids=ids).logits) for model in (load_model(checkpoint), theirs))
    assert found == pytest.approx(expected, rel=1e-4, abs=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_without_a_model_type_the_architecture_decides(copy: Callable[..., Path], family: Family) -> None:
    # transformers looks at the folder's name for it.
    assert read_checkpoint(copy(family, model_type=...)).model_type == family


# DeBERTa's defaults are no DeBERTa-v3, and so refused.
@pytest.mark.parametrize("family", [family for family in FAMILIES if family != "deberta-v2"])
def test_defaults_are_those_of_transformers(copy: Callable[..., Path], family: Family) -> None:
    import transformers

    folder = copy(family)
    config = json.loads((folder / "config.json").read_text("utf-8"))
    write_json(folder / "config.json", {key: config[key] for key in ("model_type", "id2label")})
    default = transformers.AutoConfig.for_model(family)
    read = read_configuration(folder).config
    assert read == {key: getattr(default, key) for key in read} | {"num_labels": 1}
    general = vars(transformers.PretrainedConfig()).keys() - {"pad_token_id"}
    assert {key for key, value in vars(default).items() if type(value) is int} - general - UNREAD <= read.keys()


def test_every_hidden_activation_without_weights_is_known() -> None:
    from transformers.activations import ACT2CLS

    assert ACT2CLS.keys() - {"prelu", "xielu"} == HIDDEN_ACTIVATIONS


@pytest.mark.parametrize(
    ("text", "license", "languages"),
    [
        ("---\nlicense: apache-2.0\nlanguage:\n- en\n- 'no'\n---\n# Model\n", "apache-2.0", ("en", "no")),
        ('---\r\nlanguage: [nb, "nn", en]\r\nlicense: mit  # free\r\n---\r\n', "mit", ("nb", "nn", "en")),
        (
            "---\nlanguage: multilingual\ntags:\n- text\nmodel-index:\n- name: x\nlicense: cc-by-nc-4.0\n---",
            "cc-by-nc-4.0",
            ("multilingual",),
        ),
        ("---\nlanguage:\n  - nb\nmodel-index:\n  - results\n---\n", None, ("nb",)),
        ("\ufeff---\nlicense: mit\n---\n", "mit", ()),
        ("---\nlicense:\n---\nlicense: gpl\n", None, ()),
        ("# A model\nlicense: mit\n", None, ()),
        ("---\nlicense: mit\nnever closed", None, ()),
        ("", None, ()),
    ],
)
def test_model_card(copy: Callable[..., Path], text: str, license: str | None, languages: tuple[str, ...]) -> None:
    folder = copy()
    (folder / "README.md").write_bytes(text.encode())
    checkpoint = read_checkpoint(folder)
    assert (checkpoint.license, checkpoint.languages) == (license, languages)
