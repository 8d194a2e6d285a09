"""`CrossEncoder` as sentence-transformers has it, by itself; beside the real one it stands in tests/applications.

Tests named as in sentence-transformers' tests/cross_encoder/test_model.py check what those check.
"""

import json
import logging
import pickle
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import bundles
from processes import run_script
from raskrank import InputError, MissingExtra, Reranker, Windows
from raskrank.activation import sigmoid
from raskrank.integrations.sentence_transformers import CrossEncoder

QUERY = "A man is eating pasta."
CORPUS = ["A man is eating food.", "The girl is carrying a baby.", "Dyrepasser ved et reptilsenter.", "A monkey is playing."]
PAIRS = [[QUERY, document] for document in CORPUS]
NANO = Path(Reranker.load().info().bundle or "")


@pytest.fixture(scope="module")
def model(nano: Reranker) -> CrossEncoder:
    return CrossEncoder(nano)


@pytest.mark.parametrize("return_documents", [True, False])
def test_rank(model: CrossEncoder, nano: Reranker, return_documents: bool) -> None:
    ranks = model.rank(query=QUERY, documents=CORPUS, return_documents=return_documents)
    expected = nano.rank(QUERY, CORPUS)
    assert [(hit["corpus_id"], hit["score"]) for hit in ranks] == [(hit.index, hit.score) for hit in expected]
    assert [hit.get("text") for hit in ranks] == [CORPUS[hit.index] if return_documents else None for hit in expected]
    assert model.rank(QUERY, CORPUS, 2) == [{"corpus_id": hit.index, "score": hit.score} for hit in expected[:2]]
    assert model.rank(QUERY, []) == []


def test_rank_scores_are_floats(model: CrossEncoder) -> None:
    ranks = model.rank(QUERY, CORPUS)
    assert {type(rank["score"]) for rank in ranks} == {float}
    json.dumps(ranks)


@pytest.mark.parametrize("name", ["convert_to_numpy", "convert_to_tensor"])
def test_rank_convert_kwargs_deprecated(model: CrossEncoder, name: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "raskrank"):
        ranks = model.rank(QUERY, CORPUS[:1], **{name: True})
    assert name in caplog.text
    assert type(ranks[0]["score"]) is float


def test_predict_single_input(model: CrossEncoder) -> None:
    nested = model.predict([PAIRS[0]])
    assert isinstance(nested, np.ndarray)
    assert nested.shape == (1,)
    alone = model.predict(PAIRS[0])
    assert isinstance(alone, np.float32)
    assert alone == nested[0] == model.predict(tuple(PAIRS[0]))


def test_is_singular_input_numpy_1d_pair(model: CrossEncoder) -> None:
    assert model.is_singular_input(np.array(["query", "document"])) is True
    assert model.is_singular_input(np.array(["query", "document"], object)) is True


def test_is_singular_input_numpy_2d_pairs(model: CrossEncoder) -> None:
    assert model.is_singular_input(np.array([["q1", "d1"], ["q2", "d2"]])) is False


def test_is_singular_input_numpy_empty(model: CrossEncoder) -> None:
    assert model.is_singular_input(np.array([], dtype=str)) is False


def test_predict_numpy_empty(model: CrossEncoder) -> None:
    scores = model.predict(np.array([], dtype=str), show_progress_bar=False)
    assert scores.shape == (0,)
    assert np.array_equal(scores, model.predict([], show_progress_bar=False))


def test_predict_numpy_1d_pair(model: CrossEncoder) -> None:
    score = model.predict(np.array(PAIRS[0]), show_progress_bar=False)
    assert isinstance(score, np.float32)
    assert score == model.predict(tuple(PAIRS[0]))


def test_predict_numpy_2d_pairs(model: CrossEncoder) -> None:
    scores = model.predict(np.array(PAIRS), show_progress_bar=False)
    assert scores.shape == (len(PAIRS),)
    assert np.array_equal(scores, model.predict(PAIRS, show_progress_bar=False))


def test_predict_batch_size_1(model: CrossEncoder, nano: Reranker) -> None:
    scores = model.predict(PAIRS, batch_size=1)
    assert isinstance(scores, np.ndarray)
    assert np.array_equal(scores, nano.score(QUERY, CORPUS))  # a score depends on its pair alone


@pytest.mark.parametrize("convert_to_numpy", [True, False])
@pytest.mark.parametrize("convert_to_tensor", [True, False])
def test_empty_predict(model: CrossEncoder, convert_to_numpy: bool, convert_to_tensor: bool) -> None:
    result = model.predict([], convert_to_numpy=convert_to_numpy, convert_to_tensor=convert_to_tensor)
    if convert_to_tensor:
        assert isinstance(result, torch.Tensor)
        assert result.numel() == 0
        assert str(result.device) == model.device
    elif convert_to_numpy:
        assert isinstance(result, np.ndarray)
        assert result.size == 0
    else:
        assert result == []


