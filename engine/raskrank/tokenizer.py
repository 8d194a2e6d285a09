"""From tokenizer.json to an encoder. What does not fit the model is refused here and not in the middle of a request."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import tokenizers
from tokenizers import Tokenizer

from raskrank.encoding import PairEncoder
from raskrank.errors import Incompatible
from raskrank.manifest import TOKENIZER

# A sign that hardly any vocabulary has, and a longer word than any: a tokenizer without a piece for them fails only on such.
UNKNOWN = "\U0001242b " + "a" * 256


def load_encoder(data: bytes, max_length: int, vocab_size: int, path: Path, *, parallel: bool) -> PairEncoder:
    """An encoder from the bytes of tokenizer.json. path: named in errors. parallel: as for PairEncoder.

    Raises Incompatible if tokenizers cannot read it, it has ids that the model does not embed, or it encodes no pairs.
    """
    with tokenizing(path):
        tokenizer = Tokenizer.from_buffer(data)
        if (ids := _id_count(tokenizer)) > vocab_size:
            raise Incompatible(f"the tokenizer has ids up to {ids - 1}, the model embeds {vocab_size}")
        encoder = PairEncoder(tokenizer, max_length, parallel=parallel)
        encoder.encode([(UNKNOWN, UNKNOWN)])
    return encoder


@contextmanager
def tokenizing(path: Path) -> Iterator[None]:
    """Turns what tokenizers raises into Incompatible: Exception itself, and a PanicException that is none."""
    try:
        yield
    except Incompatible as error:
        raise Incompatible(f"{path}: {error}") from None
    except BaseException as error:
        if isinstance(error, Exception) or type(error).__name__ == "PanicException":
            raise Incompatible(f"{path}: tokenizers {tokenizers.__version__} cannot use its {TOKENIZER}: {error}") from error
        raise


def unknown_id(tokenizer: Tokenizer) -> int | None:
    """The id that stands for what the vocabulary lacks, or None for a tokenizer without, as those of bytes are."""
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
