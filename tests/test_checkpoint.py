"""What a checkpoint says about itself, and every kind of folder that is refused."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from builders import Family, seeded_checkpoint, tiny_checkpoint, write_json
from paths import NANO_CHECKPOINT, shared
from raskrank.checkpoint.config import HIDDEN_ACTIVATIONS, Checkpoint, read_checkpoint, read_configuration
from raskrank.checkpoint.conversion import Origin
from raskrank.checkpoint.files import MAX_JSON_BYTES
from raskrank.checkpoint.weights import MAX_HEADER_BYTES
from raskrank.errors import CheckpointError, NotACrossEncoder
from raskrank.torch_backend import load_model

FAMILIES: tuple[Family, ...] = ("bert", "roberta", "xlm-roberta")
SIGMOID = "torch.nn.modules.activation.Sigmoid"
IDENTITY = "torch.nn.modules.linear.Identity"


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> Mapping[Family, Path]:
    """One checkpoint of each family; tests change copies."""
    root = tmp_path_factory.mktemp("checkpoints")
    return {family: tiny_checkpoint(root / family, family, positions=64) for family in FAMILIES}


@pytest.fixture
def copy(originals: Mapping[Family, Path], tmp_path: Path) -> Callable[..., Path]:
    """A copy of a family's checkpoint, with keys of its config.json replaced (and removed where the value is ...)."""

    def make(family: Family = "bert", **updates: object) -> Path:
        folder = tmp_path / family
        shutil.copytree(originals[family], folder)
        edit_json(folder / "config.json", updates)
        return folder

    return make


def edit_json(path: Path, updates: Mapping[str, object]) -> None:
    values = json.loads(path.read_text("utf-8")) | updates
    write_json(path, {key: value for key, value in values.items() if value is not ...})


def read_weights(path: Path) -> tuple[dict[str, Any], bytes]:
    content = path.read_bytes()
    end = 8 + int.from_bytes(content[:8], "little")
    return json.loads(content[8:end]), content[end:]


def write_weights(path: Path, header: Mapping[str, object], data: bytes) -> None:
    encoded = json.dumps(header).encode()
    path.write_bytes(len(encoded).to_bytes(8, "little") + encoded + data)


def drop_tensors(path: Path, names: Iterable[str]) -> None:
    header, data = read_weights(path)
    dropped = set(names)
    assert dropped <= header.keys()
    write_weights(path, {name: entry for name, entry in header.items() if name not in dropped}, data)


def zero_checkpoint(folder: Path, source: Path) -> Path:
    """A published model's small files with weights that are a hole in a file: right names and shapes, no memory."""
    folder.mkdir()
    for path in source.glob("*.json"):
        if ".variant-" not in path.name:
            shutil.copyfile(path, folder / path.name)
    config = json.loads((folder / "config.json").read_text("utf-8"))
    header: dict[str, object] = {}
    size = 0
    for name, shape in tensor_shapes(config):
        length = 4
        for dimension in shape:
            length *= dimension
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [size, size + length]}
        size += length
    encoded = json.dumps(header).encode()
    with (folder / "model.safetensors").open("wb") as file:
        file.write(len(encoded).to_bytes(8, "little") + encoded)
        file.truncate(8 + len(encoded) + size)
    return folder


