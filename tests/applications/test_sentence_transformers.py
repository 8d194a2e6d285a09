"""Raskrank's CrossEncoder beside sentence-transformers' own, in its evaluator, and in BEIR.

Tests named as in sentence-transformers' tests/cross_encoder check what those check.
"""

import inspect
import shutil
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import sentence_transformers
import torch
from beir.reranking import Rerank
from datasets import Dataset
from sentence_transformers.cross_encoder import evaluation

from applications.texts import QUERY, TEXTS
from checkpoints import edit_json
from paths import NANO_CHECKPOINT
from raskrank import Reranker
from raskrank.integrations.sentence_transformers import CrossEncoder

DOCUMENTS = TEXTS[:3]
PAIRS = [[QUERY, document] for document in DOCUMENTS]
# It asks for sentence-transformers' own class, and needs what that has.
CrossEncoderRerankingEvaluator: Any = evaluation.CrossEncoderRerankingEvaluator
INT8 = 0.05  # how far a score of the embedded bundle may be from that of its checkpoint in PyTorch


@pytest.fixture(scope="module")
def ours() -> Iterator[CrossEncoder]:
    model = CrossEncoder()
    yield model
    model.reranker.close()


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("checkpoint") / "nano"
    shutil.copytree(NANO_CHECKPOINT, folder)
    # Without being told, transformers 5 gives a model that knows token types none.
    edit_json(folder / "tokenizer_config.json", {"model_input_names": ["input_ids", "token_type_ids", "attention_mask"]})
    return sentence_transformers.CrossEncoder(str(folder), device="cpu")


@pytest.mark.parametrize("method", ["predict", "rank"])
def test_arguments_have_their_names_order_and_defaults(method: str) -> None:
    expected = inspect.signature(getattr(sentence_transformers.CrossEncoder, method)).parameters
    found = inspect.signature(getattr(CrossEncoder, method)).parameters
    assert [(name, parameter.default) for name, parameter in found.items()] == [
        (name, parameter.default) for name, parameter in expected.items() if name != "kwargs"
    ]


@pytest.mark.parametrize("flags", [{}, {"convert_to_tensor": True}, {"convert_to_numpy": False}], ids=str)
@pytest.mark.parametrize(
    "inputs",
    [
        *(PAIRS, tuple(map(tuple, PAIRS)), np.array(PAIRS), PAIRS[:1]),
        *(PAIRS[0], tuple(PAIRS[0]), np.array(PAIRS[0])),
        *([], np.array([], dtype=str)),
    ],
    ids=["lists", "tuples", "array", "list of one", "one list", "one tuple", "one array", "none", "empty array"],
)
def test_results_are_of_their_types_and_shapes(ours: CrossEncoder, theirs: Any, inputs: Any, flags: dict[str, Any]) -> None:
    expected, found = theirs.predict(inputs, **flags), ours.predict(inputs, **flags)
    assert type(found) is type(expected)
    assert np.shape(found) == np.shape(expected)
    if len(inputs):
        assert {getattr(part, "dtype", None) for part in _parts(found)} == {part.dtype for part in _parts(expected)}
    assert _numbers(found) == pytest.approx(_numbers(expected), abs=INT8)


def _parts(found: Any) -> Any:
    return found if isinstance(found, list) else [found]


def _numbers(found: Any) -> Any:
    return torch.as_tensor(found).reshape(-1).tolist()


@pytest.mark.parametrize("options", [{}, {"top_k": 2}, {"return_documents": True}, {"activation_fn": torch.nn.Tanh()}], ids=str)
def test_rank(ours: CrossEncoder, theirs: Any, options: dict[str, Any]) -> None:
    expected, found = theirs.rank(QUERY, DOCUMENTS, **options), ours.rank(QUERY, DOCUMENTS, **options)
    assert [(hit["corpus_id"], hit.get("text")) for hit in found] == [(hit["corpus_id"], hit.get("text")) for hit in expected]
    assert [list(hit) for hit in found] == [list(hit) for hit in expected]
    assert {type(hit["score"]) for hit in found} == {type(hit["score"]) for hit in expected} == {float}


