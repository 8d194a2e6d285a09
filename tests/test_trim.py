"""Vocabulary trimming: a text whose pieces are all kept keeps its ids, one to one."""

import hashlib
import itertools
import json
import shutil
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers, processors

from builders import ENGLISH, NORWEGIAN, SENTENCES, bytelevel_tokenizer, unigram_tokenizer, wordpiece_tokenizer
from conftest import Tiny
from paths import NANO_CHECKPOINT, shared
from published import BGE_BASE, published_checkpoint
from raskrank import Reranker
from raskrank.documents import stream_documents
from raskrank.errors import ExportError, InputError
from raskrank.manifest import Coverage
from raskrank_export.trim import Trimmed, trim_vocabulary
from test_large import PASSAGES, RANK, first_scores, run

# Every corpus holds ten texts or more; these say nothing.
NOTHING = ("",) * 10
# Words of the corpora and of others, characters that no vocabulary here has, special tokens, odd spaces.
TEXTS = st.lists(
    st.sampled_from(sorted({word for sentence in SENTENCES for word in sentence.split()}))
    | st.text("abcøæå ΩЖ你好🙂\u0301\u200d\t#", max_size=6)
    | st.sampled_from(["[SEP]", "<mask>", "</s>", "[UNK]", "<unk>", "##a", "▁"]),
    max_size=12,
).map(" ".join)


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("trim") / "corpus.jsonl"


def trim(file: Path, tokenizer: Tokenizer | bytes, texts: Sequence[str], pad_id: int = 0) -> Trimmed:
    data = tokenizer if isinstance(tokenizer, bytes) else tokenizer.to_str().encode()
    file.write_text("".join(json.dumps({"text": text}) + "\n" for text in (*NOTHING, *texts)), "utf-8")
    return trim_vocabulary(data, Tokenizer.from_buffer(data), [file], pad_id=pad_id)


def ids(tokenizer: Tokenizer, *texts: str) -> list[int]:
    found: list[int] = tokenizer.encode(*texts).ids
    return found


def assert_same_where_kept(tokenizer: Tokenizer, trimmed: Trimmed, text: str) -> bool:
    """Whether all pieces of the text are kept; if so, its ids must be the same pieces."""
    before, now = ids(tokenizer, text), ids(trimmed.tokenizer, text)
    assert max(now, default=0) < len(trimmed.kept)
    if not set(before) <= set(trimmed.kept.tolist()):
        return False
    assert trimmed.kept[now].tolist() == before
    return True


TOKENIZERS: dict[str, Callable[[], Tokenizer]] = {
    "unigram": unigram_tokenizer,
    "wordpiece": wordpiece_tokenizer,
    "nano": lambda: Tokenizer.from_file(str(NANO_CHECKPOINT / "tokenizer.json")),
}


@pytest.fixture(scope="module", params=TOKENIZERS)
def pair(request: pytest.FixtureRequest, scratch: Path) -> tuple[Tokenizer, Trimmed]:
    """A tokenizer, and it trimmed on Norwegian alone."""
    tokenizer = TOKENIZERS[request.param]()
    return tokenizer, trim(scratch, tokenizer, NORWEGIAN, pad_id=1)


def test_the_corpus_is_spelled_as_before(pair: tuple[Tokenizer, Trimmed]) -> None:
    tokenizer, trimmed = pair
    assert all(assert_same_where_kept(tokenizer, trimmed, text) for text in NORWEGIAN)
    assert 50 < len(trimmed.kept) < 0.8 * tokenizer.get_vocab_size()
    assert trimmed.tokenizer.get_vocab_size() == len(trimmed.kept)
    assert trimmed.kept[:2].tolist() == [0, 1]
    assert (np.diff(trimmed.kept) > 0).all()
    for query, document in itertools.pairwise(NORWEGIAN):  # the special tokens between and around them
        assert trimmed.kept[ids(trimmed.tokenizer, query, document)].tolist() == ids(tokenizer, query, document)


def test_some_other_text_is_spelled_otherwise(pair: tuple[Tokenizer, Trimmed]) -> None:
    tokenizer, trimmed = pair
    kept = [assert_same_where_kept(tokenizer, trimmed, text) for text in ENGLISH]
    assert not all(kept)
    for text in ENGLISH:  # of single characters, not of unknown pieces
        assert trimmed.vocabulary.unknown_id not in ids(trimmed.tokenizer, text)


