"""Lays out docstrings for the site: what is said of a parameter or a field becomes an item of a list, columns stay columns."""

import re
from collections.abc import Iterator
from typing import Any

import griffe

ITEM = re.compile(r"(?P<names>[a-z]\w*(?:, [a-z]\w*)*): (?P<text>.+)")  # name: what it is
COLUMNS = re.compile(r"\S {3,}\S")


class Layout(griffe.Extension):
    """Rewrites every docstring once all of a package is loaded."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring is not None:
            paragraphs = obj.docstring.value.split("\n\n")
            obj.docstring.value = "\n\n".join(laid_out(paragraph, named_in(obj)) for paragraph in paragraphs)


def named_in(obj: griffe.Object) -> set[str]:
    """What a docstring may describe by name: parameters of a function, fields and properties of a class."""
    if isinstance(obj, griffe.Function):
        return {parameter.name for parameter in obj.parameters}
    return set(obj.members)


def laid_out(paragraph: str, names: set[str]) -> str:
    """A paragraph of a docstring as Markdown: text in columns as code, lines about one or more of `names` as items."""
    if COLUMNS.search(paragraph):
        return f"```text\n{paragraph}\n```"
    return "\n".join(_items(paragraph.splitlines(), names))


def _items(lines: list[str], names: set[str]) -> Iterator[str]:
    inside = False
    for line in lines:
        match = ITEM.fullmatch(line)
        if match and names.issuperset(match["names"].split(", ")):
            code = match["names"].replace(", ", "`, `")
            yield from [] if inside else [""]
            yield f"- `{code}`: {match['text']}"
            inside = True
        elif inside and line.startswith("Raises "):
            yield from ["", line]
            inside = False
        else:
            yield line