@pytest.mark.parametrize("convert_to_tensor", [True, False])
@pytest.mark.parametrize("convert_to_numpy", [True, False])
def test_predict_output_types(model: CrossEncoder, convert_to_tensor: bool, convert_to_numpy: bool) -> None:
    scores = model.predict(PAIRS, convert_to_tensor=convert_to_tensor, convert_to_numpy=convert_to_numpy)
    if convert_to_tensor:
        assert isinstance(scores, torch.Tensor)
        assert scores[0].dtype == torch.float32
    elif convert_to_numpy:
        assert isinstance(scores, np.ndarray)
        assert scores[0].dtype == np.float32
    else:
        assert isinstance(scores, list)
        assert scores[0].dtype == torch.float32
    assert [float(score) for score in scores] == model.predict(PAIRS).tolist()


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ({"inputs": PAIRS, "num_workers": 2}, {"inputs": PAIRS}),
        (
            {"inputs": PAIRS, "activation_fct": "tanh", "activation_fn": "sigmoid"},
            {"inputs": PAIRS, "activation_fn": "sigmoid"},
        ),
        ({"inputs": PAIRS, "activation_fct": "tanh"}, {"inputs": PAIRS, "activation_fn": "tanh"}),
        ({"sentences": PAIRS}, {"inputs": PAIRS}),
    ],
)
def test_predict_rank_args_decorator(
    model: CrossEncoder, caplog: pytest.LogCaptureFixture, old: dict[str, Any], new: dict[str, Any]
) -> None:
    with caplog.at_level(logging.WARNING, "raskrank"):
        scores = model.predict(**old)
    assert caplog.text
    caplog.clear()
    assert np.array_equal(scores, model.predict(**new))
    assert not caplog.text


def test_load_activation_fn_from_kwargs(nano: Reranker) -> None:
    logits = nano.score(QUERY, CORPUS, raw_scores=True)
    loaded = CrossEncoder(nano, activation_fn="identity")
    assert np.array_equal(loaded.predict(PAIRS), logits)
    assert loaded.predict(PAIRS, activation_fn="tanh") == pytest.approx(np.tanh(logits))
    assert loaded.activation_fn == "identity"  # a call changes it for that call
    loaded.activation_fn = torch.nn.Sigmoid()
    assert loaded.predict(PAIRS) == pytest.approx(sigmoid(logits))
    assert isinstance(loaded.predict(PAIRS[0]), np.float32)


def test_default_activation_fn(model: CrossEncoder) -> None:
    assert model.activation_fn == "sigmoid"


def test_a_bundle_with_another_activation_keeps_it(tmp_path: Path) -> None:
    bundle = bundles.edit(bundles.copy_bundle(NANO, tmp_path / "bundle"), activation="identity")
    model = CrossEncoder(bundle)
    assert model.activation_fn == "identity"
    assert np.array_equal(model.predict(PAIRS), model.reranker.score(QUERY, CORPUS, raw_scores=True))
    model.reranker.close()