def tensor_shapes(config: Mapping[str, Any]) -> list[tuple[str, list[int]]]:
    """Parameters as transformers names them, from the model class itself on the meta device."""
    import torch
    import transformers

    model_class = getattr(transformers, config["architectures"][0])
    with torch.device("meta"):
        model = model_class(model_class.config_class.from_dict(dict(config)))
    return [(name, list(parameter.shape)) for name, parameter in model.named_parameters()]


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
        layers=model.config.num_hidden_layers,
        heads=model.config.num_attention_heads,
        hidden_size=model.config.hidden_size,
        vocab_size=tokenizer.get_vocab_size(),
        type_vocab_size=model.config.type_vocab_size,
        max_length=64,
        pad_id=tokenizer.token_to_id("[PAD]" if family == "bert" else "<pad>"),
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
    ("architecture", "model_type"),
    [
        ("Qwen3ForCausalLM", "qwen3"),
        ("GemmaForCausalLM", "gemma"),
        ("BertForCausalLM", "bert"),
        ("LlamaForSequenceClassification", "llama"),
        ("Qwen2ForSequenceClassification", "qwen2"),
        ("JinaForRanking", "qwen3"),
        ("T5ForConditionalGeneration", "t5"),
    ],
)
def test_generating_models_are_refused(copy: Callable[..., Path], architecture: str, model_type: str) -> None:
    # jina-reranker-v3 also has auto_map: what it is says more than what it would need.
    folder = copy(architectures=[architecture], model_type=model_type, auto_map={"AutoModel": "modeling.JinaForRanking"})
    with pytest.raises(NotACrossEncoder, match=architecture):
        read_checkpoint(folder)


@pytest.mark.parametrize("architecture", ["BertModel", "XLMRobertaModel", "BertForMaskedLM", "RobertaForQuestionAnswering"])
def test_encoder_without_a_head_is_refused(copy: Callable[..., Path], architecture: str) -> None:
    with pytest.raises(NotACrossEncoder, match=f"without a classification head .{architecture}"):
        read_checkpoint(copy(architectures=[architecture]))


