"""Lays out docstrings for the site: a line "name: what it is" of a parameter or a field becomes an item of a list."""

import re
from typing import Any

import griffe

ITEM = re.compile(r"(?P<names>[a-z]\w*(?:, [a-z]\w*)*): (?P<text>.+)")


class Items(griffe.Extension):
    """Rewrites docstrings once all of a package is loaded."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring is not None:
            obj.docstring.value = as_list(obj.docstring.value, named_in(obj))


def named_in(obj: griffe.Object) -> set[str]:
    """What a docstring may describe by name: parameters of a function, fields and properties of a class."""
    if isinstance(obj, griffe.Function):
        return {parameter.name for parameter in obj.parameters}
    return set(obj.members)


def as_list(text: str, names: set[str]) -> str:
    """Markdown of a docstring, its lines about one or more of `names` as items. What is indented below one belongs to it."""
    lines: list[str] = []
    inside = False
    for line in text.splitlines():
        match = ITEM.fullmatch(line)
        if match and names.issuperset(match["names"].split(", ")):
            lines += [] if inside else [""]
            code = ", ".join(f"`{name}`" for name in match["names"].split(", "))
            line, inside = f"- {code}: {match['text']}", True
        elif inside and line.startswith("Raises "):
            line, inside = f"\n{line}", False
        lines.append(line)
    return "\n".join(lines)
