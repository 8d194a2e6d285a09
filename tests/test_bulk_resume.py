"""A run of `raskrank score` that was stopped goes on where it was, whatever stopped it, and never with another output."""

import json
import os
import re
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

import bundles
from command import DEADLINE, INTERRUPTIBLE, error_line
from pairs import journal, parts, read_jsonl, rows, states, write_jsonl
from paths import ROOT
from raskrank.bulk.journal import NAME, Journal
from raskrank.bulk.summary import Summary
from raskrank.cli import score
from raskrank.cli.main import main

pytestmark = pytest.mark.usefixtures("no_surroundings")

NANO = ROOT / "engine" / "raskrank" / "nano"
SMALL = ("--part-rows", "10")
ROWS = 3000  # seconds of work, so that a signal comes in the middle


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    return write_jsonl(tmp_path / "pairs.jsonl", rows(50))


def test_a_run_that_was_done_does_nothing(pairs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["score", str(pairs), str(tmp_path / "out"), *SMALL]
    assert main(command) == 0
    before = states(tmp_path / "out")
    capsys.readouterr()
    assert main(command) == 0
    assert capsys.readouterr().out == "nothing was left to score: all 5 parts are done\n"
    assert states(tmp_path / "out") == before


def test_only_parts_that_are_gone_or_changed_are_scored_again(pairs: Path, tmp_path: Path) -> None:
    command, out = ["score", str(pairs), str(tmp_path / "out"), *SMALL], tmp_path / "out"
    assert main(command) == 0
    before, found = states(out), read_jsonl(out)
    parts(out)[1].unlink()
    parts(out)[-1].write_bytes(b"")
    assert main(command) == 0
    after = states(out)
    assert read_jsonl(out) == found
    assert [name for name in before if after[name] != before[name]] == [
        f"part-00000-00000-0000{piece}.jsonl" for piece in (1, 4)
    ]


def test_a_line_that_was_cut_short_costs_its_part(pairs: Path, tmp_path: Path) -> None:
    command, out = ["score", str(pairs), str(tmp_path / "out"), *SMALL], tmp_path / "out"
    assert main(command) == 0
    found, file = read_jsonl(out), out / NAME
    file.write_bytes(file.read_bytes()[:-5])
    assert main(command) == 0
    assert read_jsonl(out) == found
    assert len(journal(out)) == 5


def test_an_error_leaves_what_is_done(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    items = rows(50)
    items[34]["document"] = None
    command, out = ["score", str(write_jsonl(tmp_path / "p.jsonl", items)), str(tmp_path / "out"), *SMALL], tmp_path / "out"
    assert main(command) == 2
    said = capsys.readouterr().err
    assert 'p.jsonl, line 35: "document" is null' in said
    assert "3 of 5 parts are done; the same command goes on from there" in said
    before = states(out)
    assert len(before) == 3
    assert main([*command, "--bad-rows", "null"]) == 0
    assert [item["score"] is None for item in read_jsonl(out)] == [index == 34 for index in range(50)]
    assert {name: state for name, state in states(out).items() if name in before} == before


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (("--bundle", "other"), "was begun with another bundle: "),
        (("--backend", "onnx"), 'was begun with another --backend: null then, "onnx" now'),
        (("--raw-scores",), "was begun with --raw-scores on one side only"),
        (("--long-documents", "windows"), "was begun with other windows"),
        (("--prefix", "p"), "was begun with other names of columns"),
        (("--part-rows", "11"), "was begun with other --part-rows: 10 then, 11 now"),
    ],
)
def test_an_output_of_something_else_is_refused(
    more: tuple[str, ...], says: str, pairs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["score", str(pairs), str(tmp_path / "out"), *SMALL]
    assert main(command) == 0
    before = states(tmp_path / "out")
    capsys.readouterr()
    other = bundles.edit(bundles.copy_bundle(NANO, tmp_path / "other"), name="other")
    assert main([*command, *(str(other) if word == "other" else word for word in more)]) == 2
    line = error_line(capsys)
    assert says in line
    assert "for this one choose another OUTPUT, or remove the old one" in line
    assert states(tmp_path / "out") == before


def test_an_output_of_other_files_is_refused(pairs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    assert main(["score", str(pairs), str(out)]) == 0
    other = write_jsonl(tmp_path / "other.jsonl", rows(3))
    capsys.readouterr()
    assert main(["score", str(pairs), str(other), str(out)]) == 2
    assert "with other input files, or one of them has changed since: other.jsonl is on one side only" in error_line(capsys)
    write_jsonl(pairs, rows(50, seed=1))
    assert main(["score", str(pairs), str(out)]) == 2
    assert "pairs.jsonl has changed" in error_line(capsys)


def _full(out: Path) -> None:
    out.mkdir()
    (out / "letters.txt").write_text("dear")


def _file(out: Path) -> None:
    out.write_text("dear")


def _damaged(out: Path) -> None:
    out.mkdir()
    (out / NAME).write_text("{}{}\n")


@pytest.mark.parametrize(
    ("prepare", "says"),
    [(_full, "OUTPUT is not empty, and not of raskrank score"), (_file, "OUTPUT is a file"), (_damaged, "is damaged")],
)
def test_what_is_no_output_is_left_alone(
    prepare: Callable[[Path], None], says: str, pairs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prepare(tmp_path / "out")
    assert main(["score", str(pairs), str(tmp_path / "out")]) == 2
    assert says in error_line(capsys)
    assert parts(tmp_path / "out") == []


def test_two_runs_do_not_write_to_one_output(pairs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Journal(
        tmp_path / "out", dict.fromkeys(("bundle", "backend", "columns", "windows", "raw_scores", "part_rows", "inputs"))
    ):
        assert main(["score", str(pairs), str(tmp_path / "out")]) == 2
    assert "another raskrank score is writing to it" in error_line(capsys)


def _start(pairs: Path, out: Path, *more: str) -> "subprocess.Popen[str]":
    command = [*INTERRUPTIBLE, "score", str(pairs), str(out), "--part-rows", "100", "--threads", "1", *more]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def _wait_for_parts(process: "subprocess.Popen[str]", out: Path, count: int) -> None:
    deadline = time.monotonic() + DEADLINE
    while len(list(out.glob("part-*"))) < count:
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_jsonl(tmp_path_factory.mktemp("many") / "pairs.jsonl", rows(ROWS))


@pytest.fixture(scope="module")
def whole(many: Path) -> dict[str, bytes]:
    """The parts that an undisturbed run writes."""
    out = many.parent / "whole"
    assert main(["score", str(many), str(out), "--part-rows", "100"]) == 0
    return {part.name: part.read_bytes() for part in parts(out)}


@pytest.mark.parametrize("kill", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT], ids=lambda kill: kill.name)
def test_a_signal_costs_the_part_in_work_alone(
    kill: signal.Signals, many: Path, whole: dict[str, bytes], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    process = _start(many, out)
    _wait_for_parts(process, out, 3)
    process.send_signal(kill)
    _, said = process.communicate(timeout=DEADLINE)
    assert process.returncode == (130 if kill == signal.SIGINT else -kill)
    assert "Traceback" not in said
    assert ("parts are done; the same command goes on from there" in said) is (kill == signal.SIGINT)
    left = [path.name for path in out.iterdir() if path.name.startswith(".")]
    assert len(left) <= (0 if kill == signal.SIGINT else 1)
    before, known = states(out), {line["part"] for line in journal(out)}
    assert 3 <= len(before) < len(whole)
    assert len(before.keys() - known) <= 1  # in place, and the line about it not yet written
    for name in before:
        assert (out / name).read_bytes() == whole[name]
    assert main(["score", str(many), str(out), "--part-rows", "100"]) == 0
    assert {part.name: part.read_bytes() for part in parts(out)} == whole
    assert {name for name in before if states(out)[name] == before[name]} >= known
    assert [path.name for path in out.iterdir() if path.name.startswith(".")] == []


@pytest.mark.skipif(sys.platform == "win32", reason="no limit on files")
def test_a_full_disk_leaves_no_half_a_part(many: Path, whole: dict[str, bytes], tmp_path: Path) -> None:
    out = tmp_path / "out"
    limit = max(map(len, whole.values())) - 1  # for one part at least, and for none of the journal's lines

    def limited() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    command = [*INTERRUPTIBLE, "score", str(many), str(out), "--part-rows", "100"]
    done = subprocess.run(command, preexec_fn=limited, capture_output=True, text=True, timeout=DEADLINE, check=False)
    assert done.returncode == 1
    assert "cannot be written: File too large" in done.stderr
    assert "Exception ignored" not in done.stderr
    assert {part.name: part.read_bytes() for part in parts(out)}.items() < whole.items()
    assert [path for path in out.iterdir() if path.name.startswith(".")] == []
    assert main(["score", str(many), str(out), "--part-rows", "100"]) == 0
    assert {part.name: part.read_bytes() for part in parts(out)} == whole


def test_progress_without_a_terminal_is_a_line_a_minute_with_the_rate_of_this_run_and_the_time_left(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = [1000.0]
    monkeypatch.setattr(score, "time", SimpleNamespace(monotonic=lambda: now[0]))
    lines = score._Lines(10_000, done=4_000)
    for seconds, scored in ((59.0, 1_000), (1.0, 200), (59.0, 0), (11.0, 220)):
        now[0] += seconds
        lines.advance(scored)
    assert capsys.readouterr().err.splitlines() == [
        "raskrank: 5,200 of 10,000 pairs, 20.0/s, 4 min 00 s left",
        "raskrank: 5,420 of 10,000 pairs, 10.9/s, 6 min 59 s left",
    ]


def test_the_progress_of_a_run_counts_every_row_once(
    pairs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command, out = ["score", str(pairs), str(tmp_path / "out"), *SMALL], tmp_path / "out"
    assert main(command) == 0
    for part in parts(out)[:2]:
        part.unlink()
    monkeypatch.setattr(score, "SAID_EVERY", 0.0)
    capsys.readouterr()
    assert main(command) == 0
    said = re.findall(r"^raskrank: (\d+) of 50 pairs, [\d,.]+/s, (.+) left$", capsys.readouterr().err, re.MULTILINE)
    counts = [int(count) for count, _ in said]
    assert counts == sorted(counts)
    assert (min(counts) > 30, said[-1]) == (True, ("50", "0.0 s"))


def test_the_summary_says_what_a_million_pairs_cost() -> None:
    summary = Summary(
        parts=3, pairs=5_000, unscored=1, truncated=2, tokens=800_000, earlier_parts=1, seconds=36.0, price_per_hour=0.4
    )
    assert str(summary).splitlines() == [
        "5,000 pairs, 800,000 tokens, 36.0 s: 138.9 pairs/s",
        "parts: 3 written, 1 done before",
        "2 pairs were too long to be read to their ends",
        "1 rows have no text, or no number for a score: theirs is null",
        "a million such pairs: 2.00 hours of this machine, at 0.4 an hour 0.80",
    ]


def test_the_journal_says_what_the_summary_adds_up(pairs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    assert main(["score", str(pairs), str(out), *SMALL, "--json", "--price-per-hour", "3.6"]) == 0
    said, lines = json.loads(capsys.readouterr().out), journal(out)
    for key in ("pairs", "tokens", "truncated", "unscored"):
        assert said[key] == sum(line[key] for line in lines)
    assert said["pairs"] == 50
    assert 0 < sum(line["seconds"] for line in lines) <= said["seconds"]
    assert said["machine_hours_per_million_pairs"] == pytest.approx(said["seconds"] / 3600 * 1e6 / 50)
    assert said["price_per_million_pairs"] == pytest.approx(said["machine_hours_per_million_pairs"] * 3.6)
    assert {line["worker"].rpartition(":")[2] for line in lines} == {str(os.getpid())}
