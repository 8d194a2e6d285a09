"""Token ids against transformers' own fast tokenizers, untruncated and truncated, and layouts of pairs."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from builders import NORWEGIAN, SENTENCES, wordpiece_tokenizer
from conftest import Tiny
from kinds import CASES, FAST, TINY, Kind, kind_of, same
from raskrank.encoding import PairEncoder
from raskrank.errors import Incompatible, InferenceError

PIECES = [
    *(
        "",
        " ",
        "  ",
        "\n",
        "\t",
        "\r\n",
        "\u00a0",
        "\u3000",
        "a",
        "I",
        "Å",
        "A\u030a",
        "é",
        "e\u0301",
        "ﬁ",
        "½",
        "²",
        "™",
        "ß",
        "İ",
    ),
    *(
        "👩‍👩‍👧‍👦",
        "🏳️‍🌈",
        "🇳🇴",
        "👍🏽",
        "🙂",
        "漢字",
        "かな",
        "한국어",
        "สวัสดี",
        "नमस्ते",
        "שלום",
        "مرحبا",
        "\u202eabc\u202c",
        "\u200b",
        "\u200d",
        "\ufeff",
    ),
    *(
        "\x00",
        "\x07",
        "\x1b",
        "\x7f",
        "\u0085",
        "\ufffd",
        "\ufffe",
        "\U0010ffff",
        "\ue000",
        "\u0300" * 5,
        "q\u0323\u0307",
        "…",
        "—",
        "·",
    ),
    *(
        "[SEP]",
        "[CLS]",
        "[PAD]",
        "[MASK]",
        "[UNK]",
        "[sep]",
        "<s>",
        "</s>",
        "<mask>",
        " <mask>",
        "<pad>",
        "<unk>",
        "##a",
        "▁",
        "Ġ",
        "</S>",
    ),
    *(
        "don't",
        "we'll",
        "C++",
        "12,5",
        "1.000.000",
        "a.b@c.no",
        "https://nrk.no/?q=æ",
        "blåbærsyltetøy",
        "x" * 101,
        *NORWEGIAN[:4],
    ),
]
PIECE = st.one_of(st.sampled_from(PIECES), st.text(st.characters(exclude_categories=["Cs"]), max_size=8))
TEXT = st.lists(PIECE, max_size=8).map("".join) | st.lists(PIECE, max_size=8).map(" ".join)


@pytest.mark.parametrize(("query", "document"), [("", ""), ("", "a"), ("a", ""), (" ", "\n"), *itertools.pairwise(SENTENCES)])
def test_ids_and_types_are_transformers(tiny: Tiny, query: str, document: str) -> None:
    for name in TINY:
        kind = kind_of(tiny.checkpoint(name), FAST[name])
        (found,) = kind.encoder(512).encode([(query, document)])
        assert (found.input_ids.tolist(), found.token_type_ids.tolist()) == kind.reference(query, document)
        assert not found.truncated
        assert found.input_ids.dtype == found.token_type_ids.dtype == np.int64


@CASES
@given(query=TEXT, document=TEXT)
def test_any_text_is_encoded_as_transformers_does(kind: Kind, query: str, document: str) -> None:
    (found,) = kind.encoder(4096).encode([(query, document)])
    assert (found.input_ids.tolist(), found.token_type_ids.tolist()) == kind.reference(query, document)
    assert not found.truncated


@pytest.mark.parametrize("piece", [piece for piece in PIECES if piece.strip("[]<>/ ").isalpha() and piece[:1] in "[< "])
def test_special_tokens_written_in_a_text_are_what_transformers_makes_of_them(kind: Kind, piece: str) -> None:
    text = f"før{piece}etter {piece} {piece}{piece}"
    (found,) = kind.encoder(512).encode([(text, text)])
    assert found.input_ids.tolist() == kind.reference(text, text)[0]


@CASES
@given(query=TEXT, document=TEXT, max_length=st.integers(8, 60))
def test_a_short_query_is_truncated_as_longest_first_does(kind: Kind, query: str, document: str, max_length: int) -> None:
    (found,) = kind.encoder(max_length).encode([(query, document)])
    tokens = len(kind.fast(query, add_special_tokens=False, verbose=False)["input_ids"])
    if tokens > (max_length - kind.specials) // 2:
        assert same(found, kind.expected(query, document, max_length))
        return
    reference = kind.reference(query, document, truncation="longest_first", max_length=max_length)
    assert (found.input_ids.tolist(), found.token_type_ids.tolist()) == reference


@pytest.mark.parametrize("max_length", [16, 40, 128, 512])
def test_a_long_query_keeps_three_quarters_of_a_long_pair(kind: Kind, max_length: int) -> None:
    query, document = " ".join(SENTENCES * 3), " ".join(reversed(SENTENCES * 3))
    (found,) = kind.encoder(max_length).encode([(query, document)])
    assert same(found, kind.expected(query, document, max_length))
    assert len(found.input_ids) == max_length
    query_ids = kind.fast(query, add_special_tokens=False, verbose=False)["input_ids"]
    share = min(max_length * 3 // 4, max_length - kind.specials - 1)
    assert found.input_ids[1 : 1 + share].tolist() == query_ids[:share]
    assert found.input_ids[1 + share] == kind.fast.sep_token_id
    assert found.truncated


def test_a_short_document_leaves_its_room_to_the_query(kind: Kind) -> None:
    query, document = " ".join(SENTENCES * 3), "kort"
    (found,) = kind.encoder(64).encode([(query, document)])
    kept = kind.fast(document, add_special_tokens=False)["input_ids"]
    assert len(found.input_ids) == 64
    assert found.input_ids[-1 - len(kept) : -1].tolist() == kept
    assert same(found, kind.expected(query, document, 64))


def test_a_query_alone_fills_the_room(kind: Kind) -> None:
    (found,) = kind.encoder(32).encode([(" ".join(SENTENCES), "")])
    assert same(found, kind.expected(" ".join(SENTENCES), "", 32))
    assert len(found.input_ids) == 32


def test_truncated_only_where_something_is_missing(kind: Kind) -> None:
    query, document = NORWEGIAN[0], NORWEGIAN[1]
    whole = len(kind.encoder(512).encode([(query, document)])[0].input_ids)
    for max_length, truncated in ((whole - 1, True), (whole, False), (whole + 1, False)):
        (found,) = kind.encoder(max_length).encode([(query, document)])
        assert found.truncated is truncated
        assert len(found.input_ids) == min(whole, max_length)


def test_too_small_a_max_length_is_refused(kind: Kind) -> None:
    for max_length in range(kind.specials + 2):
        with pytest.raises(
            Incompatible, match=f"max_length {max_length} leaves no room for text beside {kind.specials} special"
        ):
            kind.encoder(max_length)


def test_the_smallest_max_length_has_a_token_of_each(kind: Kind) -> None:
    smallest = kind.specials + 2
    (found,) = kind.encoder(smallest).encode([(NORWEGIAN[0], NORWEGIAN[1])])
    assert same(found, kind.expected(NORWEGIAN[0], NORWEGIAN[1], smallest))
    assert len(found.input_ids) == smallest


def test_many_pairs_keep_their_order_and_share_queries(kind: Kind) -> None:
    pairs = [(SENTENCES[i % 3], SENTENCES[i % 40] * (i % 4)) for i in range(120)]
    encoder = kind.encoder(48)
    together = encoder.encode(pairs)
    assert len(together) == len(pairs)
    assert all(same(found, encoder.encode([pair])[0]) for found, pair in zip(together, pairs, strict=True))
    assert encoder.encode([]) == []


def test_threads_of_the_tokenizer_make_no_difference(kind: Kind) -> None:
    pairs = [(SENTENCES[i], SENTENCES[-i] * (i % 5)) for i in range(30)]
    serial, parallel = (kind.encoder(64, parallel=parallel).encode(pairs) for parallel in (False, True))
    assert all(same(a, b) for a, b in zip(serial, parallel, strict=True))


def test_a_pair_never_holds_padding(kind: Kind) -> None:
    for pair in kind.encoder(64).encode([("kort", "a"), ("lengre spørring", " ".join(SENTENCES)), ("", "")]):
        assert len(pair.input_ids) == len(pair.token_type_ids) <= 64
        assert kind.fast.pad_token_id not in pair.input_ids


def laid_out(pair: str, *, single: str = "[CLS] $A [SEP]") -> Tokenizer:
    tokenizer = wordpiece_tokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single=single, pair=pair, special_tokens=[("[CLS]", 2), ("[SEP]", 3), ("[MASK]", 4)]
    )
    return tokenizer


@pytest.mark.parametrize(
    ("pair", "ids", "types"),
    [
        ("[CLS] $A [SEP] $B:1 [SEP]:1", "2 a 3 b 3", "00011"),
        ("[CLS] $A [SEP] $B [SEP]", "2 a 3 b 3", "00000"),
        ("[CLS] $A [SEP] [SEP] $B [SEP]", "2 a 3 3 b 3", "000000"),
        ("$A [SEP] $B:1", "a 3 b", "001"),
        ("[CLS] [MASK] $A $B:1 [SEP]:1 [SEP]:1", "2 4 a b 3 3", "000111"),
        ("[CLS]:1 $A:1 [SEP]:1 $B:0 [SEP]:0", "2 a 3 b 3", "11100"),
    ],
)
def test_any_template_that_keeps_both_texts_whole_and_in_order(pair: str, ids: str, types: str) -> None:
    tokenizer = laid_out(pair)
    known = {"a": tokenizer.token_to_id("a"), "b": tokenizer.token_to_id("b")}
    (found,) = PairEncoder(tokenizer, 32).encode([("a", "b")])
    assert found.input_ids.tolist() == [known[part] if part in known else int(part) for part in ids.split()]
    assert found.token_type_ids.tolist() == [int(digit) for digit in types]
    reference = laid_out(pair).encode("a", "b")
    assert (found.input_ids.tolist(), found.token_type_ids.tolist()) == (reference.ids, reference.type_ids)


@pytest.mark.parametrize(
    "pair",
    [
        "[CLS] $B [SEP] $A:1 [SEP]:1",  # the other way round
        "[CLS] $A [SEP] $B:1 [SEP]:1 $A",  # one twice
        "[CLS] $A [SEP] $B:1 $A:1 [SEP]:1",
        "[CLS] $A [SEP]:1 $B:1 [SEP]:1",  # two types in a half
        "[CLS] $A [SEP] $B:1 [SEP]:0",
    ],
)
def test_any_other_template_is_refused(pair: str) -> None:
    with pytest.raises(Incompatible, match=r"template for a pair is not|does not encode a pair"):
        PairEncoder(laid_out(pair), 32)


def test_a_tokenizer_that_gives_a_text_no_token_is_refused() -> None:
    tokenizer = Tokenizer(models.BPE({"z": 0}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    with pytest.raises(Incompatible, match="does not encode a pair of texts"):
        PairEncoder(tokenizer, 32)


def test_stored_truncation_and_padding_are_switched_off() -> None:
    tokenizer = wordpiece_tokenizer()
    tokenizer.enable_truncation(8, strategy="only_second")
    tokenizer.enable_padding(length=40)
    (found,) = PairEncoder(tokenizer, 30).encode([(NORWEGIAN[0], NORWEGIAN[1])])
    (expected,) = PairEncoder(wordpiece_tokenizer(), 30).encode([(NORWEGIAN[0], NORWEGIAN[1])])
    assert same(found, expected)


def test_a_text_that_the_tokenizer_fails_on_is_an_error_without_the_text() -> None:
    # It has no piece for unknown words, and the probes that loading makes happen to be known.
    tokenizer = Tokenizer(models.WordLevel({"a": 0, "[SEP]": 1}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A [SEP]", pair="$A [SEP] $B [SEP]", special_tokens=[("[SEP]", 1)]
    )
    encoder = PairEncoder(tokenizer, 16)
    assert encoder.encode([("a", "a a")])[0].input_ids.tolist() == [0, 1, 0, 0, 1]
    with pytest.raises(InferenceError, match="failed on a text") as raised:
        encoder.encode([("a", "hemmelig")])
    assert "hemmelig" not in str(raised.value)
