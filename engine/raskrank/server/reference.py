"""/docs: the description of the interface as a page of HTML, without a script."""

import json
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import Any

HEAD = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Raskrank · interface</title>
<link rel="icon" href="icon.svg" type="image/svg+xml">
<link rel="stylesheet" href="page.css">
</head>
<body class="reference">
"""
ADDRESS = "http://127.0.0.1:8000"


def page(described: Mapping[str, Any]) -> str:
    """described: what openapi.document made."""
    return HEAD + "\n".join(_body(described)) + "\n</body>\n</html>\n"


def _body(described: Mapping[str, Any]) -> Iterator[str]:
    info = described["info"]
    yield f"<header><h1>Raskrank <small>{escape(info['version'])}</small></h1>"
    yield '<nav><a href="./">Try it</a> <a href="openapi.json">openapi.json</a></nav></header>'
    yield f"<main><p>{escape(info['description'])}</p>"
    same: dict[str, list[str]] = {}
    for path, methods in described["paths"].items():
        for method, operation in methods.items():
            same.setdefault(operation["summary"], []).append(f"{method.upper()} {path}")
    operations = {operation["summary"]: operation for methods in described["paths"].values() for operation in methods.values()}
    for summary, names in same.items():
        yield from _operation(names, operations[summary], described)
    yield "</main>"


def _operation(names: Sequence[str], operation: Mapping[str, Any], described: Mapping[str, Any]) -> Iterator[str]:
    yield "<section>"
    yield "<h2>" + " ".join(f"<code>{escape(name)}</code>" for name in names) + "</h2>"
    yield f"<p>{escape(operation['summary'])}{'; needs a key' if operation.get('security') else ''}.</p>"
    for parameter in operation.get("parameters", ()):
        yield f"<p>Header <code>{escape(parameter['name'])}</code>: {escape(parameter['description'])}</p>"
    if "requestBody" in operation:
        content = operation["requestBody"]["content"]["application/json"]
        for schema in _choices(content["schema"], described):
            yield from _fields(schema)
        for example in content["examples"].values():
            data = json.dumps(example["value"], ensure_ascii=False)
            curl = f"curl {ADDRESS}{names[0].split()[1]} -H 'content-type: application/json' \\\n  -d '{data}'"
            yield f'<pre tabindex="0"><code>{escape(curl)}</code></pre>'
    yield _table("status", "meaning")
    for status, response in operation["responses"].items():
        yield f"<tr><td><code>{escape(status)}</code></td><td>{escape(response['description'])}</td></tr>"
    yield "</tbody></table></section>"


def _fields(schema: Mapping[str, Any]) -> Iterator[str]:
    yield f"<h3>{escape(schema['title'])}</h3>"
    yield _table("field", "type", "meaning")
    for name, field in schema["properties"].items():
        needed = " <em>required</em>" if name in schema["required"] else ""
        broken = escape(name).replace("_", "_<wbr>")  # where a narrow screen may break it
        meaning = escape(field.get("description", ""))
        yield f"<tr><td><code>{broken}</code>{needed}</td><td>{escape(_kind(field))}</td><td>{meaning}</td></tr>"
    yield "</tbody></table>"


def _table(*columns: str) -> str:
    head = "".join(f'<th scope="col">{column}</th>' for column in columns)
    return f"<table><thead><tr>{head}</tr></thead><tbody>"


def _choices(schema: Mapping[str, Any], described: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    names = [choice["$ref"].rpartition("/")[2] for choice in schema["anyOf"]]
    return [described["components"]["schemas"][name] for name in names]


def _kind(schema: Mapping[str, Any]) -> str:
    """A type in words."""
    if "anyOf" in schema:
        return " or ".join(dict.fromkeys(map(_kind, schema["anyOf"])))
    if "enum" in schema:
        return " or ".join("null" if value is None else f'"{value}"' for value in schema["enum"])
    types = schema.get("type", "any")
    if types == "array" or (isinstance(types, list) and "array" in types):
        most = f", at most {schema['maxItems']}" if "maxItems" in schema else ""
        return f"array of {_kind(schema['items'])}{most}"
    if types == "object":
        return f"object with {', '.join(schema['properties'])}"
    return " or ".join(types) if isinstance(types, list) else str(types)
