"""A pair of texts becomes token ids: [CLS] query [SEP] document [SEP], cut to max_length, never padded."""

import threading
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from tokenizers import Encoding, Tokenizer

from raskrank.backend import Int64Array
from raskrank.errors import Incompatible

# A query keeps up to this share of max_length; the document gives way before it (as FlagEmbedding's query_max_length does).
QUERY_SHARE = 0.75
# Longer texts are cut before tokenizing. Real text has 3 to 6 characters a token, so one cut nearly always is enough.
CHARS_PER_TOKEN = 8
# Characters before a cut whose tokens are not trusted: added tokens and combining sequences may reach across it.
CUT_MARGIN = 64
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
    Otherwise the query keeps min(q, max(3/4 max_length, B - d)) tokens, and the document what is left. The tokenizer is
    configured once and never changed, so one encoder may be used from several threads.
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
        """One EncodedPair for each pair, in order. A query that several pairs share is tokenized once."""
        queries = list(dict.fromkeys(query for query, _ in pairs))
        texts = queries + [document for _, document in pairs]
        ids = self._tokenize(texts)
        if self._unknown_id is not None and (unknown := sum(self._unknown_id in text for text in ids)):
            with self._counting:
                self._unknown_texts += unknown
        query_ids = dict(zip(queries, ids, strict=False))
        return [self._join(query_ids[query], document) for (query, _), document in zip(pairs, ids[len(queries) :], strict=True)]

    def _join(self, query: list[int], document: list[int]) -> EncodedPair:
        whole = len(query), len(document)
        kept = kept_tokens(*whole, budget=self.budget, query_share=self.query_share)
        query, document = query[: kept[0]], document[: kept[1]]
        layout = self._layout
        ids = [*layout.before, *query, *layout.between, *document, *layout.after]
        types = np.full(len(ids), layout.query_type, np.int64)
        types[len(ids) - len(layout.after) - len(document) :] = layout.document_type
        return EncodedPair(np.array(ids, np.int64), types, kept != whole)

    def _tokenize(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text without special tokens; of a long text at least `budget + 1` of them, if it has as many."""
        results: list[list[int] | None] = [
            self._prefix(text) if len(text) > 2 * CHARS_PER_TOKEN * self.budget else None for text in texts
        ]
        rest = [text for text, done in zip(texts, results, strict=True) if done is None]
        if self._parallel:
            encodings = self._tokenizer.encode_batch_fast(rest, add_special_tokens=False)
        else:
            encodings = [self._tokenizer.encode(text, add_special_tokens=False) for text in rest]
        ids = iter(encodings)
        return [next(ids).ids if done is None else done for done in results]

    def _prefix(self, text: str) -> list[int]:
        """The first tokens of a long text from as short a prefix as gives the same: 1 MB costs milliseconds, not seconds."""
        needed, chars = self.budget + 1, CHARS_PER_TOKEN * self.budget
        while chars + CUT_MARGIN < len(text):
            encoding = self._tokenizer.encode(text[:chars], add_special_tokens=False)
            if _settled(encoding, chars - CUT_MARGIN) >= needed:
                break
            chars *= 4
        else:
            encoding = self._tokenizer.encode(text, add_special_tokens=False)
        ids: list[int] = encoding.ids
        return ids[:needed]


def _settled(encoding: Encoding, end: int) -> int:
    """How many leading tokens do not depend on what follows the cut: words are tokenized apart, so all but the last word's."""
    words, offsets = encoding.word_ids, encoding.offsets
    count = len(words)
    while count and (words[count - 1] == words[-1] or offsets[count - 1][1] > end):
        count -= 1
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
