"""What callers pass: each wrong text or count is refused by place and type, before anything is computed, and never quoted."""

import collections
import logging
import traceback
import types
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from backends import note_runs
from callers import BAD_COUNTS, COLLECTIONS, SECRET, Column, Printed, Table
from raskrank import InputError, LimitError, Limits, Reranker
from raskrank.encoding import EncodedPair, PairEncoder

Call = Callable[[Reranker, Any], object]
# Where one text goes, with the name that a message gives to its place; the texts around it are fine, and secret.
PLACES: dict[str, tuple[str, Call]] = {
    "rank query": ("query", lambda reranker, bad: reranker.rank(bad, [SECRET, SECRET])),
    "score query": ("query", lambda reranker, bad: reranker.score(bad, [SECRET])),
    "rank document": ("document 2", lambda reranker, bad: reranker.rank(SECRET, [SECRET, "", bad, SECRET])),
    "score document": ("document 0", lambda reranker, bad: reranker.score(SECRET, [bad, SECRET])),
    "pair query": ("pair 1, query", lambda reranker, bad: reranker.score_pairs([(SECRET, ""), (bad, SECRET)])),
    "pair document": ("pair 3, document", lambda reranker, bad: reranker.score_pairs([(SECRET, "")] * 3 + [(SECRET, bad)])),
}


@pytest.fixture(scope="module")
def reranker() -> Iterator[Reranker]:
    with Reranker.load(threads=1) as loaded:
        yield loaded


