"""A pair of texts becomes token ids: [CLS] query [SEP] document [SEP], cut to max_length, never padded."""

import threading
import unicodedata
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import tokenizers
from tokenizers import Encoding, Tokenizer

from raskrank.backend import Int64Array
from raskrank.errors import Incompatible, InferenceError

# A query keeps up to this share of max_length; the document gives way before it (as FlagEmbedding's query_max_length does).
QUERY_SHARE = 0.75
# Of a longer text a prefix is tokenized. Real text has 3 to 6 characters a token, so one prefix nearly always is enough.
CHARS_PER_TOKEN = 8
# Characters before a prefix's end whose tokens are not trusted, beside the longest added token: what the text goes on with
# may change them. Letters that join to one, and a normalizer's replacements, are far shorter.
CUT_MARGIN = 64
# No more of a text is read, so that none takes a second or a gigabyte: 2 to 4 us and 0.6 kB a character where it has no
# boundary at all. Or 32 characters for each token of max_length, where that is more: the model then takes longer anyway.
MAX_UNBROKEN = 100_000
# Characters tokenized in one call of the library, whose results stand in memory together at up to 0.5 kB a character.
BATCH_CHARS = 250_000
# Marks, white space, controls: a normalizer may drop or reorder them, an added token may swallow them, however many.
FLUID_CATEGORIES = "MZC"
PROBE = "a"
COMPOSED, DECOMPOSED, BARE = "å", "a\u030a", "a"


class EncodedPair(NamedTuple):
    """Model input of one pair, without padding."""

    input_ids: Int64Array  # (L,)
    token_type_ids: Int64Array  # (L,): 0 for the query's part, 1 for the document's where the model tells them apart
    truncated: bool


def kept_tokens(query: int, document: int, *, budget: int, query_share: int) -> tuple[int, int]:
    """How many leading tokens of each text a pair keeps, of `query` and `document` tokens, with room for `budget` in all.

    Nothing is cut if both fit. Else the query keeps what the document leaves free, at least `query_share` if it has them.
    """
    kept = query if query + document <= budget else min(query, max(query_share, budget - document))
    return kept, min(document, budget - kept)


