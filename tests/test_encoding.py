"""Token ids against transformers' own fast tokenizers, untruncated, truncated, and cut from long texts."""

import functools
import itertools
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers, processors

from builders import NORWEGIAN, SENTENCES, Family, bytelevel_tokenizer, unigram_tokenizer, wordpiece_tokenizer
from conftest import Tiny
from paths import NANO_CHECKPOINT, ROOT, shared
from processes import environment
from raskrank import encoding
from raskrank.encoding import MAX_UNBROKEN, EncodedPair, PairEncoder, kept_tokens
from raskrank.errors import Incompatible, InferenceError

CASES = settings(
    deadline=None,
    database=None,
    max_examples=50,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
# In-memory tokenizers of each kind, the embedded model's, and published ones.
TINY: tuple[Family, ...] = ("bert", "xlm-roberta", "roberta")
REAL = {
    "ms-marco-MiniLM-L-6-v2": "BertTokenizerFast",
    "bge-reranker-base-BAAI": "XLMRobertaTokenizerFast",
    "mmarco-mMiniLMv2-L12-H384-v1": "XLMRobertaTokenizerFast",
}
FAST = {"bert": "BertTokenizerFast", "xlm-roberta": "XLMRobertaTokenizerFast", "roberta": "RobertaTokenizerFast"}
NAMES = (*TINY, "nano", *REAL)


class Kind(NamedTuple):
    """A tokenizer.json, and transformers' tokenizer of the same folder."""

    data: bytes
    fast: Any
    bert: bool

    def __repr__(self) -> str:
        return type(self.fast).__name__

    @property
    def specials(self) -> int:
        return 3 if self.bert else 4

    def encoder(self, max_length: int, *, parallel: bool = True) -> PairEncoder:
        return PairEncoder(_tokenizer(self.data), max_length, parallel=parallel)

    def reference(self, query: str, document: str, **options: Any) -> tuple[list[int], list[int]]:
        """transformers' ids and types. In lists, because it takes a single empty document for none."""
        encoded = self.fast([query], [document], return_token_type_ids=True, verbose=False, **options)
        return encoded["input_ids"][0], encoded["token_type_ids"][0]

    def join(self, query: list[int], document: list[int]) -> tuple[list[int], list[int]]:
        """The ids and types of a pair, as BERT and RoBERTa lay them out."""
        first, last = self.fast.cls_token_id, self.fast.sep_token_id
        between = [last] if self.bert else [last, last]
        ids = [first, *query, *between, *document, last]
        types = [0] * (1 + len(query) + len(between)) + [int(self.bert)] * (len(document) + 1)
        return ids, types

    def expected(self, query: str, document: str, max_length: int) -> EncodedPair:
        """What PairEncoder's docstring says, from the whole texts' tokens as transformers has them."""
        a, b = (self.fast(text, add_special_tokens=False, verbose=False)["input_ids"] for text in (query, document))
        budget = max_length - self.specials
        truncated = len(a) + len(b) > budget
        if truncated:
            kept = min(len(a), max(min(max_length * 3 // 4, budget - 1), budget - len(b)))
            a, b = a[:kept], b[: budget - kept]
        ids, types = self.join(a, b)
        return EncodedPair(np.array(ids), np.array(types), truncated)


@functools.cache
def _tokenizer(data: bytes) -> Tokenizer:
    """One for all lengths: published ones take seconds to read, and an encoder does not change them."""
    return Tokenizer.from_buffer(data)


@functools.cache
def _kind(folder: Path, class_name: str) -> Kind:
    import transformers

    fast = getattr(transformers, class_name).from_pretrained(folder, local_files_only=True)
    bert = "XLM" not in class_name and "Roberta" not in class_name
    return Kind((folder / "tokenizer.json").read_bytes(), fast, bert)


@pytest.fixture(params=NAMES)
def kind(request: pytest.FixtureRequest, tiny: Tiny) -> Kind:
    name = request.param
    if name in REAL:
        return _kind(shared("data", "tokenizers", name), REAL[name])
    if name == "nano":
        return _kind(NANO_CHECKPOINT, "PreTrainedTokenizerFast")
    return _kind(tiny.checkpoint(name), FAST[name])


def same(found: EncodedPair, expected: EncodedPair) -> bool:
    return (
        found.input_ids.tolist() == expected.input_ids.tolist()
        and found.token_type_ids.tolist() == expected.token_type_ids.tolist()
        and found.truncated == expected.truncated
    )


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
        kind = _kind(tiny.checkpoint(name), FAST[name])
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


# The text cut: only a prefix of a long text is tokenized.

BLOCKS = [
    *(
        " ",
        "\n",
        "\t ",
        ". ",
        "...",
        "-",
        "!?",
        "漢",
        "字。",
        "🙂",
        "👩‍👩‍👧‍👦",
        "🇳🇴",
        "\u0301",
        "\u0323\u0301",
        "\u200b",
        "\u200d",
        "\x00",
        "\u00ad",
    ),
    *("a", "a ", "ab", "é", "e\u0301", "ﬁ", "½", "ﷺ", "가", "각", "ก็", "[SEP]", "</s>", "<mask>", " <mask>", "<s>", "[MASK] "),
    *("Oslo ", "blåbær", "blåbærsyltetøy ", "12,5 ", "don't ", "_", "'", '"', "http://", "▁", "Ġ", "##", *NORWEGIAN[1:6:2]),
]
LONG = st.lists(
    st.tuples(
        st.sampled_from(BLOCKS) | st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=4), st.integers(1, 160)
    ),
    min_size=1,
    max_size=8,
).map(lambda parts: "".join(block * times for block, times in parts))


@settings(CASES, max_examples=60)
@given(text=LONG, max_length=st.integers(6, 24), shift=st.integers(0, 70))
def test_a_cut_text_is_encoded_as_the_whole(kind: Kind, text: str, max_length: int, shift: int) -> None:
    text = "x" * shift + text
    encoder = kind.encoder(max_length)
    for query, document in (("", text), ("kort", text), (text, "kort"), (text, text)):
        (found,) = encoder.encode([(query, document)])
        assert same(found, kind.expected(query, document, max_length))


@pytest.mark.parametrize("kind", [*TINY, "nano"], indirect=True)
@pytest.mark.parametrize("block", BLOCKS)
def test_a_block_at_every_place_around_the_cut(kind: Kind, block: str) -> None:
    max_length = 12
    encoder = kind.encoder(max_length)
    cut = encoder._first_chars
    text = "0123 567 " * (4 * cut // 9 + 1)
    for place in range(cut - encoder._margin - 3 * len(block) - 2, cut + 3, 4):
        document = text[:place] + block * 3 + text[place : 3 * cut]
        (found,) = encoder.encode([("kort", document)])
        assert same(found, kind.expected("kort", document, max_length))


def test_words_of_every_length_around_the_cut(kind: Kind) -> None:
    max_length = 10
    encoder = kind.encoder(max_length)
    cut = encoder._first_chars
    for length in range(1, 3 * cut, 5):
        document = ("y" * length + " ") * (3 * cut // length + 2)
        (found,) = encoder.encode([("kort", document)])
        assert same(found, kind.expected("kort", document, max_length))


@pytest.mark.parametrize("max_length", [32, 512])
def test_real_text_is_cut_without_a_trace(kind: Kind, max_length: int) -> None:
    for start in range(6):
        document = " ".join([*NORWEGIAN[start:], *NORWEGIAN * 8])
        (found,) = kind.encoder(max_length).encode([(NORWEGIAN[start], document)])
        assert same(found, kind.expected(NORWEGIAN[start], document, max_length))


def test_long_texts_among_short_ones_stay_in_place(kind: Kind) -> None:
    long = " ".join(SENTENCES * 4)
    pairs = [("kort", "a"), ("kort", long), (long, "b"), ("kort", "c"), (long, long)]
    for found, (query, document) in zip(kind.encoder(24).encode(pairs), pairs, strict=True):
        assert same(found, kind.expected(query, document, 24))


MEGABYTE = 1_000_000


def test_a_megabyte_of_norwegian_takes_no_longer_than_its_beginning() -> None:
    encoder = PairEncoder(Tokenizer.from_file(str(NANO_CHECKPOINT / "tokenizer.json")), 512)
    whole = " ".join(NORWEGIAN * 600)
    assert len(whole) >= MEGABYTE

    def seconds(document: str) -> float:
        start = time.process_time()
        for _ in range(10):
            encoder.encode([(NORWEGIAN[0], document)])
        return time.process_time() - start

    # 1.1 times; as long as tokenizing it whole would be 50 times.
    assert min(seconds(whole) for _ in range(3)) < 5 * min(seconds(whole[: MEGABYTE // 50]) for _ in range(3))


# What a prefix cannot know of what follows it.


def with_added(family: Family, *tokens: AddedToken) -> Tokenizer:
    tokenizer = {"bert": wordpiece_tokenizer, "xlm-roberta": unigram_tokenizer, "roberta": bytelevel_tokenizer}[family]()
    tokenizer.add_tokens(list(tokens))
    return tokenizer


def wrong_cuts(tokenizer: Tokenizer, middle: str) -> list[int]:
    """Cuts of a text with `middle` in it before which a token is taken for the whole text's though it is another."""
    text, wrong = " ".join(SENTENCES[:4]) + " " + middle + " " + " ".join(SENTENCES[:2]), []
    whole = tokenizer.encode(text, add_special_tokens=False).ids
    margin = PairEncoder(tokenizer, 12)._margin
    for cut in range(text.index(middle), len(text)):
        prefix = tokenizer.encode(text[:cut], add_special_tokens=False)
        settled = encoding._settled(prefix, encoding._trusted(text, cut, margin))
        if prefix.ids[:settled] != whole[:settled]:
            wrong.append(cut)
    assert settled > 0  # of the last cut: it does find something
    return wrong


LONG_TOKEN = "<|" + "a long token of words " * 7 + "|>"  # 158 characters


@pytest.mark.parametrize("family", TINY)
@pytest.mark.parametrize("normalized", [False, True])
def test_an_added_token_of_any_length_is_never_cut_in_two(family: Family, normalized: bool) -> None:
    tokenizer = with_added(family, AddedToken(LONG_TOKEN, normalized=normalized))
    assert wrong_cuts(tokenizer, LONG_TOKEN) == []
    assert wrong_cuts(tokenizer, LONG_TOKEN[:-1] + "!") == []


def test_letters_before_an_added_token_are_a_word_that_ends_there() -> None:
    # To the cut they are one word with the token's first letters, and a piece far to the left may be another: where one of
    # an odd number of letters stands alone. "b" makes it even.
    pieces = [
        ("<unk>", 0.0),
        ("a", -3.0),
        ("aa", -4.0),
        ("aaab", -1.0),
        *((letter, -9.0) for letter in "bcdefghijklmnopqrstuvwxyz"),
    ]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=0))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.add_tokens([AddedToken("b cde", normalized=False)])
    tokenizer.post_processor = laid_out("$A $B").post_processor
    assert wrong_cuts(tokenizer, "a" * 301 + "b cde") == []


@pytest.mark.parametrize("family", TINY)
@pytest.mark.parametrize("space", [" ", "\n", "\u2028", "\u3000", " \0"])
def test_an_added_token_takes_the_space_before_it_however_long(family: Family, space: str) -> None:
    token = AddedToken("<long-mask>", lstrip=True, rstrip=True, normalized=False)
    tokenizer = with_added(family, token)
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"\s|[^\s]+"), "isolated")  # each space is a word
    assert wrong_cuts(tokenizer, space * 150 + "<long-mask>" + space * 150) == []


@pytest.mark.parametrize("family", TINY)
@pytest.mark.parametrize("dropped", ["\0", "\u200d", "\ufe0f", "\u0301"])
def test_an_added_token_is_found_across_what_the_normalizer_drops(family: Family, dropped: str) -> None:
    tokenizer = with_added(family, AddedToken("<note>", normalized=True))
    tokenizer.normalizer = normalizers.Replace(Regex(f"{dropped}+" if dropped != "\0" else r"\x00+"), "")
    assert tokenizer.encode(f"<{dropped}note>", add_special_tokens=False).tokens == ["<note>"]
    for middle in (f"<{dropped * 200}note>", (dropped * 40).join("<note>"), f"<note{dropped * 100}>"):
        assert wrong_cuts(tokenizer, middle) == []


@pytest.mark.parametrize("family", TINY)
@pytest.mark.parametrize("form", [normalizers.NFC(), normalizers.NFD(), normalizers.NFKC()], ids=repr)
def test_marks_are_sorted_across_the_cut(family: Family, form: normalizers.Normalizer) -> None:
    # A dot below sorts before any number of acutes, and joins the letter.
    tokenizer = with_added(family)
    tokenizer.normalizer = form
    assert wrong_cuts(tokenizer, "så" + "\u0301" * 150 + "\u0323") == []
    assert wrong_cuts(tokenizer, "å e" + "\u0301\u0300" * 100 + "\u0327 å") == []


# No text holds a service.

ENDLESS = {"emoji": "🙂", "letter": "x", "ligature": "\u3316", "marks": "\u0301", "nul": "\0", "dots": "\u2026", "space": " "}


@pytest.mark.parametrize("name", ENDLESS)
def test_ten_million_characters_without_a_boundary_are_read_as_if_they_ended_early(kind: Kind, name: str) -> None:
    encoder, piece = kind.encoder(128), ENDLESS[name]
    text = "å" + piece * 10_000_000
    start = time.process_time()
    for query, document in (("kort", text), (text, "kort")):
        (found,) = encoder.encode([(query, document)])
        (short,) = encoder.encode([(query[:MAX_UNBROKEN], document[:MAX_UNBROKEN])])
        assert found.input_ids.tolist() == short.input_ids.tolist()
        assert found.truncated
    # Four readings at 0.2 to 0.3 s; each of the whole text takes 10 to 50 s.
    assert time.process_time() - start < 10


def test_what_is_not_read_counts_as_truncated_though_the_tokens_fit(kind: Kind) -> None:
    text = "kort" + " " * (MAX_UNBROKEN + 1) + "slutt"
    (found,) = kind.encoder(512).encode([("kort", text)])
    assert found.truncated
    (found,) = kind.encoder(512).encode([("kort", "kort" + " " * (MAX_UNBROKEN // 200) + "slutt")])
    assert not found.truncated or len(found.input_ids) == 512


def test_a_large_max_length_reads_on_past_the_limit() -> None:
    # 32 characters for each of 8192 tokens: words of 30 letters, one unknown piece each, are all there.
    tokenizer = wordpiece_tokenizer()
    tokenizer.model = models.WordPiece(tokenizer.get_vocab(), unk_token="[UNK]", max_input_chars_per_word=10)
    text = ("x" * 29 + " ") * 8192
    assert len(text) > 2 * MAX_UNBROKEN
    (found,) = PairEncoder(tokenizer, 8192).encode([("", text)])
    assert found.truncated
    assert found.input_ids[2:-1].tolist() == [1] * 8189


def test_other_threads_run_while_a_long_text_is_tokenized() -> None:
    encoder, gaps, done = PairEncoder(unigram_tokenizer(), 128), [0.0], threading.Event()

    def tick() -> None:
        last = time.perf_counter()
        while not done.is_set():
            time.sleep(0.001)
            now = time.perf_counter()
            gaps.append(now - last)
            last = now

    thread = threading.Thread(target=tick)
    thread.start()
    shares = []
    for _ in range(7):
        gaps[:] = [0.0]
        start = time.perf_counter()
        encoder.encode([("", "\u3316" * MAX_UNBROKEN)])
        shares.append(max(gaps) / (time.perf_counter() - start))
    done.set()
    thread.join()
    # With the library's `encode` they stand still for most of the time.
    assert min(shares) < 0.4


def test_the_attack_with_texts(tmp_path: Path) -> None:
    attack = [sys.executable, "-W", "error", str(ROOT / "tests" / "attacks" / "texts.py"), "--count", "400", "--share", "0.04"]
    run = subprocess.run(attack, capture_output=True, text=True, timeout=120, env=environment(tmp_path), check=False)
    assert run.returncode == 0, run.stderr
    assert run.stdout.startswith("400 random texts, ")
    assert "0 encoded otherwise than whole" in run.stdout


@pytest.mark.parametrize("parallel", [True, False])
def test_many_texts_of_any_length_are_tokenized_in_batches_of_bounded_size(
    monkeypatch: pytest.MonkeyPatch, parallel: bool
) -> None:
    monkeypatch.setattr(encoding, "BATCH_CHARS", 300)
    pairs = [(SENTENCES[index % 7], SENTENCES[index % 11] * (index % 6)) for index in range(60)]
    expected = [PairEncoder(wordpiece_tokenizer(), 64).encode([pair])[0] for pair in pairs]
    found = PairEncoder(wordpiece_tokenizer(), 64, parallel=parallel).encode(pairs)
    assert all(same(a, b) for a, b in zip(found, expected, strict=True))
    texts = [text for pair in pairs for text in pair]
    batches = list(encoding._batches(texts))
    assert [text for batch in batches for text in batch] == texts
    assert all(sum(map(len, batch)) <= 300 or len(batch) == 1 for batch in batches)


@given(query=st.integers(0, 60), document=st.integers(0, 60), budget=st.integers(2, 40), data=st.data())
def test_what_a_pair_keeps(query: int, document: int, budget: int, data: st.DataObject) -> None:
    share = data.draw(st.integers(1, budget - 1))
    kept = kept_tokens(query, document, budget=budget, query_share=share)
    assert sum(kept) == min(query + document, budget)
    assert kept[0] <= query
    assert kept[1] <= document
    if query + document > budget:
        assert kept[0] >= min(query, share)
        assert kept[0] <= max(share, budget - document)


# Layouts


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
