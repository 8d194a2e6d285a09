"""A pair of texts becomes token ids: [CLS] query [SEP] document [SEP], cut to max_length, never padded."""

import threading
import unicodedata
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from tokenizers import Tokenizer

from raskrank.backend import Int64Array
from raskrank.errors import Incompatible
from raskrank.layout import Layout
from raskrank.prefixes import Places, Prefixes, Tokens
from raskrank.windows import Windows, cut

# A query keeps up to this share of max_length; the document gives way before it (as FlagEmbedding's query_max_length does).
QUERY_SHARE = 0.75
COMPOSED, DECOMPOSED, BARE = "å", "a\u030a", "a"

Span = tuple[int, int]  # characters [start, end) of a document


class EncodedPair(NamedTuple):
    """Model input of one pair, or of one window over its document, without padding."""

    input_ids: Int64Array  # (L,)
    token_type_ids: Int64Array  # (L,): 0 for the query's part, 1 for the document's where the model tells them apart
    truncated: bool
    span: Span | None = None  # of a window


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
        self._normalizer = tokenizer.normalizer
        self._layout = Layout.read(tokenizer)
        self._prefixes = Prefixes(tokenizer, parallel=parallel)
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
    def most_chars(self) -> int:
        """Characters of a text that are read at most where it is cut."""
        return self._prefixes.most_chars(self.budget)

    @property
    def normalization(self) -> str:
        """Whether å scores the same as one character and as a with a combining ring, as the tokenizer's normalizer has it."""
        texts = (COMPOSED, DECOMPOSED, BARE)
        composed, decomposed, bare = texts if self._normalizer is None else map(self._normalizer.normalize_str, texts)
        if composed != decomposed:
            return "composed and decomposed letters differ: pass texts in NFC"
        return "accents are stripped: å is read as a" if composed == bare else "composed and decomposed letters are equal"

    def encode(self, pairs: Sequence[tuple[str, str]]) -> list[EncodedPair]:
        """One EncodedPair for each pair, in order. A query that several pairs share is tokenized once.

        Raises InferenceError for a text that the tokenizer fails on.
        """
        queries = list(dict.fromkeys(query for query, _ in pairs))
        tokens = self._prefixes.first(queries + [document for _, document in pairs], self.budget)
        self._count_unknown(tokens)
        of_query = dict(zip(queries, tokens, strict=False))
        documents = tokens[len(queries) :]
        return [self._join(of_query[query], document) for (query, _), document in zip(pairs, documents, strict=True)]

    def encode_windows(self, pairs: Sequence[tuple[str, str]], windows: Windows | None) -> list[list[EncodedPair]]:
        """For each pair, in order, what is scored in its place: the pair alone if its document fits, else its windows.

        A window holds the query as `encode` protects it, and consecutive tokens of the document. Each has a span, and is
        `truncated` if any part of the pair is in none of them. windows: None cuts what is too long, as `encode` does. Raises
        as `encode` does.
        """
        if windows is None:
            return [[pair] for pair in self.encode(pairs)]
        queries = list(dict.fromkeys(query for query, _ in pairs))
        of_query = dict(zip(queries, self._prefixes.first(queries, self.budget), strict=True))
        texts = [document for _, document in pairs]
        documents = self._prefixes.first(texts, windows.max_windows * self.budget, places=True)
        self._count_unknown([*of_query.values(), *documents])
        return [
            self._windows(of_query[query], text, tokens, windows)
            for (query, text), tokens in zip(pairs, documents, strict=True)
        ]

    def _count_unknown(self, tokens: Sequence[Tokens]) -> None:
        if self._unknown_id is not None and (unknown := sum(self._unknown_id in text.ids for text in tokens)):
            with self._counting:
                self._unknown_texts += unknown

    def _join(self, query: Tokens, document: Tokens) -> EncodedPair:
        whole = len(query.ids), len(document.ids)
        kept = kept_tokens(*whole, budget=self.budget, query_share=self.query_share)
        truncated = kept != whole or query.unread or document.unread
        return self._pair(query.ids[: kept[0]], document.ids[: kept[1]], truncated)

    def _windows(self, query: Tokens, text: str, document: Tokens, windows: Windows) -> list[EncodedPair]:
        whole = len(query.ids), len(document.ids)
        kept, room = kept_tokens(*whole, budget=self.budget, query_share=self.query_share)
        if room == whole[1] and not document.unread:  # the document fits
            return [self._pair(query.ids[:kept], document.ids, kept < whole[0] or query.unread, (0, len(text)))]
        places = document.places
        assert places is not None
        parts = cut(places.words, max(room, 1), windows)
        truncated = kept < whole[0] or query.unread or document.unread or parts[-1][1] < whole[1]
        return [
            self._pair(query.ids[:kept], document.ids[begin:end], truncated, span_of(text, places, begin, end))
            for begin, end in parts
        ]

    def _pair(self, query: list[int], document: list[int], truncated: bool, span: Span | None = None) -> EncodedPair:
        layout = self._layout
        ids = [*layout.before, *query, *layout.between, *document, *layout.after]
        types = np.full(len(ids), layout.query_type, np.int64)
        types[len(ids) - len(layout.after) - len(document) :] = layout.document_type
        return EncodedPair(np.array(ids, np.int64), types, truncated, span)


def span_of(text: str, places: Places, begin: int, end: int) -> Span:
    """The characters [start, end) that tokens [begin, end) stand for, without white space at either end, and with the marks
    on the last of them that the normalizer drops. (0, 0) for no tokens."""
    if begin == end:
        return 0, 0
    offsets, count = places.offsets, len(places.offsets)
    # The first and last of all: a normalizer may have put marks in another order.
    start, stop = int(offsets[begin:end, 0].min()), int(offsets[begin:end, 1].max())
    following = int(offsets[end, 0]) if end < count else places.read
    while stop < following and unicodedata.category(text[stop])[0] == "M":
        stop += 1
    part = text[start:stop]
    if not part.strip():
        return start, stop
    return start + len(part) - len(part.lstrip()), stop - len(part) + len(part.rstrip())
