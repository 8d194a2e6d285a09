"""What a model card, README.md, states in its front matter."""

import re
from pathlib import Path

from raskrank.checkpoint.files import is_file, read_bytes

# Model cards begin with their front matter; what comes after it is prose.
MAX_CARD_BYTES = 64 * 2**10


def front_matter(path: Path) -> tuple[str | None, tuple[str, ...]]:
    """License and languages from the model card's first lines; only plain values and lists are understood."""
    if not is_file(path):
        return None, ()
    text = read_bytes(path, MAX_CARD_BYTES).decode("utf-8-sig", errors="replace").replace("\r\n", "\n")
    block = re.match(r"---[ \t]*\n(.*?)\n---[ \t]*(?:\n|$)", text, re.DOTALL)
    found: dict[str, list[str]] = {"license": [], "language": []}
    key = ""
    for line in block[1].split("\n") if block else ():
        if entry := re.match(r"([\w-]+):(.*)", line):
            key, values = entry[1], entry[2].split(" #")[0].strip().removeprefix("[").removesuffix("]").split(",")
        elif entry := re.match(r"\s*-\s(.*)", line):
            values = [entry[1].split(" #")[0]]
        else:
            continue
        names = (value.strip().strip("'\"") for value in values)
        found.get(key, []).extend(name for name in names if re.fullmatch(r"[\w.+-]{1,64}", name))
    return next(iter(found["license"]), None), tuple(found["language"])
