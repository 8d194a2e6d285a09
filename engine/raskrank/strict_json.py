"""JSON that is taken at its word: no key twice, no number that is none, and every value of the type that a dataclass says."""

import json
import math
import reprlib
import types
import typing
from dataclasses import fields, is_dataclass
from typing import Any, Literal, Union

from raskrank.errors import Corrupt

MAX_INTEGER = 1 << 63  # exclusive


def parse(text: str, name: str) -> Any:
    """The JSON value of a text. name: of its file, for errors.

    Raises Corrupt for what is no JSON, for NaN, infinity and numbers that no float reaches, for a key that stands twice, and
    for half a character.
    """
    try:
        data = json.loads(
            text,
            object_pairs_hook=_unique_keys,
            parse_constant=_refuse_constant,
            parse_int=lambda digits: int(_finite(digits)),
            parse_float=lambda digits: float(_finite(digits)),
        )
        json.dumps(data, ensure_ascii=False).encode()  # escapes may spell half a character, which no tokenizer takes
    except (ValueError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise Corrupt(f"{name} is not valid JSON: {reason}") from None
    return data


def build(cls: type[Any], data: object, where: str, *, ignore_unknown: bool) -> Any:
    """An instance of a dataclass from parsed JSON, every field checked against its annotation. where: the value, for errors.

    Raises Corrupt for a key that is missing, for one that is unknown unless such are ignored, and for a value of another type.
    """
    if not isinstance(data, dict):
        raise Corrupt(f"{where}: expected an object, got {type(data).__name__}")
    names = {field.name for field in fields(cls)}
    if missing := names - set(data):
        raise Corrupt(f"{where}: {', '.join(sorted(missing))} missing")
    if (unknown := set(data) - names) and not ignore_unknown:
        raise Corrupt(f"{where}: {len(unknown)} unknown keys")
    hints = typing.get_type_hints(cls)
    return cls(**{name: _value(hints[name], data[name], f"{where}: {name}", ignore_unknown=ignore_unknown) for name in names})


def _value(kind: Any, value: object, where: str, *, ignore_unknown: bool) -> Any:
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if kind is Any:
        return value
    if is_dataclass(kind):
        return build(typing.cast(type[Any], kind), value, where, ignore_unknown=ignore_unknown)
    if origin is Literal and value in arguments:
        return value
    if origin in (Union, types.UnionType):
        return None if value is None else _value(arguments[0], value, where, ignore_unknown=ignore_unknown)
    if origin is tuple and isinstance(value, list):
        return tuple(_value(arguments[0], item, where, ignore_unknown=ignore_unknown) for item in value)
    if origin is dict and isinstance(value, dict):
        return {
            key: _value(arguments[1], item, f"{where}: {reprlib.repr(key)}", ignore_unknown=ignore_unknown)
            for key, item in value.items()
        }
    if kind is float and isinstance(value, int | float) and type(value) is not bool:
        return float(value)
    if kind is int and type(value) is int and not 0 <= value < MAX_INTEGER:
        raise Corrupt(f"{where}: an integer out of range")
    if kind in (int, str, bool) and type(value) is kind:
        return value
    expected = " or ".join(map(repr, arguments)) if origin is Literal else getattr(kind, "__name__", str(kind))
    raise Corrupt(f"{where}: expected {expected}, got {type(value).__name__}")


def _finite(digits: str) -> str:
    """Numbers that no float reaches are nowhere needed, and a long one takes long to read."""
    if not math.isfinite(float(digits)):
        raise ValueError(f"{reprlib.repr(digits)} is out of range")
    return digits


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    keys = dict(pairs)
    if len(keys) != len(pairs):
        raise ValueError("a key stands twice")
    return keys


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not a number")