def test_every_single_character_is_kept(pair: tuple[Tokenizer, Trimmed]) -> None:
    tokenizer, trimmed = pair
    single = {piece for piece in tokenizer.get_vocab() if len(piece.removeprefix("##")) == 1}
    assert len(single) > 50
    assert single <= set(trimmed.tokenizer.get_vocab())


@settings(deadline=None)
@given(text=TEXTS)
def test_ids_map_one_to_one(pair: tuple[Tokenizer, Trimmed], text: str) -> None:
    assert_same_where_kept(*pair, text)


# Any vocabulary, with ties, with characters that have no piece of their own, and with scores in any order.


WORDS = st.text("abc", min_size=1, max_size=3)
EVERY_WORD = ["".join(letters) for length in range(1, 6) for letters in itertools.product("abc", repeat=length)]


def unigram(scores: dict[str, float]) -> Tokenizer:
    tokenizer = Tokenizer(models.Unigram([("<unk>", 0.0), *scores.items()], unk_id=0))
    tokenizer.post_processor = processors.TemplateProcessing("<unk> $A", "<unk> $A $B", [("<unk>", 0)])
    return tokenizer


def wordpiece(pieces: Iterable[str]) -> Tokenizer:
    tokenizer = Tokenizer(models.WordPiece({piece: id for id, piece in enumerate(["[UNK]", *pieces])}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.BertProcessing(("[UNK]", 0), ("[UNK]", 0))
    return tokenizer


UNIGRAMS = st.dictionaries(WORDS, st.sampled_from([-1.0, -2.0, -3.0, -12.0, -30.0]), max_size=12).map(unigram)
WORDPIECES = st.sets(st.tuples(st.sampled_from(["", "##"]), WORDS).map("".join), max_size=16).map(sorted).map(wordpiece)


@settings(max_examples=100, deadline=None)
@given(tokenizer=UNIGRAMS | WORDPIECES, corpus=st.lists(WORDS, max_size=4))
# Without bbb, the lowest score, an unknown c would cost less, and cab would become <unk> ab.
@example(tokenizer=unigram({"ab": -1, "ca": -12, "b": -12, "bbb": -30}), corpus=["ab", "cab"])
# Without ab, abc would become a ##bc; it is unknown, since after ab nothing fits c.
@example(tokenizer=wordpiece(["a", "ab", "c", "##bc"]), corpus=["cbc"])
def test_of_any_vocabulary(scratch: Path, tokenizer: Tokenizer, corpus: list[str]) -> None:
    trimmed = trim(scratch, tokenizer, corpus)
    for text in EVERY_WORD:
        assert_same_where_kept(tokenizer, trimmed, text)


# What else tokenizer.json holds


def test_scores_are_spelled_as_in_the_file(scratch: Path) -> None:
    # The reader in tokenizers takes the same number in two spellings for two numbers now and then.
    data = unigram({"a": -1.5, "ab": -2.25, "b": -3.5}).to_str().replace("-2.25", "-2.2500000000000000001e0").encode()
    trimmed = trim(scratch, data, ["ab"])
    assert b'["ab",-2.2500000000000000001e0]' in trimmed.tokenizer_json


def test_added_tokens_behind_the_vocabulary(scratch: Path) -> None:
    tokenizer = wordpiece(["x", "y", "##y", "xyx", "yy"])
    tokenizer.add_tokens(["<first>", AddedToken("<second>", special=True, lstrip=True)])
    trimmed = trim(scratch, tokenizer, ["yy"])
    assert trimmed.tokenizer.get_vocab() == {"[UNK]": 0, "x": 1, "y": 2, "##y": 3, "yy": 4, "<first>": 5, "<second>": 6}
    assert trimmed.kept.tolist() == [0, 1, 2, 3, 5, 6, 7]
    assert trimmed.tokenizer.encode("y  <second><first>x", add_special_tokens=False).ids == [2, 6, 5, 1]


def test_every_kind_of_post_processor(scratch: Path) -> None:
    template = processors.TemplateProcessing("[CLS] $A", "[CLS] $A [SEP] $B", [("[CLS]", 5), ("[SEP]", 4)])
    roberta = processors.RobertaProcessing(("[SEP]", 4), ("[CLS]", 5))
    for processor in (template, roberta, processors.Sequence([processors.ByteLevel(), template])):
        tokenizer = wordpiece(["a", "##a", "ba", "[SEP]", "[CLS]", "aa"])
        tokenizer.post_processor = processor
        trimmed = trim(scratch, tokenizer, ["aa"])
        assert trimmed.kept.tolist() == [0, 1, 2, 4, 5, 6]
        assert trimmed.kept[ids(trimmed.tokenizer, "a", "aa")].tolist() == ids(tokenizer, "a", "aa")


def test_the_pad_keeps_its_id(scratch: Path) -> None:
    trimmed = trim(scratch, unigram({"ab": -1, "bc": -1, "<pad>": 0, "ca": -1, "cc": -2}), ["cc"], pad_id=3)
    assert trimmed.kept.tolist() == [0, 1, 2, 3, 5]


def test_padding_and_truncation_are_left_out(scratch: Path) -> None:
    tokenizer = wordpiece_tokenizer()
    tokenizer.enable_padding(pad_id=0, length=40)
    tokenizer.enable_truncation(3)
    trimmed = trim(scratch, tokenizer, NORWEGIAN)
    assert trimmed.tokenizer.padding is trimmed.tokenizer.truncation is None


# The corpus


def test_every_tenth_text_is_held_back(tmp_path: Path) -> None:
    texts = ["aa"] * 9 + ["aa bb bb"] + ["aa"] * 9 + ["ba aa"] + ["ba"] + ["aa"] * 8 + ["aa aa"]
    first, second = tmp_path / "first.txt", tmp_path / "second.jsonl"
    first.write_text("\n\n".join(texts[:15]) + "\n", "utf-8")  # blank lines are no texts
    second.write_text("".join(json.dumps({"id": 1, "text": text}) + "\n" for text in texts[15:]), "utf-8")
    tokenizer = wordpiece(["aa", "bb", "ba", "cc", "##a", "##b", "##c"])
    found = trim_vocabulary(tokenizer.to_str().encode(), tokenizer, [first, second], pad_id=0).vocabulary
    assert (found.kept, found.of, found.unknown_id) == (7, 8, 0)
    assert [file.name for file in found.corpus] == ["first.txt", "second.jsonl"]
    assert [file.sha256 for file in found.corpus] == [hashlib.sha256(file.read_bytes()).hexdigest() for file in (first, second)]
    # Of the 10th, 20th and 30th text the first has bb, twice, which no other has; ba comes in a later text, too.
    assert found.coverage == Coverage(texts=30, held_back=3, whole_texts=0.666667, tokens=0.714286)


def test_a_corpus_is_read_text_by_text(tmp_path: Path) -> None:
    file = tmp_path / "corpus.jsonl"
    file.write_bytes(b'\xef\xbb\xbf{"text": "en"}\r\n\n{"text": "to"}\n{"text": 3}\n')
    documents = stream_documents(file)
    assert [next(documents).text, next(documents).text] == ["en", "to"]
    with pytest.raises(InputError, match=r'corpus\.jsonl, line 4: "text": expected a string, got a number'):
        next(documents)


def test_bytes_of_no_text_in_a_corpus(tmp_path: Path) -> None:
    file = tmp_path / "corpus.txt"
    file.write_bytes(b"en\nto\xff\n")
    with pytest.raises(InputError, match=r"corpus\.txt: not UTF-8 text at byte 5"):
        list(stream_documents(file))


def test_too_few_texts(tmp_path: Path) -> None:
    file, tokenizer = tmp_path / "corpus.txt", wordpiece(["a"])
    file.write_text("a\n" * 9, "utf-8")
    with pytest.raises(InputError, match="holds 9 texts, at least 10 are needed"):
        trim_vocabulary(tokenizer.to_str().encode(), tokenizer, [file], pad_id=0)


# What cannot be trimmed


def test_bpe_is_refused(scratch: Path) -> None:
    with pytest.raises(ExportError, match="a BPE vocabulary cannot be trimmed"):
        trim(scratch, bytelevel_tokenizer(), NORWEGIAN)


def test_a_vocabulary_without_an_unknown_piece(scratch: Path) -> None:
    tokenizer = Tokenizer(models.Unigram([("a", -1.0)]))
    tokenizer.post_processor = unigram({}).post_processor
    with pytest.raises(ExportError, match="no piece for what it does not know"):
        trim(scratch, tokenizer, ["a"])


def test_a_piece_that_stands_twice(scratch: Path) -> None:
    # The second one counts, and is not used: with the first, kept below the pad, its score would change.
    data = unigram({"ab": -1, "b": -9, "xy": -2}).to_str().replace('"xy"', '"ab"').encode()
    with pytest.raises(ExportError, match="does not number the pieces"):
        trim(scratch, data, ["b"], pad_id=1)


# The published vocabulary


def test_xlm_roberta_on_norwegian(tmp_path: Path) -> None:
    data = shared("data", "tokenizers", "bge-reranker-base-BAAI", "tokenizer.json").read_bytes()
    train = shared("data", "norquad", "train")
    tokenizer = Tokenizer.from_buffer(data)
    trimmed = trim_vocabulary(data, tokenizer, [train / "queries.jsonl"], pad_id=1)
    assert trimmed.vocabulary.of == 250_002
    assert 14_000 < trimmed.vocabulary.kept < 22_000  # 13,828 of single characters
    assert len(trimmed.tokenizer_json) < 900_000
    assert trimmed.kept[[*range(4), -1]].tolist() == [0, 1, 2, 3, 250_001]
    assert trimmed.tokenizer.token_to_id("<mask>") == len(trimmed.kept) - 1
    lines = shared("data", "norquad", "validation", "queries.jsonl").read_text("utf-8").splitlines()
    same = [assert_same_where_kept(tokenizer, trimmed, json.loads(line)["text"]) for line in lines]
    assert 0.1 < sum(same) / len(same) < 1


EXPORT = """
import sys
from raskrank_export import Thresholds, export
checkpoint, whole, trimmed, samples, *corpus = sys.argv[1:]
loose = Thresholds(min_tau=-1, min_top1=0, max_drift=1, max_mean_drift=1)
export(checkpoint, whole, samples=samples, thresholds=loose)
export(checkpoint, trimmed, samples=samples, thresholds=loose, trim_vocab=corpus)
"""


@pytest.mark.slow
@pytest.mark.timeout(3000)
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads memory from /proc")
def test_bge_reranker_base_on_norwegian_and_english(tiny: Tiny, tmp_path: Path) -> None:
    corpus = [shared("data", *name.split("/")) for name in ("norquad/train", "scifact-train", "xquad")]
    files = [str(folder / name) for folder in corpus for name in ("passages.jsonl", "queries.jsonl")]
    lines = (shared("data", "norquad", "validation") / "passages.jsonl").read_text("utf-8").splitlines()
    passages = tmp_path / "passages.json"
    passages.write_text(json.dumps([json.loads(line)["text"] for line in lines[:PASSAGES]]), "utf-8")
    checkpoint, whole, trimmed = (tmp_path / name for name in ("checkpoint", "whole", "trimmed"))
    published_checkpoint(checkpoint, BGE_BASE)
    run(EXPORT, *map(str, (checkpoint, whole, trimmed, tiny.samples)), *files)
    shutil.rmtree(checkpoint)

    sizes = [sum(file.stat().st_size for file in folder.iterdir()) for folder in (whole, trimmed)]
    first = first_scores(whole, trimmed)
    resident = [json.loads(run(RANK, str(folder), str(passages)))["after"] for folder in (whole, trimmed)]
    print(json.dumps({"bytes": sizes, "first score": first, "resident": resident}))  # noqa: T201  shown with -s
    assert sizes[1] < 140_000_000
    assert first[1] * 2 <= first[0]
    assert resident[1] * 2 < resident[0]

    known = [json.loads(line)["text"] for line in Path(files[0]).read_text("utf-8").splitlines()[:20]]
    with Reranker.load(whole) as before, Reranker.load(trimmed) as now:
        assert now.score(known[0], known).tobytes() == before.score(known[0], known).tobytes()
