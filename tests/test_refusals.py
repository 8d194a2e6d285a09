"""Every refusal says what the model is, and what to use or do instead."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from builders import write_json
from checkpoints import edit_json
from paths import shared
from raskrank.checkpoint import read_checkpoint
from raskrank.checkpoint.conversion import Origin
from raskrank.checkpoint.registry import RefusedModel, known_models, refused_models
from raskrank.checkpoint.suggestion import SUGGESTION
from raskrank.errors import CheckpointError, NotACrossEncoder
from raskrank_export.source import resolve

LISTWISE = "causal or listwise reranker"


def test_what_is_named_instead_is_known() -> None:
    assert {model.instead for model in refused_models()} <= {model.id for model in known_models()}
    assert not {model.id for model in refused_models()} & {model.id for model in known_models()}


@pytest.mark.parametrize("model", refused_models(), ids=lambda model: model.id)
def test_a_model_that_is_often_asked_for_is_refused_without_the_hub(
    model: RefusedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[object] = []
    monkeypatch.setattr("raskrank_export.source._download", asked.append)
    with pytest.raises(CheckpointError) as caught:
        resolve(model.id.upper())
    assert asked == []
    assert isinstance(caught.value, NotACrossEncoder) is not model.exported
    assert f"is {model.reason}. Instead: raskrank export {model.instead}. {SUGGESTION}" in str(caught.value)
    assert not model.exported or model.instead in model.reason


@pytest.mark.parametrize(
    ("updates", "message"),
    [
        ({"architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3"}, f"{LISTWISE} .Qwen3ForCausalLM"),  # Qwen3-Reranker
        ({"architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2"}, f"{LISTWISE} .Qwen2ForCausalLM"),  # mxbai-rerank-v2
        ({"architectures": ["GemmaForCausalLM"], "model_type": "gemma"}, f"{LISTWISE} .GemmaForCausalLM"),  # v2-gemma
        ({"architectures": ["JinaForRanking"], "model_type": "qwen3"}, f"{LISTWISE} .JinaForRanking"),  # jina-reranker-v3
        ({"architectures": ["JinaVLForRanking"], "model_type": "qwen2_vl"}, f"{LISTWISE} .JinaVLForRanking"),  # m0
        ({"architectures": ["T5ForConditionalGeneration"], "model_type": "t5"}, "generates text"),
        ({"architectures": ["BertModel"]}, "without a classification head"),
        ({"architectures": ["FunnelForSequenceClassification"], "model_type": "funnel"}, "Funnel.* is not supported"),
        ({"architectures": ["XLMRobertaXLForSequenceClassification"], "model_type": "xlm-roberta-xl"}, "XL.* is not supported"),
        ({"auto_map": {"AutoModel": "modeling.Model"}}, "remote code, which is never run"),
        ({"id2label": {"0": "a", "1": "b", "2": "c"}}, "3 labels"),
        ({"hidden_act": "prelu"}, "hidden_act 'prelu' is not supported"),
        ({"position_embedding_type": "relative_key"}, "position_embedding_type"),
        ({"is_decoder": True}, "is_decoder"),
        ({"sbert_ce_default_activation_function": "torch.nn.SiLU"}, "activation .*SiLU.* is not supported"),
    ],
)
def test_what_is_of_another_kind_is_told_what_to_use(
    copy: Callable[..., Path], updates: dict[str, object], message: str
) -> None:
    with pytest.raises(CheckpointError, match=rf"{message}.*{re.escape(SUGGESTION)}$"):
        read_checkpoint(copy(**updates))


def test_modules_of_another_kind(copy: Callable[..., Path]) -> None:
    folder = copy()
    write_json(folder / "modules.json", [{"type": "a.Transformer"}, {"type": "a.Pooling"}])
    with pytest.raises(NotACrossEncoder, match=rf"is a bi-encoder.*{re.escape(SUGGESTION)}$"):
        read_checkpoint(folder)


@pytest.mark.parametrize(
    ("file", "updates", "message"),
    [
        ("config.json", {"quantization_config": {"quant_method": "gptq"}}, "Export from the checkpoint in float"),
        ("config_sentence_transformers.json", {"default_prompt_name": "web"}, "Set default_prompt_name to null"),
        (
            "tokenizer_config.json",
            {"auto_map": {"AutoTokenizer": ["t.T", None]}},
            "remove auto_map and name one of transformers",
        ),
    ],
)
def test_what_can_be_mended_is_told_how(copy: Callable[..., Path], file: str, updates: dict[str, object], message: str) -> None:
    folder = copy()
    if not (folder / file).exists():
        write_json(folder / file, {})
    edit_json(folder / file, updates)
    with pytest.raises(CheckpointError, match=message):
        read_checkpoint(folder)


@pytest.mark.parametrize("named", [True, False])
def test_an_export_by_others_is_refused_with_the_model_that_it_was_made_from(copy: Callable[..., Path], named: bool) -> None:
    folder = copy()
    (folder / "model.safetensors").unlink()
    (folder / "onnx").mkdir()
    for name in ("model.onnx", "model_quantized.onnx"):
        (folder / "onnx" / name).write_bytes(b"no weights")
    advice = "export the model that it was made from"
    if named:
        shutil.copyfile(
            shared("data", "tokenizers", "ms-marco-MiniLM-L-6-v2") / "config.variant-824-xenova.json", folder / "config.json"
        )
        advice = "export the model that config.json says it was made from, raskrank export cross-encoder/ms-marco-MiniLM-L-6-v2"
    with pytest.raises(
        CheckpointError, match=rf"only onnx/model\.onnx, onnx/model_quantized\.onnx: an export by others.*{advice}"
    ):
        read_checkpoint(folder)


@pytest.mark.parametrize("model", ["Xenova/some-reranker", "onnx-community/some-reranker-ONNX"])
def test_an_export_by_others_on_the_hub_is_known_by_its_owner(copy: Callable[..., Path], model: str) -> None:
    # Its ONNX files are not downloaded. Nor is there a pickle that could be converted.
    folder = copy(_name_or_path="owner/some-reranker")
    (folder / "model.safetensors").unlink()
    says = "only ONNX files: an export by others.*raskrank export owner/some-reranker"
    with pytest.raises(CheckpointError, match=says) as caught:
        read_checkpoint(folder, Origin(model))
    assert "python -c" not in str(caught.value)


def test_a_pickle_is_told_how_it_is_read_safely(copy: Callable[..., Path]) -> None:
    folder = copy()
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(
        CheckpointError, match=r"runs none of its code, write the missing file: python -c .*raskrank export \./"
    ):
        read_checkpoint(folder)
