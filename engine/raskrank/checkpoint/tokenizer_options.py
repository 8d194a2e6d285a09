"""What tokenizer_config.json may say beside a tokenizer.json, which is all that is read of a tokenizer.

transformers takes both. An option that would give other ids than tokenizer.json by itself is refused here by its name; what it
does to casing, added tokens and the like is compared when a bundle is made.
"""

from collections.abc import Mapping
from pathlib import Path

from raskrank.checkpoint.families import Family
from raskrank.checkpoint.files import is_file
from raskrank.errors import CheckpointError
from raskrank.quoting import quoted

# transformers writes 1e30 where a tokenizer has no limit of its own.
MAX_SANE_LENGTH = 10**6

# Off unless they are there; each with what it does when it is on.
_SWITCHES = {
    "split_special_tokens": "splits special tokens that stand in a text",
    "from_slow": "makes another tokenizer than tokenizer.json",
    "fast_tokenizer_files": "names another file than tokenizer.json",
    "tokenizer_file": "names another file than tokenizer.json",
    "tokenizer_object": "names another tokenizer than tokenizer.json",
    "gguf_file": "names another file than tokenizer.json",
    "init_inputs": "names another file than tokenizer.json",
    "__slow_tokenizer": "names another tokenizer than tokenizer.json",
    "fix_mistral_regex": "splits words in another way than tokenizer.json",
}


def has_tokenizer(folder: Path, family: Family) -> bool:
    """Whether there is a tokenizer.json, or what transformers makes one of."""
    made_of = [is_file(folder / name) for name in family.vocabulary]
    return is_file(folder / "tokenizer.json") or (any(made_of) and all(made_of))


def check_options(path: Path, options: Mapping[str, object]) -> None:
    """Raises CheckpointError for what would give other ids than tokenizer.json. path: of tokenizer_config.json."""
    if "auto_map" in options:
        raise CheckpointError(
            f"{path} has auto_map: the tokenizer would need remote code, which is never run. Where tokenizer.json is all that "
            "it needs, remove auto_map and name one of transformers' own classes as tokenizer_class."
        )
    for name, effect in _SWITCHES.items():
        if options.get(name):
            raise CheckpointError(
                f"{path}: {name} is {quoted(options[name])}, which is not supported: it {effect}. Where tokenizer.json is "
                "right without it, remove the key; else save the tokenizer again."
            )
    if options.get("truncation_side", "right") != "right":
        raise CheckpointError(
            f"{path}: truncation_side must be 'right': texts are cut at the end. Set it so, where the model may read them "
            "like that."
        )
    stated_length(path, options)


def stated_length(path: Path, options: Mapping[str, object]) -> int | None:
    """The longest input, in tokens, that the tokenizer allows; None where it has no limit. path: of tokenizer_config.json."""
    name = "model_max_length" if "model_max_length" in options else "max_len"  # as older ones call it
    stated = options.get(name)
    if stated is None:
        return None
    if not isinstance(stated, int | float) or isinstance(stated, bool):
        raise CheckpointError(f"{path}: {name} must be a number of tokens, got {quoted(stated)}.")
    return int(stated) if 1 <= stated <= MAX_SANE_LENGTH else None