@pytest.fixture
def computed(reranker: Reranker, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Grows with each encoding of texts and each run of the real backend."""
    done: list[str] = []
    encode = PairEncoder.encode

    def noted_encode(self: PairEncoder, pairs: list[tuple[str, str]]) -> list[EncodedPair]:
        done.append("encode")
        return encode(self, pairs)

    monkeypatch.setattr(PairEncoder, "encode", noted_encode)
    note_runs(monkeypatch, lambda _: done.append("run"))
    return done


@pytest.fixture
def refused(reranker: Reranker, computed: list[str], caplog: pytest.LogCaptureFixture) -> Callable[..., InputError]:
    """Makes a call that has to raise, and checks that no text leaks and that nothing was computed."""

    def check(call: Callable[[Reranker], object], kind: type[InputError] = InputError) -> InputError:
        with caplog.at_level(logging.DEBUG), pytest.raises(kind) as caught:
            call(reranker)
        error = caught.value
        assert type(error) is kind
        assert error.__cause__ is None
        printed = "".join(traceback.format_exception_only(error)) + "".join(traceback.format_exception(error))
        for text in (str(error), repr(error), printed, caplog.text):
            assert SECRET not in text
            assert SECRET[:8] not in text
        assert computed == []
        return error

    return check


def test_a_good_call_is_seen_to_compute(reranker: Reranker, computed: list[str]) -> None:
    # What the other tests here assert to be absent.
    reranker.score("a", ["b"])
    assert computed == ["encode", "run"]


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(
    "bad",
    [
        None,
        0,
        17,
        True,
        float("nan"),
        np.float32("nan"),
        b"bytes",
        bytearray(b"bytes"),
        ["list"],
        ("tuple",),
        {"text": SECRET},
        collections.UserString(SECRET),
        np.array(SECRET),
        Printed(),
        str,
    ],
    ids=lambda bad: type(bad).__name__,
)
def test_what_is_no_str(refused: Callable[..., InputError], place: str, bad: object) -> None:
    name, call = PLACES[place]
    error = refused(lambda reranker: call(reranker, bad))
    assert str(error) == f"{name}: expected str, got {type(bad).__name__}"


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("position", range(4))
def test_a_lone_surrogate(refused: Callable[..., InputError], place: str, position: int) -> None:
    text = "æ🙂c"
    name, call = PLACES[place]
    error = refused(lambda reranker: call(reranker, text[:position] + "\ud800" + text[position:]))
    assert str(error) == f"{name}: not valid Unicode, a lone surrogate at character {position}"


SURROGATES = ("\udfff", "\udc00\ud800", "\ud83d\ude42", "\ud800" * 3, "\udcff")


@pytest.mark.parametrize("bad", SURROGATES)
def test_every_kind_of_surrogate(refused: Callable[..., InputError], bad: str) -> None:
    # A pair of them is two characters in a str, as json.loads never makes it.
    error = refused(lambda reranker: reranker.score("q", ["a", SECRET + bad + SECRET]))
    assert str(error).startswith("document 1: not valid Unicode")
    assert str(error).endswith(f"at character {len(SECRET)}")


def test_the_first_wrong_text_is_named(refused: Callable[..., InputError]) -> None:
    error = refused(lambda reranker: reranker.score("q", ["a", None, 5, "\ud800"]))
    assert "document 1" in str(error)


CONTAINERS: dict[str, Callable[[], object]] = {
    "str": lambda: SECRET,
    "np.str_": lambda: np.str_(SECRET),
    "bytes": lambda: SECRET.encode(),
    "bytearray": lambda: bytearray(SECRET.encode()),
    "dict": lambda: {SECRET: SECRET},
    "mappingproxy": lambda: types.MappingProxyType({SECRET: SECRET}),
    "set": lambda: {SECRET},
    "frozenset": lambda: frozenset({SECRET}),
    "generator": lambda: (text for text in [SECRET]),
    "map": lambda: map(str, [SECRET]),
    "list_iterator": lambda: iter([SECRET]),
    "memoryview": lambda: memoryview(SECRET.encode()),
    "NoneType": lambda: None,
    "int": lambda: 5,
    "Printed": Printed,
}
HINTS = {
    **dict.fromkeys(["str", "np.str_", "bytes", "bytearray", "memoryview", "dict", "mappingproxy"], "; put it in a list"),
    **dict.fromkeys(["set", "frozenset"], "; a set has no order, pass sorted({name})"),
    **dict.fromkeys(["generator", "map", "list_iterator"], "; pass list({name})"),
}


@pytest.mark.parametrize("method", ["rank", "score", "score_pairs"])
@pytest.mark.parametrize("kind", CONTAINERS)
def test_what_is_no_sequence_of_texts(refused: Callable[..., InputError], kind: str, method: str) -> None:
    value = CONTAINERS[kind]()
    name = "pairs" if method == "score_pairs" else "documents"
    error = refused(lambda reranker: reranker.score_pairs(value) if name == "pairs" else getattr(reranker, method)("q", value))
    # The hint fits the type: a str would be split into letters by list().
    hint = HINTS.get(kind, "").format(name=name)
    assert str(error) == f"{name}: expected a sequence such as a list, got {type(value).__name__}{hint}"


@pytest.mark.parametrize(
    ("pair", "got"),
    [
        ("qd", "str"),
        (b"qd", "bytes"),
        (None, "NoneType"),
        ({"q", "d"}, "set"),
        ({"q": 1, "d": 2}, "dict"),
        (np.array("q"), "ndarray"),
        (np.array([["q"], ["d"]]), "ndarray"),
        (np.array(["q", "d", "d"]), "ndarray"),
        (iter(["q", "d"]), "list_iterator"),
        ((), "0 items"),
        ((SECRET,), "1 items"),
        ((SECRET, SECRET, SECRET), "3 items"),
        ([SECRET] * 4, "4 items"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_what_is_no_pair(refused: Callable[..., InputError], pair: object, got: str) -> None:
    error = refused(lambda reranker: reranker.score_pairs([(SECRET, SECRET), pair, (SECRET, SECRET)]))
    assert str(error) == f"pair 1: expected (query, document), got {got}"


@pytest.mark.parametrize("kind", COLLECTIONS)
def test_a_wrong_text_in_it_is_named_by_its_place(refused: Callable[..., InputError], kind: str) -> None:
    documents = COLLECTIONS[kind](["a", "b", f"{SECRET}\ud800"])
    error = refused(lambda reranker: reranker.rank("q", documents))
    assert str(error) == f"document 2: not valid Unicode, a lone surrogate at character {len(SECRET)}"


def test_an_array_of_numbers_holds_no_texts(refused: Callable[..., InputError]) -> None:
    error = refused(lambda reranker: reranker.score("q", np.arange(3)))
    assert str(error) == "document 0: expected str, got int64"
    error = refused(lambda reranker: reranker.score("q", np.array([SECRET, float("nan")], object)))
    assert str(error) == "document 1: expected str, got float"
    error = refused(lambda reranker: reranker.score_pairs(np.ones((2, 2))))
    assert str(error) == "pair 0, query: expected str, got float64"


@pytest.mark.parametrize(
    ("documents", "dimensions"),
    [(np.array([[SECRET], [SECRET]]), 2), (np.array(SECRET), 0), (np.empty((0, 3), str), 2), (Table(["a", "b"]), 2)],
    ids=["column of an array", "one text", "empty", "table"],
)
def test_documents_have_one_dimension(refused: Callable[..., InputError], documents: object, dimensions: int) -> None:
    # A table with as many columns as rows would have its column names ranked.
    error = refused(lambda reranker: reranker.rank("q", documents))
    assert str(error) == f"documents: expected one dimension, got {dimensions} dimensions"


def test_a_table_or_one_text_is_no_list_of_pairs(refused: Callable[..., InputError]) -> None:
    error = refused(lambda reranker: reranker.score_pairs(Table([(SECRET, SECRET)] * 2)))
    assert str(error) == "pair 0: expected (query, document), got str"
    error = refused(lambda reranker: reranker.score_pairs(np.array(SECRET)))
    assert str(error) == "pairs: expected two columns, got 0 dimensions"


@pytest.mark.parametrize(("length", "held"), [(2, "more"), (4, 3), (0, "more")])
def test_a_length_that_is_not_that_of_the_items(refused: Callable[..., InputError], length: int, held: object) -> None:
    class Liar(Column):
        def __len__(self) -> int:
            return length

    error = refused(lambda reranker: reranker.rank("q", Liar([SECRET] * 3)))
    assert str(error) == f"documents: its length is {length}, but it holds {held}; pass list(documents)"


def test_a_length_that_python_cannot_tell_is_too_many(refused: Callable[..., InputError]) -> None:
    error = refused(lambda reranker: reranker.rank("q", range(10**30)), LimitError)
    assert str(error) == "documents: more items than max_documents=1000000"


@pytest.fixture(scope="module")
def limited() -> Iterator[Reranker]:
    with Reranker.load(threads=1, limits=Limits(max_documents=3, max_text_chars=10)) as loaded:
        yield loaded


@pytest.mark.parametrize(
    ("fits", "exceeds", "message"),
    [
        (
            lambda reranker: reranker.score("q", ["a"] * 3),
            lambda reranker: reranker.score("q", [SECRET[:9]] * 4),
            "documents: 4 items, more than max_documents=3",
        ),
        (
            lambda reranker: reranker.score_pairs([("q", "a")] * 3),
            lambda reranker: reranker.score_pairs([("q", SECRET[:9])] * 4),
            "pairs: 4 items, more than max_documents=3",
        ),
        (
            lambda reranker: reranker.score("æ" * 10, ["a"]),
            lambda reranker: reranker.score(SECRET[:11], ["a"]),
            "query: 11 characters, more than max_text_chars=10",
        ),
        (
            lambda reranker: reranker.rank("q", ["a", "🙂" * 10]),
            lambda reranker: reranker.rank("q", ["a", SECRET[:11]]),
            "document 1: 11 characters, more than max_text_chars=10",
        ),
        (
            lambda reranker: reranker.score_pairs([("æ" * 10, "æ" * 10)]),
            lambda reranker: reranker.score_pairs([("a", "b"), ("a", SECRET[:11])]),
            "pair 1, document: 11 characters, more than max_text_chars=10",
        ),
    ],
    ids=["documents", "pairs", "query", "document", "pair"],
)
def test_limits_hold_at_n_and_not_at_n_plus_1(
    limited: Reranker, computed: list[str], fits: Callable[[Reranker], Any], exceeds: Callable[[Reranker], Any], message: str
) -> None:
    assert len(fits(limited)) >= 1
    computed.clear()
    with pytest.raises(LimitError) as caught:
        exceeds(limited)
    assert str(caught.value) == message
    assert computed == []


@pytest.mark.parametrize(("value", "got"), BAD_COUNTS)
def test_top_k_is_checked(refused: Callable[..., InputError], value: object, got: str) -> None:
    error = refused(lambda reranker: reranker.rank(SECRET, [SECRET], value))
    assert str(error) == f"top_k: expected an int of at least 1, {got}"
    error = refused(lambda reranker: reranker.rank(SECRET, [], value))
    assert str(error) == f"top_k: expected an int of at least 1, {got}"


def test_a_number_that_python_does_not_print(refused: Callable[..., InputError], reranker: Reranker) -> None:
    error = refused(lambda reranker: reranker.rank("q", ["d"], -(10**5000)))
    assert str(error) == "top_k: expected an int of at least 1, got a number far below 0"


@pytest.mark.parametrize("value", [0, 1, None, "yes", np.bool_(True), np.array([True, False])], ids=repr)
def test_raw_scores_is_checked(refused: Callable[..., InputError], value: Any) -> None:
    calls: list[Call] = [
        lambda reranker, raw: reranker.rank(SECRET, [SECRET], raw_scores=raw),
        lambda reranker, raw: reranker.score(SECRET, [SECRET], raw_scores=raw),
        lambda reranker, raw: reranker.score_pairs([(SECRET, SECRET)], raw_scores=raw),
    ]
    for call in calls:
        error = refused(lambda reranker, call=call: call(reranker, value))
        assert str(error) == f"raw_scores: expected True or False, got {type(value).__name__}"
