"""Memory of `raskrank score` does not grow with its input."""

from pathlib import Path

from pairs import MEGABYTE, grown, write_jsonl


def test_a_file_that_is_far_larger_than_what_is_held(tmp_path: Path) -> None:
    long = "Oslo og omegn " * 14_000  # 196 kB, of which the model reads the first tokens
    small, large = (
        write_jsonl(tmp_path / f"{count}.jsonl", ({"query": "a", "document": f"{number} {long}"} for number in range(count)))
        for count in (100, 1000)
    )
    assert large.stat().st_size > 190 * MEGABYTE
    assert grown(small, large, tmp_path) < 60 * MEGABYTE  # the small one is more than a batch, of 16 MB of text
    (part,) = (tmp_path / "large").glob("part-*")
    assert part.stat().st_size > large.stat().st_size
