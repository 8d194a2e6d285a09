"""Files of pairs for tests of bulk scoring, and what becomes of them."""

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from builders import SENTENCES
from raskrank.bulk.journal import NAME

Row = dict[str, Any]


def rows(count: int, seed: int = 0) -> list[Row]:
    """Different in each row, and of different lengths."""
    rng = random.Random(seed)
    return [
        {
            "id": number,
            "query": rng.choice(SENTENCES),
            "document": f"{number} {' '.join(rng.sample(SENTENCES, rng.randint(1, 3)))}",
        }
        for number in range(count)
    ]


def write_jsonl(file: Path, items: Sequence[Row]) -> Path:
    file.write_text("".join(json.dumps(item, ensure_ascii=False) + "\n" for item in items), "utf-8")
    return file


def parts(output: Path) -> list[Path]:
    """In the order of the input."""
    return sorted(path for path in output.rglob("part-*") if path.is_file())


def read_jsonl(output: Path) -> list[Row]:
    return [json.loads(line) for part in parts(output) for line in part.read_text("utf-8").splitlines()]


def journal(output: Path) -> list[Row]:
    """Its lines but the first."""
    return [json.loads(line) for line in (output / NAME).read_text("utf-8").splitlines()[1:]]


def states(output: Path) -> dict[str, tuple[int, int]]:
    """What would be another for a file that was written again."""
    return {path.name: (path.stat().st_ino, path.stat().st_mtime_ns) for path in parts(output)}