@pytest.mark.parametrize("pooling", ["sentence_transformers.models.Pooling", "x.modules.pooling.Pooling"])
def test_bi_encoder_is_refused_even_with_a_head(copy: Callable[..., Path], pooling: str) -> None:
    folder = copy()
    transformer = {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"}
    write_json(folder / "modules.json", [transformer, {"idx": 1, "name": "1", "path": "1_Pooling", "type": pooling}])
    with pytest.raises(NotACrossEncoder, match=r"bi-encoder .*Transformer, Pooling"):
        read_checkpoint(folder)


@pytest.mark.parametrize("saved_as", ["SentenceTransformer", "SparseEncoder"])
def test_saved_as_another_sentence_transformers_class_is_refused(copy: Callable[..., Path], saved_as: str) -> None:
    folder = copy()
    write_json(folder / "config_sentence_transformers.json", {"model_type": saved_as})
    with pytest.raises(NotACrossEncoder, match=saved_as):
        read_checkpoint(folder)


def test_further_modules_are_refused(copy: Callable[..., Path]) -> None:
    folder = copy()
    write_json(folder / "modules.json", [{"type": "a.Transformer"}, {"type": "b.Dense"}])
    with pytest.raises(CheckpointError, match="lists Dense"):
        read_checkpoint(folder)


@pytest.mark.parametrize(
    ("family", "names"),
    [
        ("bert", ["classifier.weight", "classifier.bias"]),
        ("bert", ["bert.pooler.dense.weight"]),
        ("roberta", ["classifier.out_proj.weight"]),
        ("xlm-roberta", ["classifier.dense.weight"]),
    ],
)
def test_weights_without_the_head_are_refused(copy: Callable[..., Path], family: Family, names: list[str]) -> None:
    folder = copy(family)
    drop_tensors(folder / "model.safetensors", names)
    with pytest.raises(NotACrossEncoder, match=f"no classification head .{names[0]} is missing"):
        read_checkpoint(folder)


@pytest.mark.parametrize(
    ("updates", "message"),
    [
        ({"architectures": ["DebertaV2ForSequenceClassification"]}, "Deberta.* not supported.*BertForSequence"),
        ({"architectures": [["x"]]}, "not supported"),
        (
            {"architectures": ["BertForSequenceClassification", "XLMRobertaForSequenceClassification"], "model_type": ...},
            "model_type None is not supported",
        ),
        ({"architectures": ..., "model_type": ...}, "model_type None is not supported"),
        ({"architectures": ["DebertaV2ForSequenceClassification"], "model_type": ...}, "DebertaV2.* is not supported"),
        ({"architectures": ..., "model_type": "deberta-v2"}, "model_type 'deberta-v2' is not supported"),
        ({"architectures": ..., "model_type": ["bert"]}, r"model_type \['bert'\] is not supported"),
        ({"model_type": "roberta"}, "model_type 'roberta' does not fit BertForSequenceClassification"),
        ({"id2label": {"0": "no", "1": "yes"}}, "2 labels"),
        ({"num_labels": 3, "id2label": ...}, "3 labels"),
        ({"id2label": ...}, "2 labels"),
        ({"num_labels": 1, "id2label": {"0": "a", "1": "b", "2": "c"}}, "3 labels"),
        ({"id2label": {}}, "0 labels"),
        ({"id2label": ["LABEL_0"]}, "id2label must be an object"),
        ({"num_labels": "1", "id2label": ...}, "'1' labels"),
        ({"num_labels": True, "id2label": ...}, "True labels"),
        ({"num_labels": None, "id2label": None}, "2 labels"),
        ({"_num_labels": 1, "id2label": ...}, "2 labels"),
        ({"hidden_act": "prelu"}, "hidden_act 'prelu' is not supported"),
        ({"hidden_act": None}, "hidden_act None is not supported"),
        ({"position_embedding_type": None}, "position_embedding_type None is not supported"),
        ({"position_embedding_type": "relative_key"}, "position_embedding_type 'relative_key'"),
        ({"is_decoder": True}, "is_decoder"),
        ({"add_cross_attention": True}, "add_cross_attention"),
        ({"pruned_heads": {"0": [1]}}, "pruned_heads"),
        ({"quantization_config": {"quant_method": "gptq"}}, "quantization_config"),
        ({"auto_map": {"AutoModel": "modeling.Model"}}, "remote code, which is never run"),
        ({"text_config": {"auto_map": {"AutoModel": "m.M"}}}, "remote code, which is never run"),
        ({"_attn_implementation_internal": "someone/kernel"}, "_attn_implementation_internal.*choose code"),
        ({"_experts_implementation": "someone/kernel"}, "_experts_implementation"),
        ({"attn_implementation": "someone/kernel"}, "attn_implementation"),
        ({"text_config": {"_attn_implementation": "someone/kernel"}}, "_attn_implementation"),
        ({"vocab_size": 100}, r"word_embeddings\.weight has shape .*expected \(100, 32\)"),
        ({"num_hidden_layers": 3}, r"encoder\.layer\.2\..* is missing"),
        ({"num_hidden_layers": 10**12}, r"encoder\.layer\.2\..* is missing"),
        ({"num_hidden_layers": 1}, "more layers than"),
        ({"max_position_embeddings": 512}, "position_embeddings.weight has shape"),
        ({"intermediate_size": 65}, "intermediate.dense.weight has shape"),
        ({"num_attention_heads": 5}, "hidden_size 32 is no multiple of 5 heads"),
        ({"num_attention_heads": 0}, "num_attention_heads must be an integer of at least 1, got 0"),
        ({"hidden_size": 32.0}, "hidden_size must be an integer"),
        ({"vocab_size": True}, "vocab_size must be an integer"),
        ({"pad_token_id": 1.0}, "pad_token_id must be an integer"),
        ({"pad_token_id": 10**9}, "pad_token_id 1000000000 is no token of a vocabulary of"),
        ({"pad_token_id": -1}, "pad_token_id must be an integer of at least 0"),
        ({"layer_norm_eps": float("nan")}, "layer_norm_eps must lie between 0 and 1"),
        ({"layer_norm_eps": "1e-12"}, "layer_norm_eps must lie between 0 and 1"),
    ],
)
def test_config_is_refused(copy: Callable[..., Path], updates: dict[str, object], message: str) -> None:
    with pytest.raises(CheckpointError, match=message) as raised:
        read_checkpoint(copy(**updates))
    assert not isinstance(raised.value, NotACrossEncoder)


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


@pytest.mark.parametrize("family", ["roberta", "xlm-roberta"])
def test_positions_counted_from_no_padding_id_are_refused(copy: Callable[..., Path], family: Family) -> None:
    # transformers loads such a model and fails on the first text.
    with pytest.raises(CheckpointError, match="pad_token_id must be an integer of at least 0, got None"):
        read_checkpoint(copy(family, pad_token_id=None))


@pytest.mark.parametrize("family", FAMILIES)
def test_defaults_are_those_of_transformers(copy: Callable[..., Path], family: Family) -> None:
    import transformers

    folder = copy(family)
    config = json.loads((folder / "config.json").read_text("utf-8"))
    write_json(folder / "config.json", {key: config[key] for key in ("model_type", "id2label")})
    default = transformers.AutoConfig.for_model(family)
    read = read_configuration(folder).config
    assert read == {key: getattr(default, key) for key in read} | {"num_labels": 1}


def test_every_hidden_activation_without_weights_is_known() -> None:
    from transformers.activations import ACT2CLS

    assert ACT2CLS.keys() - {"prelu", "xielu"} == HIDDEN_ACTIVATIONS


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.just(10**400)
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from(
        ["bert", "roberta", "BertForSequenceClassification", "BertModel", "gelu", SIGMOID, "absolute", "x" * 10**5]
    ),
    lambda values: (
        st.lists(values, max_size=3) | st.dictionaries(st.text(max_size=10) | st.sampled_from("01"), values, max_size=3)
    ),
    max_leaves=8,
)
CONFIG_KEYS = (
    "architectures", "model_type", "auto_map", "_num_labels", "num_labels", "id2label", "label2id", "vocab_size", "hidden_size",
    "num_hidden_layers", "num_attention_heads", "intermediate_size", "max_position_embeddings", "type_vocab_size",
    "pad_token_id", "layer_norm_eps", "hidden_act", "position_embedding_type", "is_decoder", "add_cross_attention",
    "pruned_heads", "quantization_config", "sentence_transformers", "sbert_ce_default_activation_function", "emb_pooler",
    "problem_type", "torch_dtype", "transformers_version",
)  # fmt: skip
TOKENIZER_KEYS = (
    "model_max_length", "max_len", "truncation_side", "padding_side", "auto_map", "tokenizer_class", "split_special_tokens",
    "do_lower_case", "added_tokens_decoder", "fast_tokenizer_files", "init_inputs",
)  # fmt: skip
CARD_KEYS = ("activation_fn", "model_type", "default_prompt_name", "prompts")


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    config=st.dictionaries(st.sampled_from(CONFIG_KEYS), JSON | st.just(...), max_size=4),
    tokenizer=st.dictionaries(st.sampled_from(TOKENIZER_KEYS), JSON, max_size=3),
    card=st.dictionaries(st.sampled_from(CARD_KEYS), JSON, max_size=2),
    modules=st.none() | JSON,
)
def test_any_json_is_read_or_refused(
    originals: Mapping[Family, Path],
    config: dict[str, object],
    tokenizer: dict[str, object],
    card: dict[str, object],
    modules: object,
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(originals["bert"], folder, dirs_exist_ok=True)
        edit_json(Path(folder, "config.json"), config)
        edit_json(Path(folder, "tokenizer_config.json"), tokenizer)
        write_json(Path(folder, "config_sentence_transformers.json"), card)
        if modules is not None:
            write_json(Path(folder, "modules.json"), modules)
        refused = ""
        try:
            checkpoint = read_checkpoint(Path(folder))
            assert load_model(checkpoint).num_parameters() == checkpoint.parameters
        except CheckpointError as error:
            refused = str(error)
        assert len(refused) < 1000


def test_pad_id_that_leaves_no_position_is_refused(copy: Callable[..., Path]) -> None:
    with pytest.raises(CheckpointError, match="no position for a token"):
        read_checkpoint(copy("roberta", pad_token_id=65))


def test_harmless_private_keys_pass(copy: Callable[..., Path]) -> None:
    folder = copy(_name_or_path="someone/model", _commit_hash=None, _attn_implementation_autoset=True)
    assert read_checkpoint(folder).layers == 2


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "valid JSON"),
        (b'{"model_type": "bert"', "valid JSON"),
        (b"\xff\xfe{}", "valid JSON"),
        (b"<!DOCTYPE html>", "valid JSON"),
        (b"[" * 100_000, "valid JSON"),
        (b"[1, 2]", "not an object"),
        (b"null", "not an object"),
        (b" " * (MAX_JSON_BYTES + 1), "larger than"),
    ],
    ids=["empty", "cut", "utf-16", "html", "deep", "list", "null", "large"],
)
def test_broken_config_is_refused(copy: Callable[..., Path], content: bytes, message: str) -> None:
    folder = copy()
    (folder / "config.json").write_bytes(content)
    with pytest.raises(CheckpointError, match=message):
        read_checkpoint(folder)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("config.json", r"has no config\.json"),
        ("tokenizer.json", r"no tokenizer\.json\. Where you trust it.*python -c .*raskrank export \./bert-converted OUTPUT$"),
        ("model.safetensors", r"no model\.safetensors\. Only safetensors.*raskrank export \./bert-converted OUTPUT$"),
    ],
)
def test_missing_file_is_refused(copy: Callable[..., Path], name: str, message: str) -> None:
    folder = copy()
    (folder / name).unlink()
    with pytest.raises(CheckpointError, match=message):
        read_checkpoint(folder)


