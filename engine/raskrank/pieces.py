"""tokenizer.json of a SentencePiece vocabulary, by transformers' own converter.

transformers would load the vocabulary with the package sentencepiece first, only to ask it for what stands in the file.
"""

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

# What the converters ask for beside the vocabulary, with the defaults of the classes.
_OPTIONS: Mapping[str, Mapping[str, object]] = {
    "Albert": {"do_lower_case": True, "keep_accents": False},
    "DebertaV2": {"do_lower_case": False, "split_by_punct": False},
}


class _Slow:
    """What a converter asks of transformers' tokenizer in Python."""

    def __init__(self, file: Path, options: Mapping[str, object]) -> None:
        self.vocab_file = str(file)
        self.ids: dict[str, int] = {}
        vars(self).update(options)

    def convert_tokens_to_ids(self, token: str) -> int:
        return self.ids[token]


def convert(file: Path, stem: str, stated: Mapping[str, object]) -> Tokenizer:
    """The fast tokenizer of a vocabulary. stem: of transformers' class, "XLMRoberta". stated: tokenizer_config.json.

    Raises whatever a strange file makes the converter raise.
    """
    from transformers.convert_slow_tokenizer import SLOW_TO_FAST_CONVERTERS

    defaults = _OPTIONS.get(stem, {})
    slow = _Slow(file, {name: stated.get(name, value) for name, value in defaults.items()})
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # of pieces for bytes, which a fast tokenizer would read otherwise
        converter: Any = SLOW_TO_FAST_CONVERTERS[f"{stem}Tokenizer"](slow)
        slow.ids = {piece: id for id, (piece, _) in enumerate(converter.vocab(converter.proto))}
        made: Tokenizer = converter.converted()
    return made
