"""The program of a fresh process: python -m raskrank.measure.probe reads a request on standard input, and writes JSON."""

import json
import sys
import time
from contextlib import suppress
from pathlib import Path

from raskrank import NonFiniteScore, Reranker

_MEMORY = Path("/proc/self/smaps_rollup")


def main() -> None:
    request = json.loads(sys.stdin.readline())
    query, text = request.pop("query"), request.pop("text")
    reranker = Reranker.load(**request)
    with suppress(NonFiniteScore):  # time and memory are the same
        reranker.score(query, [text])
    first_score = time.monotonic()
    with suppress(NonFiniteScore):
        reranker.score(query, json.loads(sys.stdin.readline()))
    used = memory()
    found = {"resident_bytes": used.get("Rss"), "private_bytes": used.get("Private_Dirty")}
    sys.stdout.write(json.dumps({"first_score": first_score, **found}))


def memory() -> dict[str, int]:
    """This process's memory in bytes, by the kernel's names for its kinds; {} where the system does not say."""
    try:
        lines = _MEMORY.read_text("ascii", "replace").splitlines()
    except OSError:
        return {}
    # "Rss:   1024 kB"; the first line is of another form.
    rows = [line.split() for line in lines[1:]]
    return {name.removesuffix(":"): int(number) * 1024 for name, number, _ in rows}


if __name__ == "__main__":
    main()
