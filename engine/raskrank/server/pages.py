"""The pages that people see: one to try the model on, and the description of the interface."""

from collections.abc import Mapping
from importlib.resources import files

from raskrank.server import reference

STATIC = files("raskrank.server") / "static"
HTML, CSS, SCRIPT, SVG = (
    "text/html; charset=utf-8",
    "text/css; charset=utf-8",
    "text/javascript; charset=utf-8",
    "image/svg+xml",
)
# What the page asks for where the server has keys; see page.html.
KEY_FIELD = b"<!-- key -->"


def pages(described: Mapping[str, object], *, keys: bool) -> dict[str, tuple[bytes, str]]:
    """Path -> content and media type. described: what openapi.document made. Links in them are relative, for any prefix."""
    page = (STATIC / "page.html").read_bytes()
    field = (STATIC / "key.html").read_bytes() if keys else b""
    return {
        "/": (page.replace(KEY_FIELD, field), HTML),
        "/page.css": ((STATIC / "page.css").read_bytes(), CSS),
        "/page.js": ((STATIC / "page.js").read_bytes(), SCRIPT),
        "/words.js": ((STATIC / "words.js").read_bytes(), SCRIPT),
        "/icon.svg": ((STATIC / "icon.svg").read_bytes(), SVG),
        "/docs": (reference.page(described).encode(), HTML),
    }