def test_folder_must_be_a_folder(copy: Callable[..., Path]) -> None:
    folder = copy()
    for path in (folder / "absent", folder / "config.json"):
        with pytest.raises(CheckpointError, match="is not a folder"):
            read_checkpoint(path)


@pytest.mark.parametrize("name", ["model.pt", "tf_model.h5", "flax_model.msgpack"])
def test_weights_of_another_kind_are_refused(copy: Callable[..., Path], name: str) -> None:
    folder = copy()
    (folder / "model.safetensors").rename(folder / name)
    with pytest.raises(CheckpointError, match=f"only {name}.*pickles can run code.*Ask whoever made it for safetensors"):
        read_checkpoint(folder)


def follow(message: str, folder: Path) -> Path:
    """Run the command that a message suggests, as it is, in `folder`; returns what `raskrank export` is to be given."""
    found = re.search(r"(python -c .*) and then: raskrank export (.+) OUTPUT$", message)
    assert found, message
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}", "HF_HUB_OFFLINE": "1"}
    subprocess.run(found[1], shell=True, cwd=folder, env=environment, timeout=120, check=True, capture_output=True)
    return folder.joinpath(*shlex.split(found[2]))


@pytest.mark.parametrize("place", ["folder", "folder with a quote' and a space", "hub"])
def test_what_a_message_suggests_for_pickles_works(
    copy: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    import torch
    from safetensors.torch import load_file

    sound = copy(sbert_ce_default_activation_function=IDENTITY)
    expected = read_checkpoint(sound)
    folder, origin = tmp_path / place, None
    if place == "hub":
        monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
        home, commit = tmp_path / "cache" / "models--owner--model", "0123456789abcdef0123456789abcdef01234567"
        folder, origin = home / "snapshots" / commit, Origin("owner/model", "v1")
        (home / "refs").mkdir(parents=True)
        (home / "refs" / "v1").write_text(commit)
    shutil.copytree(sound, folder)
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    (folder / "README.md").write_text("---\nlicense: cc-by-nc-4.0\n---\n")
    with pytest.raises(CheckpointError, match=r"has no model\.safetensors, only pytorch_model\.bin") as refused:
        read_checkpoint(folder, origin)
    work = tmp_path / "work"
    work.mkdir()
    made = read_checkpoint(follow(str(refused.value), work))
    assert (made.parameters, made.activation, made.license) == (expected.parameters, "identity", "cc-by-nc-4.0")


def test_what_a_message_suggests_for_a_slow_tokenizer_works(copy: Callable[..., Path], tmp_path: Path) -> None:
    from tokenizers import Tokenizer

    folder = copy()
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    pieces = sorted(tokenizer.get_vocab().items(), key=lambda entry: entry[1])
    (folder / "vocab.txt").write_text("".join(f"{piece}\n" for piece, _ in pieces), "utf-8")
    (folder / "tokenizer.json").unlink()
    with pytest.raises(CheckpointError, match=r"has no tokenizer\.json") as refused:
        read_checkpoint(folder)
    made = follow(str(refused.value), tmp_path)
    assert read_checkpoint(made).layers == 2
    text = "Hvem kan Python på øya?"
    assert Tokenizer.from_file(str(made / "tokenizer.json")).encode(text).ids == tokenizer.encode(text).ids


def test_an_adapter_is_refused_by_name(copy: Callable[..., Path]) -> None:
    # With peft installed, transformers would load the model that the adapter names, from anywhere.
    folder = copy()
    write_json(folder / "adapter_config.json", {"base_model_name_or_path": "/somewhere/else"})
    with pytest.raises(CheckpointError, match=r"has adapter_config\.json.*Merge the adapter"):
        read_checkpoint(folder)
    (folder / "config.json").unlink()
    with pytest.raises(CheckpointError, match="Merge the adapter"):
        read_checkpoint(folder)


@pytest.mark.parametrize("family", FAMILIES)
def test_older_names_of_layer_norm_are_read(copy: Callable[..., Path], family: Family) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    folder = copy(family)
    before = read_checkpoint(folder)
    expected = load_model(before).state_dict()
    weights = load_file(folder / "model.safetensors")
    older = {name.replace("Norm.weight", "Norm.gamma").replace("Norm.bias", "Norm.beta"): t for name, t in weights.items()}
    assert len(older.keys() - weights.keys()) == 10
    save_file(older, folder / "model.safetensors", metadata={"format": "pt"})
    found = load_model(read_checkpoint(folder)).state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert read_checkpoint(folder).parameters == before.parameters


def test_both_names_of_layer_norm_at_once_are_refused(copy: Callable[..., Path]) -> None:
    from safetensors.torch import load_file, save_file

    folder = copy()
    weights = load_file(folder / "model.safetensors")
    save_file(weights | {"bert.embeddings.LayerNorm.gamma": weights["classifier.weight"].clone()}, folder / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"LayerNorm\.gamma or beta beside"):
        read_checkpoint(folder)


def test_names_that_no_file_system_allows_are_refused(copy: Callable[..., Path]) -> None:
    with pytest.raises(CheckpointError, match="cannot be read: File name too long"):
        read_checkpoint(Path("x" * 5000))
    folder = copy()
    weight_map = shard(folder) | {"classifier.weight": "x" * 5000 + ".safetensors"}
    write_json(folder / "model.safetensors.index.json", {"weight_map": weight_map})
    with pytest.raises(CheckpointError, match="cannot be read: File name too long") as raised:
        read_checkpoint(folder)
    assert len(str(raised.value)) < 1000


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("truncation_side", "left"),
        ("split_special_tokens", True),
        ("from_slow", True),
        ("tokenizer_file", "/somewhere/else.json"),
        ("fast_tokenizer_files", ["tokenizer.4.0.json"]),
        ("fix_mistral_regex", True),
        ("model_max_length", "512"),
        ("model_max_length", [512]),
        ("model_max_length", True),
        ("max_len", "512"),
    ],
)
def test_an_option_of_the_tokenizer_that_changes_ids_is_refused_by_name(
    copy: Callable[..., Path], option: str, value: object
) -> None:
    folder = copy()
    if option == "max_len":
        edit_json(folder / "tokenizer_config.json", {"model_max_length": ...})
    edit_json(folder / "tokenizer_config.json", {option: value})
    with pytest.raises(CheckpointError, match=rf"tokenizer_config\.json: {option} "):
        read_checkpoint(folder)


