"""Fields of a JSON body, as clients mean them: null is absent, and "true" may be a string. Messages never hold a value."""

from collections.abc import Mapping

from raskrank.server.problems import Problem, wrong

Body = Mapping[str, object]
KINDS = {type(None): "null", bool: "a boolean", int: "a number", float: "a number", str: "a string", list: "an array"}


def kind(value: object) -> str:
    """What JSON calls a value's type."""
    return KINDS.get(type(value), "an object")


def flag(body: Body, name: str, *, default: bool) -> bool:
    """A boolean, also where it is written as a string."""
    match body.get(name):
        case None:
            return default
        case bool(value):
            return value
        case str(text) if text.lower() in ("true", "false"):
            return text.lower() == "true"
        case other:
            raise wrong(name, f"expected true or false, got {kind(other)}")


def count(body: Body, name: str, *, least: int = 0) -> int | None:
    """A whole number of at least `least`, or None."""
    value = body.get(name)
    if value is None:
        return None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise wrong(name, f"expected a whole number, got {kind(value)}")
    if value < least:
        raise wrong(name, f"expected at least {least}")
    return value


def number(body: Body, name: str) -> float | None:
    """A number, or None."""
    value = body.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise wrong(name, f"expected a number, got {kind(value)}")
    try:
        return float(value)
    except OverflowError:
        raise wrong(name, "expected a number that fits 64 bits") from None


def text(body: Body, name: str, limit: int) -> str:
    """A string of at most `limit` characters, which has to be there."""
    if name not in body:
        raise wrong(name, "it is missing")
    return as_text(body[name], name, limit)


def as_text(value: object, name: str, limit: int) -> str:
    if not isinstance(value, str):
        raise wrong(name, f"expected a string, got {kind(value)}")
    if len(value) > limit:
        raise wrong(name, f"{len(value)} characters, more than the {limit} that this server takes")
    return value


def items(body: Body, name: str, limit: int) -> list[object]:
    """An array of 1 to `limit` items, which has to be there."""
    value = body.get(name)
    if not isinstance(value, list):
        raise wrong(name, f"expected an array, got {kind(value)}")
    if not value:
        raise Problem(400, f"{name}: it is empty", param=name)
    if len(value) > limit:
        raise wrong(name, f"batch size {len(value)} > maximum allowed batch size {limit}")
    return value
