"""From tokenizer.json to an encoder. What does not fit the model is refused here and not in the middle of a request."""

import base64
import binascii
import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import Tokenizer

from raskrank.bundle import MAX_SMALL_BYTES
from raskrank.encoding import PairEncoder
from raskrank.errors import Incompatible
from raskrank.manifest import TOKENIZER
from raskrank.prefixes import is_failure
from raskrank.quoting import named

# A sign that hardly any vocabulary has, and a longer word than any: a tokenizer without a piece for them fails only on such.
UNKNOWN = "\U0001242b " + "a" * 256
# What a tokenizer.json may ask of the parser. Those that were published have at most some hundred added tokens, three steps of
# normalization, and none that makes more than two characters of one.
MAX_ADDED_TOKENS = 10_000  # the time to read them grows with the square: 0.3 s for so many
MAX_STEPS = 64
MAX_GROWTH = 64  # times that replacements may make a text longer, all together
_CHARSMAP = b'"precompiled_charsmap"'
_SIZE_DIGITS = 8  # of base 64: six bytes, the first four of which are a size


def load_encoder(data: bytes, max_length: int, vocab_size: int, path: Path, *, parallel: bool) -> PairEncoder:
    """An encoder from the bytes of tokenizer.json. path: named in errors. parallel: as for PairEncoder.

    Raises Incompatible if tokenizers cannot read it, it asks for too much, it has ids that the model does not embed, or it
    encodes no pairs.
    """
    tokenizer = read_tokenizer(data, path)
    with tokenizing(path):
        if (ids := _id_count(tokenizer)) > vocab_size:
            raise Incompatible(f"the tokenizer has ids up to {ids - 1}, the model embeds {vocab_size}")
        encoder = PairEncoder(tokenizer, max_length, parallel=parallel)
        if parallel:
            tokenizer.encode_batch([(UNKNOWN, UNKNOWN)])  # starts its threads now: later there may be none to be had
        else:
            tokenizer.encode(UNKNOWN, UNKNOWN)
    return encoder


def read_tokenizer(data: bytes, path: Path) -> Tokenizer:
    """The tokenizer of a tokenizer.json. Raises Incompatible if tokenizers cannot read it, or if it asks for too much."""
    with tokenizing(path):
        if len(data) > MAX_SMALL_BYTES[TOKENIZER]:
            raise Incompatible(f"{TOKENIZER} has {len(data)} bytes, at most {MAX_SMALL_BYTES[TOKENIZER]} are read")
        _check_sizes(data)
        tokenizer = Tokenizer.from_buffer(data)
        _check_growth(tokenizer)
    return tokenizer


@contextmanager
def tokenizing(path: Path) -> Iterator[None]:
    """Turns what tokenizers raises into Incompatible."""
    try:
        yield
    except Incompatible as error:
        raise Incompatible(f"{path}: {error}") from None
    except BaseException as error:
        if is_failure(error):
            raise Incompatible(
                f"{path}: tokenizers {tokenizers.__version__} cannot use its {TOKENIZER}: {named(error)}"
            ) from error
        raise


def _check_sizes(data: bytes) -> None:
    """What makes the parser itself hang or ask for gigabytes. Quick, so that a first score does not wait: no JSON is parsed."""
    if (count := data.count(b'"special"')) > MAX_ADDED_TOKENS:
        raise Incompatible(f"{TOKENIZER} has about {count} added tokens, at most {MAX_ADDED_TOKENS} are read")
    start = data.find(_CHARSMAP)
    while start >= 0:
        _check_charsmap(data, start + len(_CHARSMAP))
        start = data.find(_CHARSMAP, start + 1)


def _check_charsmap(data: bytes, start: int) -> None:
    """It begins with the size of a table, and the parser asks for twice as much memory before it looks whether it is there."""
    begin = data.find(b'"', start) + 1
    end = data.find(b'"', begin)
    with suppress(binascii.Error):  # no base 64, as the parser will say
        size = int.from_bytes(base64.b64decode(data[begin : begin + _SIZE_DIGITS])[:4], "little")
        if begin and size > end - begin:
            raise Incompatible(f"{TOKENIZER} has a precompiled_charsmap of {end - begin} characters that claims {size} bytes")


def _check_growth(tokenizer: Tokenizer) -> None:
    """A few replacements of one letter by two, one after the other, make gigabytes of a word."""
    if tokenizer.normalizer is None:
        return
    waiting, steps, growth = [json.loads(tokenizer.normalizer.__getstate__())], 0, 1.0
    while waiting:
        step: dict[str, Any] = waiting.pop()
        waiting += step.get("normalizers", ())
        steps += 1
        growth *= _growth(step)
        if steps > MAX_STEPS or growth > MAX_GROWTH:
            raise Incompatible(
                f"{TOKENIZER} normalizes in more than {MAX_STEPS} steps, or makes texts more than {MAX_GROWTH} times as long"
            )


def _growth(step: dict[str, Any]) -> float:
    """How many times as long a text of one character may be after this step."""
    if step["type"] == "Prepend":
        return 1.0 + len(step["prepend"])
    if step["type"] != "Replace":
        return 1.0
    replaced = step["pattern"].get("String")
    # An expression may match nothing, before each character.
    return max(1.0, len(step["content"]) / max(1, len(replaced))) if replaced else 1.0 + len(step["content"])


def unknown_id(tokenizer: Tokenizer) -> int | None:
    """The id of the unknown token, or None for a tokenizer that has none, such as one of bytes."""
    model = json.loads(tokenizer.to_str())["model"]
    if model["type"] == "Unigram":
        id: int | None = model["unk_id"]
        return id
    piece = model.get("unk_token")
    return None if piece is None else tokenizer.token_to_id(piece)


def _id_count(tokenizer: Tokenizer) -> int:
    """One more than the largest token id. Quick, since it is on the way to every first score.

    A vocabulary counts from 0 without gaps, which the exporter has checked; only added tokens may lie beyond it.
    """
    pieces: int = tokenizer.get_vocab_size(with_added_tokens=False)
    return max(pieces, 1 + max(tokenizer.get_added_tokens_decoder(), default=-1))