def test_options_of_the_tokenizer_that_change_no_ids_pass(copy: Callable[..., Path]) -> None:
    folder = copy()
    harmless = {"truncation_side": "right", "split_special_tokens": False, "padding_side": "left", "legacy": True}
    edit_json(folder / "tokenizer_config.json", harmless | {"clean_up_tokenization_spaces": False, "tokenizer_file": None})
    assert read_checkpoint(folder).max_length == 64


def test_remote_code_of_the_tokenizer_is_refused(copy: Callable[..., Path]) -> None:
    folder = copy()
    edit_json(folder / "tokenizer_config.json", {"auto_map": {"AutoTokenizer": ["tokenization.T", None]}})
    with pytest.raises(CheckpointError, match=r"tokenizer_config\.json has auto_map"):
        read_checkpoint(folder)


def test_default_prompt_is_refused(copy: Callable[..., Path]) -> None:
    folder = copy()
    write_json(
        folder / "config_sentence_transformers.json",
        {"prompts": {"web": "Given a web search query, "}, "default_prompt_name": "web"},
    )
    with pytest.raises(CheckpointError, match="default prompt"):
        read_checkpoint(folder)


@pytest.mark.parametrize("content", ["{}", "[1]", "{", "3"])
def test_broken_modules_are_refused(copy: Callable[..., Path], content: str) -> None:
    folder = copy()
    (folder / "modules.json").write_text(content)
    with pytest.raises(CheckpointError, match=r"modules\.json"):
        read_checkpoint(folder)


