"""What is checked of a bundle when it is loaded: its tokenizer, and its self-test."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bundles
from conftest import Tiny
from raskrank import Incompatible, InferenceError, Reranker
from raskrank.manifest import TOKENIZER, WEIGHTS
from raskrank.settings import ENVIRONMENT

QUERY, DOCUMENTS = "Hvem kan Python?", ["Python og SQL", "Sykepleier", "", "ord " * 200]


@pytest.fixture(autouse=True)
def unset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(ENVIRONMENT, raising=False)


# Tokenizers


def more_pieces(tokenizer: dict[str, Any]) -> None:
    tokenizer["model"]["vocab"] |= {f"piece{number}": len(tokenizer["model"]["vocab"]) + number for number in range(5)}


def an_added_token_beyond(tokenizer: dict[str, Any]) -> None:
    last = dict(tokenizer["added_tokens"][-1], id=len(tokenizer["model"]["vocab"]), content="[NEW]")
    tokenizer["added_tokens"].append(last)


@pytest.mark.parametrize(("change", "largest"), [(more_pieces, 719), (an_added_token_beyond, 715)])
def test_ids_beyond_the_embeddings(folder: Path, change: Callable[[dict[str, Any]], None], largest: int) -> None:
    bundles.edit_tokenizer(folder, change)
    with pytest.raises(Incompatible, match=f"the tokenizer has ids up to {largest}, the model embeds 715") as raised:
        Reranker.load(folder)
    assert str(folder) in str(raised.value)


def test_an_id_that_the_vocabulary_leaves_a_gap_for_fails_its_run(folder: Path) -> None:
    # Counting the ids at load would cost every start; the exporter refuses such a tokenizer, and what runs it such an id.
    bundles.edit_tokenizer(folder, lambda tokenizer: tokenizer["model"]["vocab"].update({"q": 5000}))
    with Reranker.load(folder) as reranker, pytest.raises(InferenceError, match="failed on a run of"):
        reranker.score("q", ["q"])


def test_a_vocabulary_smaller_than_the_tokenizer(folder: Path) -> None:
    with pytest.raises(Incompatible, match="ids up to 714, the model embeds 714"):
        Reranker.load(bundles.edit(folder, vocab_size=714))


def another_order(tokenizer: dict[str, Any]) -> None:
    vocabulary = tokenizer["model"]["vocab"]
    pieces = [piece for piece, id in vocabulary.items() if id > 4]
    tokenizer["model"]["vocab"] = {**vocabulary, **dict(zip(pieces, range(714, 4, -1), strict=True))}


def another_case(tokenizer: dict[str, Any]) -> None:
    tokenizer["normalizer"]["lowercase"] = False


def another_layout(tokenizer: dict[str, Any]) -> None:
    tokenizer["post_processor"]["pair"][-1]["SpecialToken"]["id"] = "[CLS]"


def no_special_tokens(tokenizer: dict[str, Any]) -> None:
    tokenizer["post_processor"] = None


@pytest.mark.parametrize("change", [another_order, another_case, another_layout, no_special_tokens])
def test_another_tokenizer_of_the_same_size_fails_the_self_test(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    bundles.edit_tokenizer(folder, change)
    with pytest.raises(Incompatible, match=r"the self-test gives -?[\d.]+ instead of .* do not belong together") as raised:
        Reranker.load(folder)
    assert str(folder) in str(raised.value)


@pytest.mark.parametrize(("ours", "theirs"), [("bert", "xlm-roberta"), ("xlm-roberta", "bert")])
def test_the_tokenizer_of_another_bundle(tiny: Tiny, tmp_path: Path, ours: Any, theirs: Any) -> None:
    folder = bundles.copy_bundle(tiny.bundle(ours, "int8"), tmp_path / "bundle")
    (folder / TOKENIZER).write_bytes((tiny.bundle(theirs, "int8") / TOKENIZER).read_bytes())
    with pytest.raises(Incompatible, match=r"the self-test gives|ids up to 714, the model embeds"):
        Reranker.load(bundles.sign(folder))


def no_piece_for_the_unknown(tokenizer: dict[str, Any]) -> None:
    tokenizer["model"]["unk_token"] = "[NONE]"


def a_special_token_of_no_id(tokenizer: dict[str, Any]) -> None:
    tokenizer["post_processor"]["special_tokens"]["[SEP]"]["ids"] = [4_000_000_000]


def a_template_of_one_text(tokenizer: dict[str, Any]) -> None:
    tokenizer["post_processor"]["pair"] = tokenizer["post_processor"]["single"]


def a_template_in_the_wrong_order(tokenizer: dict[str, Any]) -> None:
    tokenizer["post_processor"]["pair"].reverse()


def a_template_that_panics(tokenizer: dict[str, Any]) -> None:
    tokenizer["post_processor"]["special_tokens"]["[NEW]"] = tokenizer["post_processor"]["special_tokens"].pop("[SEP]")


def another_kind_of_model(tokenizer: dict[str, Any]) -> None:
    tokenizer["model"]["type"] = "Newer"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (no_piece_for_the_unknown, "cannot use its tokenizer.json: .*[Mm]issing .*from the vocabulary"),
        (a_special_token_of_no_id, "the model does not run: .*tokens"),
        (a_template_of_one_text, "cannot use its tokenizer.json|does not encode a pair of texts"),
        (a_template_in_the_wrong_order, "template for a pair is not"),
        (a_template_that_panics, "cannot use its tokenizer.json"),
        (another_kind_of_model, "cannot use its tokenizer.json"),
        (dict.clear, "cannot use its tokenizer.json"),
    ],
)
def test_a_tokenizer_that_cannot_be_used(folder: Path, change: Callable[[dict[str, Any]], None], message: str) -> None:
    bundles.edit_tokenizer(folder, change)
    with pytest.raises(Incompatible, match=message) as raised:
        Reranker.load(folder)
    assert str(folder) in str(raised.value)


@pytest.mark.parametrize("content", [b"", b"<!DOCTYPE html>", b"\xff\xfe", b"null", b"[" * 100_000])
def test_a_signed_file_that_is_no_tokenizer(folder: Path, content: bytes) -> None:
    (folder / TOKENIZER).write_bytes(content)
    with pytest.raises(Incompatible, match=r"tokenizers [\d.]+ cannot use its tokenizer\.json"):
        Reranker.load(bundles.sign(folder))


@pytest.mark.parametrize("family", ["bert", "xlm-roberta"])
@pytest.mark.parametrize("max_length", range(5))
def test_a_length_without_room_for_text(tiny: Tiny, tmp_path: Path, family: Any, max_length: int) -> None:
    folder = bundles.copy_bundle(tiny.bundle(family, "int8"), tmp_path / "bundle")
    with pytest.raises(Incompatible, match=f"max_length {max_length} leaves no room for text beside [34] special") as raised:
        Reranker.load(bundles.edit(folder, max_length=max_length))
    assert str(folder) in str(raised.value)


# Self-test


def test_signed_weights_of_another_model_fail_the_self_test(folder: Path) -> None:
    content = bytearray((folder / WEIGHTS).read_bytes())
    content[::5] = bytes(len(content[::5]))
    (folder / WEIGHTS).write_bytes(content)
    with pytest.raises(Incompatible, match=r"the self-test gives .* instead of"):
        Reranker.load(bundles.sign(folder))


def test_signed_weights_that_are_nan_fail_the_self_test(tiny: Tiny, tmp_path: Path) -> None:
    folder = bundles.copy_bundle(tiny.bundle("bert", "fp32"), tmp_path / "bundle")
    weights = np.frombuffer((folder / WEIGHTS).read_bytes(), np.float32)
    (folder / WEIGHTS).write_bytes(np.full_like(weights, np.nan).tobytes())
    with pytest.raises(Incompatible, match="the self-test gives nan instead of"):
        Reranker.load(bundles.sign(folder))


@pytest.mark.parametrize(
    "updates",
    [
        {"self_test__logit": 3.25},
        {"self_test__logit": 1e308},
        {"self_test__tolerance": 0.0, "self_test__logit": 0},
        {"self_test__tolerance": -1.0},
        {"self_test__query": "Kva er ein båt?"},
        {"self_test__document": ""},
    ],
)
def test_a_self_test_that_does_not_hold(folder: Path, updates: dict[str, Any]) -> None:
    with pytest.raises(Incompatible, match=r"the self-test gives .* \(tolerance .*this CPU computes otherwise"):
        Reranker.load(bundles.edit(folder, **updates))


def test_a_self_test_within_its_tolerance(folder: Path) -> None:
    test = bundles.read(folder)["self_test"]
    bundles.edit(folder, self_test__logit=test["logit"] + test["tolerance"] * 0.8)
    with Reranker.load(folder) as reranker:
        assert reranker.score(QUERY, DOCUMENTS).shape == (4,)
