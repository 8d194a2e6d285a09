"""What a checkpoint says about itself, and every kind of folder that is refused."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest

from builders import Family, seeded_checkpoint, tiny_checkpoint, write_json
from paths import NANO_CHECKPOINT, shared
from raskrank.checkpoint import Checkpoint, read_checkpoint
from raskrank.errors import CheckpointError, NotACrossEncoder
from raskrank.files import MAX_JSON_BYTES
from raskrank.weights import MAX_HEADER_BYTES

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
        assert torch.equal(rebuilt(input_ids=ids).logits, reference(input_ids=ids).logits)


@pytest.mark.parametrize(
    ("family", "usable", "stated", "expected"),
    [
        ("bert", 64, 48, 48),
        ("bert", 64, 512, 64),
        ("bert", 64, 10**30, 64),
        ("bert", 64, 1e30, 64),
        ("bert", 64, ..., 64),
        ("bert", 64, 0, 64),
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


@pytest.mark.parametrize("stated", ["torch.nn.modules.activation.Tanh", "os.system", 7, []])
def test_activation_of_another_kind_is_refused(copy: Callable[..., Path], stated: object) -> None:
    with pytest.raises(CheckpointError, match=r"activation .* is not supported"):
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
        ({"architectures": ...}, "does not name one architecture"),
        ({"architectures": []}, "does not name one architecture"),
        ({"model_type": "roberta"}, "model_type 'roberta' does not fit BertForSequenceClassification"),
        ({"model_type": ...}, "model_type None does not fit"),
        ({"id2label": {"0": "no", "1": "yes"}}, "2 labels"),
        ({"num_labels": 3, "id2label": ...}, "3 labels"),
        ({"id2label": ...}, "2 labels"),
        ({"num_labels": 1, "id2label": {"0": "a", "1": "b", "2": "c"}}, "3 labels"),
        ({"hidden_act": "relu"}, "hidden_act 'relu'"),
        ({"hidden_act": "gelu_new"}, "hidden_act 'gelu_new'"),
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
        ({"pad_token_id": None}, "pad_token_id must be an integer"),
        ({"pad_token_id": -1}, "pad_token_id must be an integer of at least 0"),
        ({"layer_norm_eps": float("nan")}, "layer_norm_eps must lie between 0 and 1"),
        ({"layer_norm_eps": "1e-12"}, "layer_norm_eps must lie between 0 and 1"),
    ],
)
def test_config_is_refused(copy: Callable[..., Path], updates: dict[str, object], message: str) -> None:
    with pytest.raises(CheckpointError, match=message) as raised:
        read_checkpoint(copy(**updates))
    assert not isinstance(raised.value, NotACrossEncoder)


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
        ("tokenizer.json", r"no tokenizer\.json\. Save a fast tokenizer"),
        ("model.safetensors", r"no model\.safetensors\. Only safetensors"),
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


@pytest.mark.parametrize("name", ["pytorch_model.bin", "pytorch_model-00001-of-00002.bin", "model.pt", "tf_model.h5"])
def test_pickles_are_refused(copy: Callable[..., Path], name: str) -> None:
    folder = copy()
    (folder / "model.safetensors").rename(folder / name)
    with pytest.raises(CheckpointError, match=f"only {name}.*pickles can run code.*safe_serialization=True"):
        read_checkpoint(folder)


def test_truncation_on_the_left_is_refused(copy: Callable[..., Path]) -> None:
    folder = copy()
    edit_json(folder / "tokenizer_config.json", {"truncation_side": "right"})
    read_checkpoint(folder)
    edit_json(folder / "tokenizer_config.json", {"truncation_side": "left"})
    with pytest.raises(CheckpointError, match="truncation_side"):
        read_checkpoint(folder)


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


def test_reading_needs_no_heavy_library(originals: Mapping[Family, Path]) -> None:
    program = (
        "import sys; from pathlib import Path; from raskrank.checkpoint import read_checkpoint; "
        "read_checkpoint(Path(sys.argv[1])); "
        "print(sorted({'torch', 'transformers', 'safetensors', 'onnx', 'optimum'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(originals["bert"])], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.strip() == "[]"
