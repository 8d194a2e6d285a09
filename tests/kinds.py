"""Tokenizers of each kind, tiny, embedded and published, with transformers' own to compare with."""

import functools
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from hypothesis import HealthCheck, settings
from tokenizers import Tokenizer

from builders import Family
from raskrank.encoding import EncodedPair, PairEncoder

# In-memory tokenizers of each kind, the embedded model's, and published ones.
TINY: tuple[Family, ...] = ("bert", "xlm-roberta", "roberta", "modernbert")
FURTHER: tuple[Family, ...] = ("camembert", "mpnet", "albert", "deberta-v2")  # the kinds of those in other layouts
REAL = {
    "ms-marco-MiniLM-L-6-v2": "BertTokenizerFast",
    "bge-reranker-base-BAAI": "XLMRobertaTokenizerFast",
    "mmarco-mMiniLMv2-L12-H384-v1": "XLMRobertaTokenizerFast",
}
FAST = {"bert": "BertTokenizerFast", "xlm-roberta": "XLMRobertaTokenizerFast", "roberta": "RobertaTokenizerFast"}
FAST |= {"camembert": "CamembertTokenizerFast", "mpnet": "MPNetTokenizerFast", "albert": "AlbertTokenizerFast"}
FAST |= {"deberta-v2": "DebertaV2TokenizerFast", "modernbert": "PreTrainedTokenizerFast"}
NAMES = (*TINY, "nano", *REAL, *FURTHER)
_DOUBLED = ("XLMRoberta", "Roberta", "Camembert", "MPNet")  # between query and document: </s></s>


class Kind(NamedTuple):
    """A tokenizer.json, and transformers' tokenizer of the same folder."""

    data: bytes
    fast: Any
    bert: bool  # one separator between the texts
    typed: bool  # the document's tokens are of type 1

    def __repr__(self) -> str:
        return type(self.fast).__name__

    @property
    def specials(self) -> int:
        return 3 if self.bert else 4

    def encoder(self, max_length: int, *, parallel: bool = True) -> PairEncoder:
        return PairEncoder(tokenizer_of(self.data), max_length, parallel=parallel)

    def reference(self, query: str, document: str, **options: Any) -> tuple[list[int], list[int]]:
        """transformers' ids and types. In lists, because it takes a single empty document for none."""
        encoded = self.fast([query], [document], return_token_type_ids=True, verbose=False, **options)
        return encoded["input_ids"][0], encoded["token_type_ids"][0]

    def join(self, query: list[int], document: list[int]) -> tuple[list[int], list[int]]:
        """The ids and types of a pair, as BERT and RoBERTa lay them out."""
        first, last = self.fast.cls_token_id, self.fast.sep_token_id
        between = [last] if self.bert else [last, last]
        ids = [first, *query, *between, *document, last]
        types = [0] * (1 + len(query) + len(between)) + [int(self.typed)] * (len(document) + 1)
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
def tokenizer_of(data: bytes) -> Tokenizer:
    """One for all lengths: published ones take seconds to read, and an encoder does not change them."""
    return Tokenizer.from_buffer(data)


@functools.cache
def kind_of(folder: Path, class_name: str) -> Kind:
    import transformers

    fast = getattr(transformers, class_name).from_pretrained(folder, local_files_only=True)
    bert = not class_name.startswith(_DOUBLED)
    typed = any(fast(["a"], ["a"], return_token_type_ids=True)["token_type_ids"][0])
    return Kind((folder / "tokenizer.json").read_bytes(), fast, bert, typed)


def same(found: EncodedPair, expected: EncodedPair) -> bool:
    return (
        found.input_ids.tolist() == expected.input_ids.tolist()
        and found.token_type_ids.tolist() == expected.token_type_ids.tolist()
        and found.truncated == expected.truncated
    )


CASES = settings(
    deadline=None,
    database=None,
    max_examples=50,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
