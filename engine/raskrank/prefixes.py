"""The first tokens of a text, from as short a prefix of it as gives the same tokens as the whole text."""

import unicodedata
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import tokenizers
from tokenizers import Encoding, Tokenizer

from raskrank.errors import InferenceError

# Of a longer text a prefix is tokenized. Real text has 3 to 6 characters a token, so one prefix nearly always is enough.
CHARS_PER_TOKEN = 8
# Characters before a prefix's end whose tokens are not trusted, beside the longest added token: what the text goes on with
# may change them. Letters that join to one, and a normalizer's replacements, are far shorter.
CUT_MARGIN = 64
# No more of a text is read, so that none takes a second or a gigabyte: 2 to 4 us and 0.6 kB a character where it has no
# boundary at all. Or 32 characters for each token that is asked for, where that is more: the model then takes longer anyway.
MAX_UNBROKEN = 100_000
# Characters tokenized in one call of the library, about 10 ms on two cores, before texts of another call have their turn; their
# results stand in memory together at up to 0.5 kB a character. Measured: eight times as many gain nothing.
BATCH_CHARS = 32_000
# Characters that are tokenized in the caller's thread, 0.3 ms: to wake the library's own takes as long, and the GIL is held.
FEW_CHARS = 2_000
# Marks, white space, controls: a normalizer may drop or reorder them, an added token may swallow them, however many.
FLUID_CATEGORIES = "MZC"


class Places(NamedTuple):
    """Where the tokens of a text stand in it."""

    offsets: npt.NDArray[np.int32]  # (n, 2): characters [start, end) of each
    words: npt.NDArray[np.bool_]  # (n,): whether it begins a word
    read: int  # characters of the text that were looked at for them


class Tokens(NamedTuple):
    """The first tokens of a text. unread: the text goes on after them, for all that is known."""

    ids: list[int]
    unread: bool
    places: Places | None = None


class Prefixes:
    """The first tokens of texts, without special tokens.

    Of a long text only a prefix is tokenized: as much as settles the tokens that are asked for, so that they are those of the
    whole text, but MAX_UNBROKEN characters at most, or 32 for each of those tokens.
    """

    def __init__(self, tokenizer: Tokenizer, *, parallel: bool) -> None:
        """tokenizer: without truncation and padding. parallel: let it use its own threads for many texts."""
        self._tokenizer, self._parallel = tokenizer, parallel
        self.margin = CUT_MARGIN + _longest_added_token(tokenizer)

    def first_chars(self, budget: int) -> int:
        """Characters of a long text that are tokenized first, to find `budget` tokens."""
        return CHARS_PER_TOKEN * budget + self.margin

    def most_chars(self, budget: int) -> int:
        """Characters of a text that are read at most, to find `budget` tokens."""
        return max(MAX_UNBROKEN, 4 * self.first_chars(budget))

    def first(self, texts: Sequence[str], budget: int, *, places: bool = False) -> list[Tokens]:
        """Of each text, in order, its first `budget + 1` tokens or all. places: also where they stand.

        Raises InferenceError for a text that the tokenizer fails on.
        """
        with _failures_as_errors():
            longest = 2 * self.first_chars(budget)
            results = [self._start(text, budget, places) if len(text) > longest else None for text in texts]
            short = [text for text, done in zip(texts, results, strict=True) if done is None]
            rest = iter([tokens for batch in _batches(short) for tokens in self._whole(batch, budget, places)])
            return [next(rest) if done is None else done for done in results]

    def _whole(self, texts: list[str], budget: int, places: bool) -> list[Tokens]:
        if self._parallel and sum(map(len, texts)) > FEW_CHARS:
            encode = self._tokenizer.encode_batch if places else self._tokenizer.encode_batch_fast
            encodings = encode(texts, add_special_tokens=False)
        else:
            encodings = [self._tokenizer.encode(text, add_special_tokens=False) for text in texts]
        return [
            _tokens(encoding, budget + 1, len(text), unread=False, places=places)
            for text, encoding in zip(texts, encodings, strict=True)
        ]

    def _start(self, text: str, budget: int, places: bool) -> Tokens:
        """The first tokens of a long text from as short a prefix as gives the same: 1 MB costs milliseconds, not seconds."""
        needed, last = budget + 1, min(len(text), self.most_chars(budget))
        for chars in _growing(self.first_chars(budget), last):
            encoding = self._encode_freely(text[:chars])
            if chars < last and settled(encoding, trusted(text, chars, self.margin)) >= needed:
                break
        return _tokens(encoding, needed, chars, unread=chars < len(text), places=places)

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


def trusted(text: str, cut: int, margin: int) -> int:
    """Where the part of text[:cut] ends that no text after the cut can change: `margin` characters back, fluid ones aside."""
    end = cut
    for _ in range(margin):
        while end and unicodedata.category(text[end - 1])[0] in FLUID_CATEGORIES:
            end -= 1
        end = max(end - 1, 0)
    return end


def settled(encoding: Encoding, end: int) -> int:
    """How many leading tokens are those of the whole text: words are tokenized apart, so all of words that end by `end`."""
    words, offsets = encoding.word_ids, encoding.offsets
    count, open_word = len(words), words[-1] if words else None
    while count and (words[count - 1] == open_word or offsets[count - 1][1] > end):
        count -= 1
        open_word = words[count]
    return count


def _tokens(encoding: Encoding, count: int, read: int, *, unread: bool, places: bool) -> Tokens:
    ids = encoding.ids[:count]
    return Tokens(ids, unread, _places(encoding, len(ids), read) if places else None)


def _places(encoding: Encoding, count: int, read: int) -> Places:
    words = encoding.word_ids[:count]  # None for an added token, which is a word of its own
    begins = [word is None or index == 0 or word != words[index - 1] for index, word in enumerate(words)]
    offsets = np.array(encoding.offsets[:count], np.int32).reshape(count, 2)
    return Places(offsets, np.array(begins, np.bool_), read)


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