class PairEncoder:
    """Encodes pairs as transformers' fast tokenizers do with truncation="longest_first", except that the query is protected.

    With B = max_length less the special tokens, q and d the tokens of query and document: nothing is cut if q + d <= B.
    Otherwise the query keeps min(q, max(3/4 max_length, B - d)) tokens, and the document what is left.

    Of a long text only a prefix is tokenized: as much as settles the tokens that are kept, so that they are those of the whole
    text, but MAX_UNBROKEN characters at most. Only a text that has fewer tokens in them than the model reads, or no boundary
    between words (white space; punctuation for BERT's and RoBERTa's tokenizers), is read as if it ended there; the pair is
    `truncated` then. That bounds any text: see `Limits`.

    The tokenizer is configured once and never changed, so one encoder may be used from several threads.
    """

    def __init__(self, tokenizer: Tokenizer, max_length: int, *, parallel: bool = True) -> None:
        """parallel: let the tokenizer use its own threads for many texts. Raises Incompatible if max_length holds no text."""
        tokenizer.no_truncation()
        tokenizer.no_padding()
        self._tokenizer, self._parallel = tokenizer, parallel
        self._layout = _Layout.read(tokenizer)
        self.max_length = max_length
        self.budget = max_length - self._layout.specials
        if self.budget < 2:
            raise Incompatible(f"max_length {max_length} leaves no room for text beside {self._layout.specials} special tokens")
        self.query_share = min(int(max_length * QUERY_SHARE), self.budget - 1)
        self._margin = CUT_MARGIN + _longest_added_token(tokenizer)
        self._first_chars = CHARS_PER_TOKEN * self.budget + self._margin
        self.most_chars = max(MAX_UNBROKEN, 4 * self._first_chars)
        self._unknown_id: int | None = None
        self._unknown_texts, self._counting = 0, threading.Lock()

    def count_unknown(self, unknown_id: int) -> None:
        """From now on count texts with this id in them."""
        self._unknown_id = unknown_id

    @property
    def unknown_texts(self) -> int | None:
        """How many texts so far had a piece that the vocabulary lacks; None where they are not counted."""
        return None if self._unknown_id is None else self._unknown_texts

    @property
    def normalization(self) -> str:
        """Whether å scores the same as one character and as a with a combining ring, as the tokenizer's normalizer has it."""
        normalizer = self._tokenizer.normalizer
        texts = (COMPOSED, DECOMPOSED, BARE)
        composed, decomposed, bare = texts if normalizer is None else map(normalizer.normalize_str, texts)
        if composed != decomposed:
            return "composed and decomposed letters differ: pass texts in NFC"
        return "accents are stripped: å is read as a" if composed == bare else "composed and decomposed letters are equal"

    def encode(self, pairs: Sequence[tuple[str, str]]) -> list[EncodedPair]:
        """One EncodedPair for each pair, in order. A query that several pairs share is tokenized once.

        Raises InferenceError for a text that the tokenizer fails on.
        """
        queries = list(dict.fromkeys(query for query, _ in pairs))
        texts = queries + [document for _, document in pairs]
        with _failures_as_errors():
            tokens = self._tokenize(texts)
        if self._unknown_id is not None and (unknown := sum(self._unknown_id in text.ids for text in tokens)):
            with self._counting:
                self._unknown_texts += unknown
        of_query = dict(zip(queries, tokens, strict=False))
        documents = tokens[len(queries) :]
        return [self._join(of_query[query], document) for (query, _), document in zip(pairs, documents, strict=True)]

    def _join(self, query: "_Tokens", document: "_Tokens") -> EncodedPair:
        whole = len(query.ids), len(document.ids)
        kept = kept_tokens(*whole, budget=self.budget, query_share=self.query_share)
        layout = self._layout
        ids = [*layout.before, *query.ids[: kept[0]], *layout.between, *document.ids[: kept[1]], *layout.after]
        types = np.full(len(ids), layout.query_type, np.int64)
        types[len(ids) - len(layout.after) - kept[1] :] = layout.document_type
        return EncodedPair(np.array(ids, np.int64), types, kept != whole or query.unread or document.unread)

    def _tokenize(self, texts: Sequence[str]) -> list["_Tokens"]:
        """Of each text, in order, its first `budget + 1` tokens or all, without special tokens."""
        results: list[_Tokens | None] = [self._start(text) if len(text) > 2 * self._first_chars else None for text in texts]
        short = [text for text, done in zip(texts, results, strict=True) if done is None]
        rest = iter([tokens for batch in _batches(short) for tokens in self._whole(batch)])
        return [next(rest) if done is None else done for done in results]

    def _whole(self, texts: list[str]) -> list["_Tokens"]:
        if self._parallel:
            encodings = self._tokenizer.encode_batch_fast(texts, add_special_tokens=False)
        else:
            encodings = [self._tokenizer.encode(text, add_special_tokens=False) for text in texts]
        return [_Tokens(encoding.ids[: self.budget + 1], unread=False) for encoding in encodings]

    def _start(self, text: str) -> "_Tokens":
        """The first tokens of a long text from as short a prefix as gives the same: 1 MB costs milliseconds, not seconds."""
        needed, last = self.budget + 1, min(len(text), self.most_chars)
        for chars in _growing(self._first_chars, last):
            encoding = self._encode_freely(text[:chars])
            if chars < last and _settled(encoding, _trusted(text, chars, self._margin)) >= needed:
                break
        return _Tokens(encoding.ids[:needed], unread=chars < len(text))

    def _encode_freely(self, text: str) -> Encoding:
        """One text, with offsets; other Python threads run meanwhile, which `Tokenizer.encode` does not let them."""
        if not self._parallel:
            return self._tokenizer.encode(text, add_special_tokens=False)
        (encoding,) = self._tokenizer.encode_batch([text], add_special_tokens=False)
        return encoding