def test_half_precision_and_integer_buffers_pass(copy: Callable[..., Path]) -> None:
    # Old checkpoints keep position_ids, int64, beside their parameters.
    import torch
    from safetensors.torch import load_file, save_file

    path = copy() / "model.safetensors"
    expected = read_checkpoint(path.parent).parameters
    tensors = {name: tensor.bfloat16() for name, tensor in load_file(path).items()}
    save_file(tensors | {"bert.embeddings.position_ids": torch.arange(64)[None]}, path)
    assert read_checkpoint(path.parent).parameters == expected


@pytest.mark.parametrize("dtype", ["I8", "U8", "F8_E4M3"])
def test_quantized_weights_are_refused(copy: Callable[..., Path], dtype: str) -> None:
    path = copy() / "model.safetensors"
    header, data = read_weights(path)
    header["bert.encoder.layer.1.output.dense.weight"]["dtype"] = dtype
    write_weights(path, header, data)
    with pytest.raises(CheckpointError, match=f"is {dtype}.*not a quantized one"):
        read_checkpoint(path.parent)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"short",
        b"<!DOCTYPE html><html>Not found</html>",
        (2**63).to_bytes(8, "little"),
        (MAX_HEADER_BYTES + 1).to_bytes(8, "little") + b" " * 100,
        (100).to_bytes(8, "little") + b"{}",
    ],
    ids=["empty", "short", "html", "huge", "above the cap", "header cut"],
)
def test_no_safetensors_file_is_refused(copy: Callable[..., Path], content: bytes) -> None:
    path = copy() / "model.safetensors"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="not a whole safetensors file"):
        read_checkpoint(path.parent)


