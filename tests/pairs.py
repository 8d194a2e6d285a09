"""Files of pairs for tests of bulk scoring, and what becomes of them."""

import json
import random
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from builders import SENTENCES
from processes import run_script
from raskrank.bulk.journal import NAME

Row = dict[str, Any]
MEGABYTE = 1_000_000
# ru_maxrss would begin with what the process had that started this one.
PEAK = """
import re, sys
from pathlib import Path
from raskrank.cli.main import main

def peak():
    return int(re.search(r"VmHWM:\\s*([0-9]+) kB", Path("/proc/self/status").read_text())[1]) * 1024

small, large, folder = sys.argv[1:]
assert main(["score", small, folder + "/small", "--threads", "1"]) == 0
before = peak()
assert main(["score", large, folder + "/large", "--threads", "1", "--part-rows", "1000000"]) == 0
print(peak() - before)
"""


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


def write_jsonl(file: Path, items: Iterable[Row]) -> Path:
    with file.open("w", encoding="utf-8") as stream:
        stream.writelines(json.dumps(item, ensure_ascii=False) + "\n" for item in items)
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


def grown(small: Path, large: Path, folder: Path) -> int:
    """Bytes by which the most memory that a process had grows with `large`, scored as one part, after it has scored `small`."""
    done = run_script(folder, PEAK, str(small), str(large), str(folder), deadline=120)
    return int(done.stdout.splitlines()[-1])
