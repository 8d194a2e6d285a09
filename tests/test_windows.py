"""Windows over long documents: what they hold, where they stand in the text, and that each is scored as any pair is."""

import itertools
import unicodedata
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from builders import NORWEGIAN, SENTENCES
from callers import BAD_COUNTS, SECRET
from kinds import CASES, Kind, tokenizer_of
from raskrank import InputError, Windows
from raskrank.encoding import EncodedPair
from raskrank.prefixes import MAX_UNBROKEN
from raskrank.windows import SLACK, as_windows, cut

# Where windows begin and end among tokens.


@st.composite
def documents(draw: st.DrawFn) -> "np.ndarray[Any, np.dtype[np.bool_]]":
    """Which tokens begin a word, in words of up to so many tokens."""
    longest = draw(st.sampled_from([1, 3, 40]))
    words = draw(st.lists(st.integers(1, longest), min_size=1, max_size=60))
    return np.array([place == 0 for word in words for place in range(word)])


@settings(database=None, max_examples=300)
@given(words=documents(), room=st.integers(1, 60), overlap=st.integers(0, 80), most=st.integers(1, 40))
def test_windows_cover_every_token_and_overlap(words: Any, room: int, overlap: int, most: int) -> None:
    found = cut(words, room, Windows(max_windows=most, overlap=overlap))
    assert found[0][0] == 0
    assert found[-1][1] == len(words) or len(found) == most
    assert len(found) <= most
    assert all(1 <= end - begin <= room for begin, end in found)
    for (begin, end), (next_begin, next_end) in itertools.pairwise(found):
        assert begin < next_begin <= end - min(overlap, room // 2)
        assert end < next_end
    # Every window adds a quarter of its room or more, but for the last.
    assert all(later[1] - earlier[1] >= room // 4 for earlier, later in itertools.pairwise(found[:-1]))


@settings(database=None, max_examples=300)
@given(words=documents(), room=st.integers(1, 60), overlap=st.integers(0, 80))
def test_no_word_is_cut_in_two_unless_it_is_long(words: Any, room: int, overlap: int) -> None:
    found = cut(words, room, Windows(max_windows=10_000, overlap=overlap))
    for place in {place for window in found for place in window} - {0, len(words)}:
        assert words[place] or not words[max(place - room // SLACK, 0) : place + 1].any()


def test_windows_of_a_plain_document() -> None:
    words = np.ones(25, np.bool_)
    assert cut(words, 10, Windows(overlap=4)) == [(0, 10), (6, 16), (12, 22), (18, 25)]
    assert cut(words, 10, Windows(overlap=0)) == [(0, 10), (10, 20), (20, 25)]
    assert cut(words, 10, Windows(overlap=99, max_windows=3)) == [(0, 10), (5, 15), (10, 20)]
    assert cut(words, 25, Windows()) == [(0, 25)]


def test_words_stay_whole() -> None:
    words = np.tile([True, False, False], 12)  # words of three tokens
    assert cut(words, 16, Windows(overlap=2)) == [(0, 15), (12, 27), (24, 36)]


# The arguments.


@pytest.mark.parametrize("name", ["max_windows", "overlap"])
@pytest.mark.parametrize(("bad", "got"), BAD_COUNTS)
def test_bad_numbers_of_windows_are_refused(name: str, bad: Any, got: str) -> None:
    if name == "overlap" and got == "got 0":
        assert Windows(overlap=bad).overlap == 0
        return
    with pytest.raises(InputError, match=rf"^Windows\.{name}: expected an int of at least [01], {got}$"):
        Windows(**{name: bad})


@pytest.mark.parametrize("bad", [None, True, 3, SECRET, "Windows", b"windows", Windows, ["windows"], {"max_windows": 3}])
def test_a_bad_argument_is_refused_and_not_quoted(bad: Any) -> None:
    with pytest.raises(InputError, match="long_documents: expected 'truncate', 'windows' or raskrank") as caught:
        as_windows(bad)
    assert SECRET not in str(caught.value)


def test_the_words_stand_for_the_defaults() -> None:
    assert as_windows("truncate") is None
    assert as_windows("windows") == Windows() == Windows(max_windows=16, overlap=64)


# What the windows of a text hold.


QUERY = NORWEGIAN[0]
MAX_LENGTH = 48
PLENTY = Windows(max_windows=1000, overlap=6)
NFD = unicodedata.normalize("NFD", " ".join(NORWEGIAN * 2) + " Å blåbærsyltetøy på øya")
TEXTS = {
    "norwegian": " ".join(NORWEGIAN * 3),
    "lines": "\n\n".join(SENTENCES) + "\n",
    "NFD": NFD,
    "emoji": " ".join(f"{sentence} 👩‍👩‍👧‍👦 🇳🇴👍🏽" for sentence in NORWEGIAN),
    "led by white space": "\u00a0 \n\t" + " ".join(NORWEGIAN) + " \u3000 ",
    "ligatures": " ".join(f"{sentence} oﬃce ½ ﷺ x²" for sentence in NORWEGIAN),
    "strange": " ".join(f"{sentence}\u200b {chr(0)} e\u0301\u0323 ﷽ \ufeff漢字 かな" for sentence in NORWEGIAN),
    "special tokens": " ".join(f"{sentence} [SEP] </s> <mask>" for sentence in NORWEGIAN),
    "long words": ("blåbærsyltetøy" * 6 + " ") * 20,  # longer than a window may give way for
}


def whole_ids(kind: Kind, text: str) -> list[int]:
    ids: list[int] = kind.fast(text, add_special_tokens=False, verbose=False)["input_ids"]
    return ids


def expected_windows(kind: Kind, query: str, text: str, windows: Windows, max_length: int) -> list[tuple[list[int], list[int]]]:
    """Ids and types of each window, from transformers' tokens of the whole texts."""
    a, b, encoding = (
        whole_ids(kind, query),
        whole_ids(kind, text),
        tokenizer_of(kind.data).encode(text, add_special_tokens=False),
    )
    budget = max_length - kind.specials
    if len(a) + len(b) <= budget:
        return [kind.join(a, b)]
    kept = min(len(a), max(min(max_length * 3 // 4, budget - 1), budget - len(b)))
    pieces = encoding.word_ids
    words = np.array([place == 0 or word is None or word != pieces[place - 1] for place, word in enumerate(pieces)])
    parts = cut(words, budget - kept, windows) if len(b) > budget - kept else [(0, len(b))]
    return [kind.join(a[:kept], b[begin:end]) for begin, end in parts]


def of_text(
    kind: Kind, text: str, windows: Windows = PLENTY, query: str = QUERY, max_length: int = MAX_LENGTH
) -> list[EncodedPair]:
    (found,) = kind.encoder(max_length).encode_windows([(query, text)], windows)
    return found


@pytest.mark.parametrize("name", TEXTS)
def test_windows_hold_the_query_and_consecutive_tokens_of_the_whole_text(kind: Kind, name: str) -> None:
    text = TEXTS[name]
    found = of_text(kind, text)
    expected = expected_windows(kind, QUERY, text, PLENTY, MAX_LENGTH)
    assert [(pair.input_ids.tolist(), pair.token_type_ids.tolist()) for pair in found] == expected
    assert len(found) > 2
    assert {pair.truncated for pair in found} == {False}
    assert all(pair.input_ids.dtype == np.int64 for pair in found)


@pytest.mark.parametrize("name", TEXTS)
def test_spans_rise_and_leave_nothing_out(kind: Kind, name: str) -> None:
    text = TEXTS[name]
    spans = [pair.span for pair in of_text(kind, text) if pair.span is not None]
    covered = np.zeros(len(text), np.bool_)
    for start, end in spans:
        assert 0 <= start < end <= len(text)
        assert text[start:end] == text[start:end].strip()
        covered[start:end] = True
    assert all(before[0] < after[0] and before[1] <= after[1] for before, after in itertools.pairwise(spans))
    # What no token stands for, or what only separates, is in no span.
    left = {char for char, is_covered in zip(text, covered, strict=True) if not is_covered}
    assert not {char for char in left if not char.isspace() and unicodedata.category(char) not in ("Cc", "Cf")}


# A character that is several words can be cut in two, and so can a word that is longer than a window gives way for.
APART = [name for name in TEXTS if name not in ("ligatures", "special tokens", "long words")]


@pytest.mark.parametrize("name", TEXTS)
def test_the_text_of_a_span_is_encoded_as_its_window_where_words_are_tokenized_apart(kind: Kind, name: str) -> None:
    text, encoder = TEXTS[name], kind.encoder(160)
    bytewise = type(tokenizer_of(kind.data).pre_tokenizer).__name__ == "ByteLevel"
    words = type(tokenizer_of(kind.data).model).__name__ == "WordPiece"
    if name == "long words" or (not words and (name not in APART or bytewise)):
        pytest.skip("see APART; and a word of bytes is another one without the space before it, as the next test has it")
    space = tokenizer_of(kind.data).token_to_id("▁")  # of white space at the ends of a text
    windows = of_text(kind, text, max_length=160)
    assert len(windows) > 2
    for window in windows:
        start, end = window.span or (0, 0)
        (alone,) = encoder.encode([(QUERY, text[start:end])])
        assert [id for id in alone.input_ids.tolist() if id != space] == [id for id in window.input_ids.tolist() if id != space]


@pytest.mark.parametrize("kind", ["roberta"], indirect=True)
def test_with_bytes_so_is_the_text_of_a_span_and_the_space_before_it(kind: Kind) -> None:
    text, encoder = TEXTS["norwegian"], kind.encoder(160)
    for window in of_text(kind, text, max_length=160):
        start, end = window.span or (0, 0)
        (alone,) = encoder.encode([(QUERY, text[max(start - 1, 0) : end])])
        assert alone.input_ids.tolist() == window.input_ids.tolist()


BLOCKS = [
    "a",
    "å ",
    "a\u030a",
    "\u0301",
    "Oslo ",
    "blåbærsyltetøy ",
    "\n",
    "  ",
    "🙂",
    "👩‍👩‍👧‍👦",
    "ﬁ",
    "½",
    "漢",
    "[SEP]",
    "</s>",
    " <mask>",
    "-",
    "x" * 30,
]
ANY = st.lists(
    st.tuples(
        st.sampled_from(BLOCKS) | st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=4), st.integers(1, 90)
    ),
    min_size=1,
    max_size=6,
).map(lambda parts: "".join(block * times for block, times in parts))


@settings(CASES, max_examples=40)
@given(
    query=st.sampled_from(["", "kort", " ".join(NORWEGIAN[:6])]),
    text=ANY,
    max_length=st.integers(8, 40),
    most=st.integers(1, 12),
    overlap=st.integers(0, 20),
)
def test_any_text_has_the_windows_of_the_whole(
    kind: Kind, query: str, text: str, max_length: int, most: int, overlap: int
) -> None:
    # Texts are long enough beside such a max_length that of many only a prefix is tokenized.
    windows = Windows(max_windows=most, overlap=overlap)
    (found,) = kind.encoder(max_length).encode_windows([(query, text)], windows)
    assert [(pair.input_ids.tolist(), pair.token_type_ids.tolist()) for pair in found] == expected_windows(
        kind, query, text, windows, max_length
    )
    for pair in found:
        start, end = pair.span or (0, 0)
        assert 0 <= start <= end <= len(text)
    (all_of_it,) = kind.encoder(max_length).encode_windows([(query, text)], Windows(max_windows=10_000, overlap=overlap))
    share = min(max_length * 3 // 4, max_length - kind.specials - 1)
    room = max_length - kind.specials - len(whole_ids(kind, text))
    query_cut = len(whole_ids(kind, query)) > max(share, room)
    assert {pair.truncated for pair in found} == {query_cut or len(found) < len(all_of_it)}


def test_a_document_that_fits_is_the_pair_itself(kind: Kind) -> None:
    for query, document in ((QUERY, ""), (QUERY, " Oslo er en by. "), ("", "å"), (" ".join(NORWEGIAN), "kort")):
        (alone,) = kind.encoder(MAX_LENGTH).encode([(query, document)])
        (window,) = of_text(kind, document, query=query)
        assert window.input_ids.tolist() == alone.input_ids.tolist()
        assert window.token_type_ids.tolist() == alone.token_type_ids.tolist()
        assert (window.truncated, window.span) == (alone.truncated, (0, len(document)))


def test_a_long_query_leaves_its_share_to_each_window(kind: Kind) -> None:
    query = " ".join(NORWEGIAN)
    found = of_text(kind, TEXTS["norwegian"], query=query)
    share = MAX_LENGTH * 3 // 4
    beginning = [kind.fast.cls_token_id, *whole_ids(kind, query)[:share], kind.fast.sep_token_id]
    assert {tuple(pair.input_ids[: share + 2].tolist()) for pair in found} == {tuple(beginning)}
    assert {pair.truncated for pair in found} == {True}


@pytest.mark.parametrize("most", [1, 2, 5])
def test_what_the_last_window_leaves_out_is_said(kind: Kind, most: int) -> None:
    text = TEXTS["norwegian"]
    found, everything = of_text(kind, text, Windows(max_windows=most, overlap=6)), of_text(kind, text)
    assert [pair.input_ids.tolist() for pair in found] == [pair.input_ids.tolist() for pair in everything[:most]]
    assert [pair.span for pair in found] == [pair.span for pair in everything[:most]]
    assert all(pair.truncated for pair in found)


def test_many_pairs_keep_their_order(kind: Kind) -> None:
    pairs = [(SENTENCES[number % 3], SENTENCES[number % 40] * (number % 7)) for number in range(60)]
    together = kind.encoder(MAX_LENGTH).encode_windows(pairs, PLENTY)
    for windows, pair in zip(together, pairs, strict=True):
        (alone,) = kind.encoder(MAX_LENGTH, parallel=False).encode_windows([pair], PLENTY)
        assert [(found.input_ids.tolist(), found.span) for found in windows] == [
            (found.input_ids.tolist(), found.span) for found in alone
        ]
    assert kind.encoder(MAX_LENGTH).encode_windows([], PLENTY) == []


@pytest.mark.parametrize("piece", ["🙂", "x", "\u3316", "\u0301", "\0", "\u2026", " "])
def test_a_text_without_a_boundary_is_read_as_if_it_ended_early(kind: Kind, piece: str) -> None:
    few = Windows(max_windows=4, overlap=8)
    encoder, text = kind.encoder(128), "å" + piece * 3_000_000
    (found,) = encoder.encode_windows([("kort", text)], few)
    (short,) = encoder.encode_windows([("kort", text[:MAX_UNBROKEN])], few)
    assert [pair.input_ids.tolist() for pair in found] == [pair.input_ids.tolist() for pair in short]
    assert all(pair.truncated for pair in found)
    assert all(pair.span is not None and pair.span[1] <= MAX_UNBROKEN for pair in found)


def test_marks_that_a_normalizer_drops_stay_with_their_letter(kind: Kind) -> None:
    # Each word ends in a letter with two marks, so that a window ends after one.
    if repr(kind) == "RobertaTokenizerFast":
        pytest.skip("to a tokenizer of bytes marks are words of their own")
    text = " ".join(["sa\u030a\u0301"] * 200)
    ends = {pair.span[1] for pair in of_text(kind, text) if pair.span is not None}
    assert len(ends) > 2
    assert all(end == len(text) or text[end] == " " for end in ends)