def is_failure(error: BaseException) -> bool:
    """Whether it is tokenizers' own: a panic of its Rust code is a PanicException, which is no Exception and has no import."""
    return isinstance(error, Exception) or type(error).__name__ == "PanicException"


@contextmanager
def _failures_as_errors() -> Iterator[None]:
    """Without what the library says: a panic may quote the text."""
    try:
        yield
    except BaseException as error:
        if is_failure(error):
            raise InferenceError(
                f"tokenizers {tokenizers.__version__} failed on a text ({type(error).__name__}); the vocabulary may lack a "
                "piece for unknown characters"
            ) from None
        raise


class _Tokens(NamedTuple):
    """The first tokens of a text. unread: the text goes on after them, for all that is known."""

    ids: list[int]
    unread: bool


def _batches(texts: list[str]) -> Iterator[list[str]]:
    """The texts in order, together as long as they have BATCH_CHARS at most."""
    batch, chars = list[str](), 0
    for text in texts:
        if batch and chars + len(text) > BATCH_CHARS:
            yield batch
            batch, chars = [], 0
        batch.append(text)
        chars += len(text)
    if batch:
        yield batch


def _growing(first: int, last: int) -> Iterator[int]:
    """Lengths of prefixes to try, fourfold from `first` to `last`; those before the last are 2/3 of it together at most."""
    chars = first
    while 2 * chars <= last:
        yield chars
        chars *= 4
    yield last


def _longest_added_token(tokenizer: Tokenizer) -> int:
    """Characters of the longest token that is looked for in the text itself, as it is or as the normalizer leaves it."""
    normalize = tokenizer.normalizer.normalize_str if tokenizer.normalizer is not None else str
    tokens = [token.content for token in tokenizer.get_added_tokens_decoder().values()]
    return max((max(len(token), len(normalize(token))) for token in tokens), default=0)


def _trusted(text: str, cut: int, margin: int) -> int:
    """Where the part of text[:cut] ends that no text after the cut can change: `margin` characters back, fluid ones aside."""
    end = cut
    for _ in range(margin):
        while end and unicodedata.category(text[end - 1])[0] in FLUID_CATEGORIES:
            end -= 1
        end = max(end - 1, 0)
    return end


def _settled(encoding: Encoding, end: int) -> int:
    """How many leading tokens are those of the whole text: words are tokenized apart, so all of words that end by `end`."""
    words, offsets = encoding.word_ids, encoding.offsets
    count, open_word = len(words), words[-1] if words else None
    while count and (words[count - 1] == open_word or offsets[count - 1][1] > end):
        count -= 1
        open_word = words[count]
    return count


class _Layout(NamedTuple):
    """Special tokens around the two texts, and the type id of each half."""

    before: tuple[int, ...]
    between: tuple[int, ...]
    after: tuple[int, ...]
    query_type: int
    document_type: int

    @property
    def specials(self) -> int:
        return len(self.before) + len(self.between) + len(self.after)

    @classmethod
    def read(cls, tokenizer: Tokenizer) -> "_Layout":
        """Learn the layout from a probe pair, so that any template that keeps both texts whole and in order works."""
        encoding = tokenizer.encode(PROBE, PROBE)
        parts = encoding.sequence_ids  # None for a special token, 0 for the query, 1 for the document
        if 0 not in parts or 1 not in parts:
            raise Incompatible("the tokenizer does not encode a pair of texts")
        query, document = parts.index(0), parts.index(1)
        between = len(parts) - parts[::-1].index(0)
        after = len(parts) - parts[::-1].index(1)
        halves = (set(encoding.type_ids[:document]), set(encoding.type_ids[document:]))
        ordered = parts[query:between] == [0] * (between - query) and parts[document:after] == [1] * (after - document)
        if not ordered or between > document or any(len(half) != 1 for half in halves):
            raise Incompatible("the tokenizer's template for a pair is not: specials, query, specials, document, specials")
        ids = encoding.ids
        return cls(tuple(ids[:query]), tuple(ids[between:document]), tuple(ids[after:]), halves[0].pop(), halves[1].pop())