def test_rank_orders_by_what_an_activation_function_gives(model: CrossEncoder) -> None:
    expected = [hit["corpus_id"] for hit in model.rank(QUERY, CORPUS)]
    assert [hit["corpus_id"] for hit in model.rank(QUERY, CORPUS, activation_fn="identity")] == expected
    assert [hit["corpus_id"] for hit in model.rank(QUERY, CORPUS, activation_fn=torch.neg)] == expected[::-1]
    equal = model.rank(QUERY, CORPUS, 3, activation_fn=torch.zeros_like)
    assert equal == [{"corpus_id": index, "score": 0.0} for index in range(3)]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"prompt": "Find"}, "^prompt: "),
        ({"prompt_name": "query"}, "^prompt_name: "),
        ({"pool": {"processes": []}}, "^pool: "),
        ({"device": "cuda"}, "^device: "),
        ({"device": ["cpu", "cpu"]}, "^device: "),
        ({"batch_size": 0}, "^batch_size: "),
        ({"batch_size": -1}, "^batch_size: "),
        ({"activation_fn": "relu"}, "^activation_fn: .*another str$"),
        ({"activation_fn": 3}, "^activation_fn: .*got int$"),
        ({"activation_fn": torch.sum}, "^activation_fn: .*as many numbers"),
        ({"activation_fn": len}, "^activation_fn: .*as many numbers"),
    ],
)
def test_what_a_bundle_cannot_do_is_refused(model: CrossEncoder, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        model.predict(PAIRS, **arguments)
    with pytest.raises(ValueError, match=message):
        model.rank(QUERY, CORPUS, **arguments)


def test_a_softmax_of_one_logit_is_refused(model: CrossEncoder) -> None:
    with pytest.raises(InputError, match=r"^apply_softmax: "):
        model.predict(PAIRS, apply_softmax=True)


def test_an_unknown_argument_is_a_type_error(model: CrossEncoder) -> None:
    with pytest.raises(TypeError, match="processing_kwargs"):
        model.predict(PAIRS, processing_kwargs={})


def test_what_means_the_default_is_taken(model: CrossEncoder) -> None:
    scores = model.predict(
        PAIRS, prompt="", apply_softmax=None, device=torch.device("cpu"), batch_size=np.int64(3), chunk_size=5
    )
    assert np.array_equal(scores, model.predict(PAIRS))


@pytest.mark.parametrize(
    "inputs", ["text", {"a": "b"}, (pair for pair in PAIRS), [["one"]], ["a", "b", "c"], [[1, 2]], None, 3]
)
def test_inputs_that_are_no_pairs_are_refused(model: CrossEncoder, inputs: Any) -> None:
    with pytest.raises(InputError, match="pair"):
        model.predict(inputs)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"max_length": 128}, "max_length"), ({"num_labels": 3}, "num_labels"), ({"device": "cuda"}, "device"),
     ({"activation_fn": "relu"}, "activation_fn")],
)  # fmt: skip
def test_a_class_that_a_bundle_cannot_be_is_refused(nano: Reranker, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=f"^{message}: "):
        CrossEncoder(nano, **arguments)


def test_its_attributes(model: CrossEncoder, nano: Reranker) -> None:
    same = CrossEncoder(nano, max_length=nano.info().max_length, num_labels=1, device="cpu")
    assert same.max_length == same.max_seq_length == nano.info().max_length
    assert (model.num_labels, model.device, model.reranker) == (1, "cpu", nano)


@pytest.mark.parametrize("name", ["max_length", "max_seq_length"])
def test_a_length_that_is_set_later_must_be_the_bundles_too(model: CrossEncoder, name: str) -> None:
    setattr(model, name, model.reranker.info().max_length)
    with pytest.raises(InputError, match=r"^max_length: this bundle reads 512 tokens; export one with --max-length$"):
        setattr(model, name, 256)
    assert getattr(model, name) == 512


def test_a_progress_bar_is_shown_where_it_is_asked_for(model: CrossEncoder, capsys: pytest.CaptureFixture[str]) -> None:
    model.predict(PAIRS)
    model.predict([], show_progress_bar=True)
    assert "4/4" not in capsys.readouterr().err
    model.predict(PAIRS, show_progress_bar=True)
    assert "4/4" in capsys.readouterr().err
    model.rank(QUERY, CORPUS, show_progress_bar=True)
    assert "4/4" in capsys.readouterr().err


def test_it_reads_long_documents_in_windows(nano: Reranker) -> None:
    long = "Været i dag er fint. " * 200 + "A man is eating pasta."
    plain, windows = CrossEncoder(nano), CrossEncoder(nano, long_documents=Windows(max_windows=8))
    assert windows.predict([QUERY, long]) > plain.predict([QUERY, long])
    assert windows.rank(QUERY, [long])[0]["score"] == windows.predict([QUERY, long])
    assert windows.predict(PAIRS[0]) == plain.predict(PAIRS[0])


def test_it_pickles(model: CrossEncoder) -> None:
    with (copy := pickle.loads(pickle.dumps(model))).reranker:
        assert np.array_equal(copy.predict(PAIRS), model.predict(PAIRS))


def test_without_torch_the_error_says_how_to_install_it(model: CrossEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    for arguments in ({"convert_to_tensor": True}, {"convert_to_numpy": False}, {"activation_fn": abs}):
        with pytest.raises(MissingExtra, match=r"needs torch; install it with: pip install .raskrank\[export\]"):
            model.predict(PAIRS, **arguments)
    assert len(model.predict(PAIRS)) == len(PAIRS)


def test_neither_torch_nor_sentence_transformers_is_imported(tmp_path: Path) -> None:
    source = """
    import sys
    from raskrank.integrations.sentence_transformers import CrossEncoder
    model = CrossEncoder()
    model.predict([["a", "b"]])
    model.predict([["a", "b"]], activation_fn="identity")
    model.rank("a", ["b", "c"], return_documents=True)
    assert not {"torch", "sentence_transformers", "transformers"} & set(sys.modules)
    model.predict([["a", "b"]], convert_to_tensor=True)
    assert "torch" in sys.modules
    """
    run_script(tmp_path, source, warnings=())