@pytest.mark.parametrize(
    "function", [torch.nn.Identity(), torch.sigmoid, lambda logits: logits * 2], ids=["Identity", "sigmoid", "double"]
)
def test_activation_functions_are_given_what_theirs_are(ours: CrossEncoder, theirs: Any, function: Any) -> None:
    shapes = []

    def noting(logits: torch.Tensor) -> torch.Tensor:
        shapes.append((tuple(logits.shape), logits.dtype))
        result: torch.Tensor = function(logits)
        return result

    found, expected = (model.predict(PAIRS, activation_fn=noting) for model in (ours, theirs))
    assert shapes[0] == shapes[1]
    assert found == pytest.approx(expected, abs=0.5)  # logits


@pytest.mark.parametrize("batch_size", [0, -3])
def test_a_batch_size_below_1_is_a_value_error(ours: CrossEncoder, theirs: Any, batch_size: int) -> None:
    for model in (ours, theirs):
        with pytest.raises(ValueError, match="batch_size"):
            model.predict(PAIRS, batch_size=batch_size)


def test_predict_with_dataset_column(ours: CrossEncoder) -> None:
    dataset = Dataset.from_dict({"text": PAIRS})
    scores = ours.predict(dataset["text"], convert_to_tensor=True)
    assert scores.shape == (3,)
    assert scores.tolist() == ours.predict(PAIRS).tolist()


PYTHON = {
    "query": "What is Python?",
    "positive": ["Python is a programming language"],
    "negative": ["Java is a language", "C++ is fast"],
}
SUN = {
    "query": "What is the sun?",
    "positive": ["The sun is a star"],
    "documents": ["The moon orbits earth", "The sun is a star", "Mars is red"],
}


def test_negative_format(ours: CrossEncoder) -> None:
    evaluator = CrossEncoderRerankingEvaluator([PYTHON], name="neg-test")
    results = evaluator(ours)
    assert {"neg-test_map", "neg-test_mrr@10", "neg-test_ndcg@10"} <= results.keys()
    assert all(0.0 <= value <= 1.0 for value in results.values())
    scores = ours.predict([["What is Python?", text] for text in (*PYTHON["positive"], *PYTHON["negative"])])
    assert results["neg-test_mrr@10"] == pytest.approx(1 / (1 + int((scores[1:] > scores[0]).sum())))


def test_documents_format(ours: CrossEncoder) -> None:
    results = CrossEncoderRerankingEvaluator([SUN], name="doc-test")(ours)
    assert {"doc-test_map", "doc-test_base_map", "doc-test_ndcg@10", "doc-test_base_ndcg@10"} <= results.keys()
    assert results["doc-test_base_map"] == 0.5  # it stood second


@pytest.mark.parametrize(
    "sample",
    [
        {"query": "empty", "positive": ["x"], "documents": ["a", "b", "c"]},
        {"query": "test", "positive": ["yes"], "negative": ["no"]},
        {"query": "test", "positive": "yes", "negative": ["no", "nope"]},
    ],
    ids=["test_no_relevant_docs_in_documents", "test_single_sample", "test_string_positive"],
)
def test_reranking_evaluator(ours: CrossEncoder, sample: dict[str, Any]) -> None:
    assert 0 < CrossEncoderRerankingEvaluator([sample], name="one")(ours)["one_ndcg@10"] <= 1


def test_validation_errors(ours: CrossEncoder) -> None:
    with pytest.raises(ValueError, match="exactly one"):
        CrossEncoderRerankingEvaluator([{"query": "q", "positive": ["a"]}])(ours)


def test_the_evaluator_finds_with_both_the_same(ours: CrossEncoder, theirs: Any) -> None:
    sample = {"query": QUERY, "positive": [DOCUMENTS[1]], "documents": DOCUMENTS}
    evaluator = CrossEncoderRerankingEvaluator([sample])
    assert evaluator(ours) == evaluator(theirs)


def test_beir_reranks_with_it(ours: CrossEncoder) -> None:
    corpus = {f"d{number}": {"title": "CV", "text": text} for number, text in enumerate(DOCUMENTS)}
    found = Rerank(ours, batch_size=128).rerank(corpus, {"q": QUERY}, {"q": {"d0": 3.0, "d1": 2.0, "d2": 1.0}}, top_k=2)
    expected = ours.predict([[QUERY, f"CV {text}"] for text in DOCUMENTS[:2]])
    assert found == {"q": dict(zip(["d0", "d1"], expected.tolist(), strict=True))}


def test_it_runs_what_the_library_runs(ours: CrossEncoder) -> None:
    with Reranker.load() as reranker:
        assert ours.predict(PAIRS).tolist() == reranker.score(QUERY, DOCUMENTS).tolist()
