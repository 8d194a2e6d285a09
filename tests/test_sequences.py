"""Whatever has a length and an order will do for documents and pairs; limits, and what load takes."""

import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from callers import BAD_COUNTS, COLLECTIONS, Column, Named, Text
from raskrank import InputError, LimitError, Limits, RaskrankError, Reranker


@pytest.fixture(scope="module")
def reranker() -> Iterator[Reranker]:
    with Reranker.load(threads=1) as loaded:
        yield loaded


def test_an_iterator_is_refused_before_it_is_used_up(reranker: Reranker) -> None:
    texts = iter(["a", "b"])
    with pytest.raises(InputError):
        reranker.score("q", texts)  # type: ignore[arg-type]
    assert list(texts) == ["a", "b"]


@pytest.mark.parametrize("kind", COLLECTIONS)
def test_whatever_has_a_length_and_an_order_will_do(reranker: Reranker, kind: str) -> None:
    texts = ["Python", "SQL", ""]
    documents = COLLECTIONS[kind](texts)
    expected = reranker.score("kode", texts)
    assert np.array_equal(reranker.score("kode", documents), expected)
    assert [hit.index for hit in reranker.rank("kode", documents, top_k=2)] == np.argsort(-expected, kind="stable")[:2].tolist()
    pairs = COLLECTIONS[kind]([("kode", text) for text in texts])
    assert np.array_equal(reranker.score_pairs(pairs), expected)


def test_pairs_may_be_an_array_of_two_columns_or_the_items_of_a_dict(reranker: Reranker) -> None:
    expected = reranker.score("kode", ["Python", "SQL"])
    assert np.array_equal(reranker.score_pairs(np.array([["kode", "Python"], ["kode", "SQL"]])), expected)
    assert np.array_equal(reranker.score_pairs({"kode": "Python"}.items()), expected[:1])
    assert np.array_equal(reranker.score_pairs([np.array(["kode", "Python"]), Column(["kode", "SQL"])]), expected)  # type: ignore[list-item]


def test_pairs_may_be_lists_or_named_tuples(reranker: Reranker) -> None:
    mixed: list[Any] = [["kode", "Python"], Named("kode", "SQL"), ("kode", "")]
    assert np.array_equal(reranker.score_pairs(mixed), reranker.score("kode", ["Python", "SQL", ""]))


class Shouting(str):
    """A str whose methods are not those of str."""

    def __str__(self) -> str:
        return "other"

    def __hash__(self) -> int:
        raise RuntimeError

    def __eq__(self, other: object) -> bool:
        return True

    def __len__(self) -> int:
        return 0

    def isascii(self) -> bool:
        return True


@pytest.mark.parametrize("make", [Text, np.str_, Shouting])
def test_subclasses_of_str_score_as_str(reranker: Reranker, make: Callable[[str], str]) -> None:
    expected = reranker.score("Hvem kan Python?", ["En utvikler", "æøå 🙂", ""])
    found = reranker.score(make("Hvem kan Python?"), [make("En utvikler"), make("æøå 🙂"), make("")])
    assert np.array_equal(found, expected)


def test_one_text_many_times_is_no_problem(reranker: Reranker) -> None:
    scores = reranker.score("q", ["same"] * 40)
    assert len(set(scores.tolist())) == 1


def test_a_limit_error_is_an_input_error_is_a_value_error() -> None:
    assert issubclass(LimitError, InputError)
    assert issubclass(InputError, ValueError)
    assert issubclass(InputError, RaskrankError)


@pytest.mark.parametrize("name", ["max_documents", "max_text_chars"])
@pytest.mark.parametrize(("value", "got"), [*BAD_COUNTS, (None, "got NoneType")])
def test_limits_are_checked(name: str, value: object, got: str) -> None:
    with pytest.raises(InputError, match=rf"^Limits\.{name}: expected an int of at least 1, {got}$"):
        Limits(**{name: value})  # type: ignore[arg-type]


def test_limits_take_numpy_integers_and_do_not_change() -> None:
    limits = Limits(max_documents=np.int64(5))  # type: ignore[arg-type]
    assert limits == Limits(max_documents=5)
    assert type(limits.max_documents) is int
    assert type(Limits(max_text_chars=np.array(7)).max_text_chars) is int  # type: ignore[arg-type]
    with pytest.raises(AttributeError):
        limits.max_documents = 6  # type: ignore[misc]
    with pytest.raises(TypeError):
        Limits(5)  # type: ignore[call-arg]


def test_top_k_of_any_size_and_kind(reranker: Reranker) -> None:
    for top_k in (10**5000, np.array(7), np.uint8(255), np.int64(2**62)):
        assert len(reranker.rank("q", ["a", "b"], top_k)) == 2  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("argument", "value", "message"),
    [
        *(("threads", value, f"threads: expected an int of at least 1, {got}") for value, got in BAD_COUNTS),
        ("backend", "tensorflow", "backend: expected None, 'native', 'onnx' or 'torch', got 'tensorflow'"),
        ("backend", 1, "backend: expected None, 'native', 'onnx' or 'torch', got 1"),
        ("fallback", "onnx", "fallback: expected None or 'torch', got 'onnx'"),
        ("fallback", True, "fallback: expected None or 'torch', got True"),
        ("limits", {}, "limits: expected Limits, got dict"),
        ("limits", 5, "limits: expected Limits, got int"),
        ("limits", Limits, "limits: expected Limits, got type"),
        ("bundle", 5, "bundle: expected str or Path, got int"),
        ("bundle", b"nano", "bundle: expected str or Path, got bytes"),
        ("checkpoint", ["nano"], "checkpoint: expected str or Path, got list"),
        ("expected_sha256", b"00", "expected_sha256: expected str, got bytes"),
    ],
)
def test_arguments_of_load_are_checked(argument: str, value: object, message: str) -> None:
    threads = threading.active_count()
    with pytest.raises(InputError) as caught:
        Reranker.load(**{argument: value})  # type: ignore[arg-type]
    assert str(caught.value) == message
    assert threading.active_count() == threads
