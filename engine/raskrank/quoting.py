"""What a message may quote of values, names and paths: shortened, and never a text of the user's."""

import json
import reprlib
from collections.abc import Mapping
from pathlib import Path

MAX_NAME = 200  # characters of a file's name in a message
MAX_KEYS, MAX_KEY = 10, 40  # keys of a JSON object in a message, and characters of each
JSON_KINDS = {
    dict: "an object",
    list: "an array",
    str: "a string",
    bool: "true or false",
    int: "a number",
    float: "a number",
    type(None): "null",
}
# A message quotes what a file says, which may be 100 kB; the longest sound value, a class's full name, has 70 characters.
_repr = reprlib.Repr()
_repr.maxstring = _repr.maxother = _repr.maxlong = 100
MAX_NAMED = 300


def quoted(value: object) -> str:
    """repr() of a value from a file, shortened for a message."""
    return _repr.repr(value)


def named(value: object) -> str:
    """str() of names from a file, or of another library's error that quotes one, shortened for a message."""
    text = str(value)
    return text if len(text) <= MAX_NAMED else f"{text[:MAX_NAMED]}..."


def shown(path: str | Path) -> str:
    """A path for a message: its two ends where it is very long."""
    name = str(path)
    return name if len(name) <= MAX_NAME else f"{name[: MAX_NAME // 4]}...{name[-3 * MAX_NAME // 4 :]}"


def shown_keys(item: Mapping[str, object]) -> str:
    """The keys of an object for a message."""
    keys = [*item]
    if not keys:
        return "no keys"
    names = [json.dumps(key if len(key) <= MAX_KEY else key[:MAX_KEY] + "...", ensure_ascii=False) for key in keys[:MAX_KEYS]]
    more = f" and {len(keys) - MAX_KEYS} more" if len(keys) > MAX_KEYS else ""
    return f"the key{'s' if len(keys) > 1 else ''} {', '.join(names)}{more}"


def kind_of(value: object) -> str:
    """What JSON calls it."""
    return JSON_KINDS[type(value)]