def test_header_above_the_cap_is_refused(copy: Callable[..., Path]) -> None:
    path = copy() / "model.safetensors"
    header, data = read_weights(path)
    write_weights(path, header | {"__metadata__": {"x": "x" * MAX_HEADER_BYTES}}, data)
    with pytest.raises(CheckpointError, match="not a whole safetensors file"):
        read_checkpoint(path.parent)


def test_lfs_pointer_is_named(copy: Callable[..., Path]) -> None:
    path = copy() / "model.safetensors"
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 134\n")
    with pytest.raises(CheckpointError, match=r"Git LFS pointer.*git lfs pull"):
        read_checkpoint(path.parent)


def test_cut_weights_are_refused(copy: Callable[..., Path]) -> None:
    path = copy() / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match="is cut off"):
        read_checkpoint(path.parent)


@pytest.mark.parametrize(
    "entry",
    [
        None,
        {},
        {"dtype": "F32", "shape": [2], "data_offsets": [0]},
        {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]},
        {"dtype": "F32", "shape": ["1"], "data_offsets": [0, 4]},
        {"dtype": 32, "shape": [1], "data_offsets": [0, 4]},
        {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]},
        {"dtype": "F32", "shape": [0], "data_offsets": [8, 4]},
    ],
)
def test_broken_header_is_refused(copy: Callable[..., Path], entry: object) -> None:
    path = copy() / "model.safetensors"
    header, data = read_weights(path)
    write_weights(path, header | {"classifier.bias": entry}, data)
    with pytest.raises(CheckpointError, match=r"classifier\.bias"):
        read_checkpoint(path.parent)


