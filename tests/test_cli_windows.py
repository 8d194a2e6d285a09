"""`raskrank rank` on long documents, and with a threshold."""

import json
from pathlib import Path

import pytest

from command import QUERY, error_line, write
from raskrank import Reranker, Windows
from raskrank.cli.main import main

pytestmark = pytest.mark.usefixtures("no_surroundings")

OTHER = "Torsken gyter langs kysten om våren, og fisket er viktig for bygdene. "
ANSWER = "Kari har skrevet Python i ti år og lærer gjerne bort det hun kan."
TEXTS = ["Sykepleier på Kroken", OTHER * 60 + ANSWER + " " + OTHER * 5, ANSWER, OTHER * 400]


@pytest.fixture
def lines(tmp_path: Path) -> Path:
    return write(tmp_path / "documents.txt", "\n".join(TEXTS) + "\n")


@pytest.mark.parametrize(
    ("options", "windows"),
    [([], Windows()), (["--max-windows", "3"], Windows(max_windows=3)), (["--overlap", "0"], Windows(overlap=0))],
)
def test_json_says_the_same_as_the_library(
    options: list[str], windows: Windows, lines: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["rank", "--json", "--long-documents", "windows", *options, QUERY, str(lines)]) == 0
    rows = json.loads(capsys.readouterr().out)
    hits = Reranker.load().rank(QUERY, [text.strip() for text in TEXTS], long_documents=windows)
    found = [(row["index"], row["score"], row["truncated"], tuple(row["span"])) for row in rows]
    assert [(*hit[:3], hit.span) for hit in hits] == found
    assert list(rows[0]) == ["rank", "index", "line", "score", "truncated", "span", "text"]


def test_without_windows_there_are_no_spans(lines: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["rank", "--json", "--long-documents", "truncate", QUERY, str(lines)]) == 0
    chosen = capsys.readouterr().out
    assert main(["rank", "--json", QUERY, str(lines)]) == 0
    assert capsys.readouterr().out == chosen
    assert {"span" in row for row in json.loads(chosen)} == {False}


def test_the_table_begins_where_the_best_window_does(lines: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["rank", "--long-documents", "windows", "--max-windows", "8", QUERY, str(lines)]) == 0
    shown = capsys.readouterr().out.splitlines()
    texts = {line.split()[2]: line.split(maxsplit=3)[3] for line in shown[1:5]}
    assert texts["1"] == TEXTS[0]
    assert texts["2"].startswith("… ")
    assert texts["3"].startswith(ANSWER[:40])
    assert texts["4"].startswith("*  ")
    assert shown[-1] == "* not read to its end: 8 windows of 512 tokens, the query in each"


def test_a_threshold_leaves_out_what_scores_less(lines: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["rank", "--json", QUERY, str(lines)]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert main(["rank", "--json", "--score-threshold", "0.5", QUERY, str(lines)]) == 0
    assert json.loads(capsys.readouterr().out) == [row for row in rows if row["score"] >= 0.5] != rows
    assert main(["rank", "--raw-scores", "--score-threshold", "1e6", QUERY, str(lines)]) == 0
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == f"raskrank: {lines}: none of 4 documents scores 1e+06 or more\n"
    assert main(["rank", "--json", "--score-threshold", "1e6", QUERY, str(lines)]) == 0
    assert capsys.readouterr().out == "[]\n"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--max-windows", "3"], "--max-windows: there are windows only with --long-documents windows"),
        (["--overlap", "3"], "--overlap: there are windows only with --long-documents windows"),
        (
            ["--long-documents", "windows", "--max-windows", "0"],
            "argument --max-windows: expected a whole number of at least 1",
        ),
        (["--long-documents", "windows", "--overlap", "-1"], "argument --overlap: expected a whole number of at least 0"),
        (["--long-documents", "chunks"], "argument --long-documents: invalid choice"),
        (["--score-threshold", "nan"], "argument --score-threshold: expected a number"),
        (["--score-threshold", "high"], "argument --score-threshold: expected a number"),
    ],
)
def test_wrong_use(options: list[str], said: str, lines: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["rank", *options, QUERY, str(lines)]) == 2
    assert said in error_line(capsys)
