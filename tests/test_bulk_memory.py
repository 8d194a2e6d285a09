"""Memory of `raskrank score` does not grow with its input."""

from pathlib import Path

from pairs import write_jsonl
from processes import run_script

MEGABYTE = 1_000_000
SCRIPT = """
import resource, sys
from raskrank.cli.main import main

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

small, large, folder = sys.argv[1:]
assert main(["score", small, folder + "/small", "--threads", "1"]) == 0
before = peak()
assert main(["score", large, folder + "/large", "--threads", "1", "--part-rows", "1000000"]) == 0
print((peak() - before) // 1_000_000)
"""


def test_a_file_that_is_far_larger_than_what_is_held(tmp_path: Path) -> None:
    long = "Oslo og omegn " * 14_000  # 196 kB, of which the model reads the first tokens
    small = write_jsonl(tmp_path / "small.jsonl", [{"query": "a", "document": long}] * 100)
    large = write_jsonl(tmp_path / "large.jsonl", [{"query": "a", "document": long}] * 1500)
    assert large.stat().st_size > 290 * MEGABYTE
    done = run_script(tmp_path, SCRIPT, str(small), str(large), str(tmp_path), deadline=120)
    assert int(done.stdout.splitlines()[-1]) < 60  # the first run has held a batch already, of 16 MB of text
    (part,) = (tmp_path / "large").glob("part-*")
    assert part.stat().st_size > large.stat().st_size