def test_header_that_is_no_object_is_refused(copy: Callable[..., Path]) -> None:
    path = copy() / "model.safetensors"
    path.write_bytes((2).to_bytes(8, "little") + b"[]")
    with pytest.raises(CheckpointError, match="not an object"):
        read_checkpoint(path.parent)


def shard(folder: Path) -> dict[str, str]:
    """Split model.safetensors in two, as large models are published; returns the weight map."""
    from safetensors.torch import load_file, save_file

    tensors = load_file(folder / "model.safetensors")
    weight_map: dict[str, str] = {}
    for number, names in enumerate((sorted(tensors)[::2], sorted(tensors)[1::2]), start=1):
        file = f"model-{number:05}-of-00002.safetensors"
        save_file({name: tensors[name] for name in names}, folder / file)
        weight_map |= dict.fromkeys(names, file)
    (folder / "model.safetensors").unlink()
    write_json(folder / "model.safetensors.index.json", {"metadata": {}, "weight_map": weight_map})
    return weight_map


def test_shards_are_read_together(copy: Callable[..., Path]) -> None:
    folder = copy("xlm-roberta")
    expected = read_checkpoint(folder).parameters
    shard(folder)
    assert read_checkpoint(folder).parameters == expected


@pytest.mark.parametrize("name", ["../x.safetensors", "/x.safetensors", "a/b.safetensors", "x.bin", "x.safetensors\n", 3])
def test_shards_beside_the_index_only(copy: Callable[..., Path], name: object) -> None:
    folder = copy()
    weight_map = shard(folder)
    write_json(folder / "model.safetensors.index.json", {"weight_map": weight_map | {"classifier.weight": name}})
    with pytest.raises(CheckpointError, match="is not the name of a file beside it"):
        read_checkpoint(folder)


def test_missing_shard_is_named(copy: Callable[..., Path]) -> None:
    folder = copy()
    shard(folder)
    (folder / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"model-00002-of-00002\.safetensors is missing"):
        read_checkpoint(folder)


def test_index_that_names_the_wrong_shard_is_refused(copy: Callable[..., Path]) -> None:
    folder = copy()
    weight_map = shard(folder)
    wrong = {"model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"} - {weight_map["classifier.weight"]}
    write_json(folder / "model.safetensors.index.json", {"weight_map": weight_map | {"classifier.weight": wrong.pop()}})
    with pytest.raises(CheckpointError, match=r"does not hold classifier\.weight"):
        read_checkpoint(folder)


@pytest.mark.parametrize("weight_map", [None, {}, []])
def test_index_without_a_map_is_refused(copy: Callable[..., Path], weight_map: object) -> None:
    folder = copy()
    shard(folder)
    write_json(folder / "model.safetensors.index.json", {"weight_map": weight_map})
    with pytest.raises(CheckpointError, match="no weight_map"):
        read_checkpoint(folder)


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
