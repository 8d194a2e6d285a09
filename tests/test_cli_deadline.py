"""`raskrank rank --deadline`: what is printed of documents that were not scored in time."""

import json
from pathlib import Path

import pytest

from command import DOCUMENTS, QUERY, error_line, write
from raskrank import Reranker
from raskrank.cli.main import main

pytestmark = pytest.mark.usefixtures("no_surroundings")

NO_TIME = "1e-9"


@pytest.fixture
def lines(tmp_path: Path) -> Path:
    return write(tmp_path / "documents.txt", "\n".join(DOCUMENTS) + "\n")


def test_with_time_enough_it_prints_what_it_prints_without(lines: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["rank", QUERY, str(lines)]) == 0
    expected = capsys.readouterr()
    assert main(["rank", QUERY, str(lines), "--deadline", "3600"]) == 0
    assert capsys.readouterr() == expected


def test_what_was_not_scored_has_a_dash_and_a_note(lines: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["rank", QUERY, str(lines), "--deadline", NO_TIME]) == 0
    captured = capsys.readouterr()
    shown = captured.out.splitlines()
    assert [line.split()[:3] for line in shown[1 : 1 + len(DOCUMENTS)]] == [
        [str(number), "–", str(number)] for number in range(1, len(DOCUMENTS) + 1)
    ]
    assert shown[1 + len(DOCUMENTS) :] == ["", "– not scored within 1e-09 s"]
    assert captured.err == ""


def test_json_has_null_for_a_score(lines: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["rank", "--json", QUERY, str(lines), "--deadline", NO_TIME]) == 0
    captured = capsys.readouterr()
    rows = json.loads(captured.out)
    assert [(row["rank"], row["index"], row["score"], row["truncated"]) for row in rows] == [
        (index + 1, index, None, False) for index in range(len(DOCUMENTS))
    ]
    assert captured.err == f"raskrank: note: not all of {len(DOCUMENTS)} documents were scored within 1e-09 s\n"


def test_what_a_threshold_leaves_out_for_want_of_a_score_is_said(lines: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["rank", QUERY, str(lines), "--deadline", NO_TIME, "--score-threshold", "0"]) == 0
    captured = capsys.readouterr()
    assert captured.out == ""
    assert f"note: not all of {len(DOCUMENTS)} documents were scored within 1e-09 s" in captured.err


def test_the_deadline_is_that_of_the_library(lines: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []
    real = Reranker.rank

    def rank(self: Reranker, *arguments: object, **options: object) -> object:
        asked.append(options["deadline"])
        return real(self, *arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(Reranker, "rank", rank)
    assert main(["rank", QUERY, str(lines), "--deadline", "2.5"]) == 0
    assert main(["rank", QUERY, str(lines)]) == 0
    assert asked == [2.5, None]


@pytest.mark.parametrize("value", ["0", "-1", "nan", "inf", "soon"])
def test_a_deadline_is_a_number_above_0(lines: Path, value: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["rank", QUERY, str(lines), "--deadline", value]) == 2
    assert "--deadline: expected a number of seconds above 0" in error_line(capsys)
