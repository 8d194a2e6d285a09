"""æ, ø and å in each of their spellings score the same where the model's normalizer makes them equal; `info` says where."""

import functools
import unicodedata

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, normalizers

from builders import NORWEGIAN, Family, unigram_tokenizer, wordpiece_tokenizer
from conftest import Tiny
from paths import NANO_CHECKPOINT, shared
from raskrank import Reranker
from raskrank.encoding import PairEncoder
from raskrank.manifest import Precision

EQUAL = "composed and decomposed letters are equal"
DIFFER = "composed and decomposed letters differ: pass texts in NFC"
STRIPPED = "accents are stripped: å is read as a"
# LaBSE's folder has no tokenizer.json; bge-reranker-large has that of bge-reranker-base.
PUBLISHED = {
    "bge-reranker-base-BAAI": EQUAL,
    "jina-reranker-v2-base-multilingual": EQUAL,
    "mmarco-mMiniLMv2-L12-H384-v1": EQUAL,
    "ms-marco-MiniLM-L-6-v2": STRIPPED,
}
PRECISIONS: tuple[Precision, ...] = ("int8", "fp32")
TINY: dict[Family, str] = {"bert": DIFFER, "xlm-roberta": EQUAL, "roberta": DIFFER}
# Every letter with a mark of bokmål, nynorsk and the names of Norway's neighbours.
MARKED = "åÅéÉèÈêÊóÓòÒôÔàÀüÜöÖäÄǿǼ"
WORD = st.text(st.sampled_from("abdefgiklmnoprstuvyæøåÆØÅ" + MARKED), min_size=1, max_size=12)
TEXT = st.lists(WORD, min_size=1, max_size=8).map(" ".join)
CASES = settings(deadline=None, database=None, max_examples=50)


@functools.cache
def tokenizer(name: str) -> Tokenizer:
    folder = NANO_CHECKPOINT if name == "nano" else shared("data", "tokenizers", name)
    loaded = Tokenizer.from_file(str(folder / "tokenizer.json"))
    loaded.no_truncation()
    return loaded


def ids(name: str, text: str) -> list[int]:
    found: list[int] = tokenizer(name).encode(text, add_special_tokens=False).ids
    return found


def decomposed(text: str) -> str:
    return unicodedata.normalize("NFD", text)


@pytest.mark.parametrize(("name", "expected"), PUBLISHED.items(), ids=PUBLISHED)
def test_what_published_tokenizers_make_of_it(name: str, expected: str) -> None:
    assert PairEncoder(tokenizer(name), 512).normalization == expected


@pytest.mark.parametrize("name", PUBLISHED)
@CASES
@given(text=TEXT)
def test_published_tokenizers_read_decomposed_norwegian_as_composed(name: str, text: str) -> None:
    assert ids(name, decomposed(text)) == ids(name, unicodedata.normalize("NFC", text))


def test_a_ring_is_all_that_decomposes() -> None:
    # Unicode has no decomposition of æ and ø: o with a stroke laid over it is another text, and no model reads it as ø.
    assert decomposed("æøåÆØÅ") == "æøa\u030aÆØA\u030a"
    assert unicodedata.normalize("NFC", "o\u0338") != "ø"
    for name in PUBLISHED:
        assert ids(name, "so\u0338r") != ids(name, "sør")
        assert ids(name, "saer") != ids(name, "sær")


def test_stripped_accents_make_one_word_of_two() -> None:
    # The price of ms-marco-MiniLM-L-6-v2 on Norwegian: hair is read as "has", a sheep as "father".
    for one, other in (("hår", "har"), ("får", "far"), ("år", "ar"), ("må", "ma"), ("én", "en")):
        assert ids("ms-marco-MiniLM-L-6-v2", one) == ids("ms-marco-MiniLM-L-6-v2", other)
        assert ids("bge-reranker-base-BAAI", one) != ids("bge-reranker-base-BAAI", other)
    assert ids("ms-marco-MiniLM-L-6-v2", "før") != ids("ms-marco-MiniLM-L-6-v2", "for")


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize(("family", "expected"), TINY.items(), ids=TINY)
def test_scores_are_equal_where_info_says_so(tiny: Tiny, family: Family, expected: str, precision: Precision) -> None:
    with Reranker.load(tiny.bundle(family, precision)) as reranker:
        assert reranker.info().normalization == expected
        assert expected in str(reranker.info())
        _check(reranker, equal=expected != DIFFER)


def test_the_embedded_model_wants_composed_letters() -> None:
    with Reranker.load() as reranker:
        assert reranker.info().normalization == DIFFER
        _check(reranker, equal=False)
    assert tokenizer("nano").encode("bla\u030aba\u030ar", add_special_tokens=False).tokens == ["[UNK]"]


def test_the_reference_says_the_same(tiny: Tiny) -> None:
    with Reranker.load(tiny.bundle("xlm-roberta", "fp32"), backend="torch") as reranker:
        assert reranker.info().normalization == EQUAL
        _check(reranker, equal=True, rounding=1e-5)  # PyTorch's last digits depend on where a buffer lies


def test_the_answer_is_the_tokenizers_own() -> None:
    bert, xlm_roberta = wordpiece_tokenizer(), unigram_tokenizer()
    for tokenizer, normalizer, expected in (
        (bert, normalizers.BertNormalizer(lowercase=True), STRIPPED),
        (bert, normalizers.BertNormalizer(lowercase=False, strip_accents=False), DIFFER),
        (bert, normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()]), EQUAL),
        (xlm_roberta, normalizers.NFD(), EQUAL),
        (xlm_roberta, normalizers.Sequence([normalizers.NFD(), normalizers.StripAccents()]), STRIPPED),
        (xlm_roberta, normalizers.Lowercase(), DIFFER),
    ):
        tokenizer.normalizer = normalizer
        assert PairEncoder(tokenizer, 128).normalization == expected
    tokenizer.normalizer = None
    assert PairEncoder(tokenizer, 128).normalization == DIFFER


def _check(reranker: Reranker, *, equal: bool, rounding: float = 0) -> None:
    """Of texts with å: the same score in both spellings, bit for bit but for `rounding`; or another one in all of them."""
    texts = [text for text in NORWEGIAN if decomposed(text) != text]
    assert len(texts) > 10
    composed = reranker.score(NORWEGIAN[4], texts)
    as_document = reranker.score(NORWEGIAN[4], [decomposed(text) for text in texts])
    as_query = reranker.score(decomposed(NORWEGIAN[4]), texts)
    if equal:
        for spelled in (as_document, as_query):
            np.testing.assert_allclose(spelled, composed, rtol=0, atol=rounding)
    else:
        assert (composed != as_document).all()
        assert (composed != as_query).all()
