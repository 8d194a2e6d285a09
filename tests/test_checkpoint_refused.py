"""Every kind of checkpoint that is no cross-encoder, or whose configuration is refused."""

import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from builders import Family, write_json
from checkpoints import SIGMOID, edit_json
from raskrank.checkpoint.config import read_checkpoint
from raskrank.checkpoint.files import MAX_JSON_BYTES
from raskrank.errors import CheckpointError, NotACrossEncoder
from raskrank.torch_backend import load_model


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
    ("updates", "message"),
    [
        ({"architectures": ["DebertaForSequenceClassification"]}, "Deberta.* not supported.*BertForSequence"),
        ({"architectures": [["x"]]}, "not supported"),
        (
            {"architectures": ["BertForSequenceClassification", "XLMRobertaForSequenceClassification"], "model_type": ...},
            "model_type None is not supported",
        ),
        ({"architectures": ..., "model_type": ...}, "model_type None is not supported"),
        ({"architectures": ["DebertaForSequenceClassification"], "model_type": ...}, "Deberta.* is not supported"),
        ({"architectures": ..., "model_type": "deberta"}, "model_type 'deberta' is not supported"),
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


@pytest.mark.parametrize("family", ["roberta", "xlm-roberta"])
def test_positions_counted_from_no_padding_id_are_refused(copy: Callable[..., Path], family: Family) -> None:
    # transformers loads such a model and fails on the first text.
    with pytest.raises(CheckpointError, match="pad_token_id must be an integer of at least 0, got None"):
        read_checkpoint(copy(family, pad_token_id=None))


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
            assert sum(parameter.numel() for parameter in load_model(checkpoint).parameters()) == checkpoint.parameters
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
    with pytest.raises(CheckpointError, match=rf"tokenizer_config\.json: {option} ") as caught:
        read_checkpoint(folder)
    assert "not supported" not in str(caught.value) or "remove the key; else save the tokenizer again" in str(caught.value)


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
