"""Of a long text a prefix is tokenized: its ids are those of the whole, and no text holds a service."""

import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers, processors

from builders import NORWEGIAN, SENTENCES, Family, bytelevel_tokenizer, unigram_tokenizer, wordpiece_tokenizer
from kinds import CASES, TINY, Kind, same
from modernbert import modernbert_tokenizer
from paths import NANO_CHECKPOINT, ROOT
from processes import environment
from raskrank import prefixes
from raskrank.encoding import PairEncoder, kept_tokens
from raskrank.prefixes import MAX_UNBROKEN

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
    cut = encoder._prefixes.first_chars(encoder.budget)
    text = "0123 567 " * (4 * cut // 9 + 1)
    for place in range(cut - encoder._prefixes.margin - 3 * len(block) - 2, cut + 3, 4):
        document = text[:place] + block * 3 + text[place : 3 * cut]
        (found,) = encoder.encode([("kort", document)])
        assert same(found, kind.expected("kort", document, max_length))


def test_words_of_every_length_around_the_cut(kind: Kind) -> None:
    max_length = 10
    encoder = kind.encoder(max_length)
    cut = encoder._prefixes.first_chars(encoder.budget)
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
    makers = {"bert": wordpiece_tokenizer, "xlm-roberta": unigram_tokenizer, "roberta": bytelevel_tokenizer}
    tokenizer = {**makers, "modernbert": modernbert_tokenizer}[family]()
    tokenizer.add_tokens(list(tokens))
    return tokenizer


def wrong_cuts(tokenizer: Tokenizer, middle: str) -> list[int]:
    """Cuts of a text with `middle` in it before which a token is taken for the whole text's though it is another."""
    text, wrong = " ".join(SENTENCES[:4]) + " " + middle + " " + " ".join(SENTENCES[:2]), []
    whole = tokenizer.encode(text, add_special_tokens=False).ids
    margin = PairEncoder(tokenizer, 12)._prefixes.margin
    for cut in range(text.index(middle), len(text)):
        prefix = tokenizer.encode(text[:cut], add_special_tokens=False)
        settled = prefixes.settled(prefix, prefixes.trusted(text, cut, margin))
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
    monkeypatch.setattr(prefixes, "BATCH_CHARS", 300)
    pairs = [(SENTENCES[index % 7], SENTENCES[index % 11] * (index % 6)) for index in range(60)]
    expected = [PairEncoder(wordpiece_tokenizer(), 64).encode([pair])[0] for pair in pairs]
    found = PairEncoder(wordpiece_tokenizer(), 64, parallel=parallel).encode(pairs)
    assert all(same(a, b) for a, b in zip(found, expected, strict=True))
    texts = [text for pair in pairs for text in pair]
    batches = list(prefixes._batches(texts))
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


def laid_out(pair: str, *, single: str = "[CLS] $A [SEP]") -> Tokenizer:
    tokenizer = wordpiece_tokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single=single, pair=pair, special_tokens=[("[CLS]", 2), ("[SEP]", 3), ("[MASK]", 4)]
    )
    return tokenizer
