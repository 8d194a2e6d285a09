"""Whether two tokenizers treat every text alike, as far as their parts show it: samples do not hold each added token."""

import json
from collections.abc import Iterator
from typing import Any

from tokenizers import Tokenizer

# What of a part decides over offsets alone, not over ids.
_OFFSETS = ("trim_offsets", "add_prefix_space")


def differing_parts(one: Tokenizer, other: Tokenizer) -> list[str]:
    """What the two do differently beside their vocabulary, each as one would call it; empty if nothing."""
    return [name for (name, ours), (_, theirs) in zip(_parts(one), _parts(other), strict=True) if ours != theirs]


def _parts(tokenizer: Tokenizer) -> Iterator[tuple[str, object]]:
    yield "normalizer", _state(tokenizer.normalizer)
    yield "pre_tokenizer", _state(tokenizer.pre_tokenizer)
    processor = _state(tokenizer.post_processor) or {}
    yield "post_processor", {key: value for key, value in processor.items() if key not in _OFFSETS}
    yield "added tokens", {id: repr(token) for id, token in tokenizer.get_added_tokens_decoder().items()}
    yield "split_special_tokens", tokenizer.encode_special_tokens


def _state(part: Any) -> Any:
    return None if part is None else json.loads(part.__getstate__())
