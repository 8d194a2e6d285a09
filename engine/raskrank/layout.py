"""Where the two texts of a pair stand among the special tokens."""

from typing import NamedTuple

from tokenizers import Tokenizer

from raskrank.errors import Incompatible

PROBE = "a"


class Layout(NamedTuple):
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
    def read(cls, tokenizer: Tokenizer) -> "Layout":
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
