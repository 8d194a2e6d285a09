"""`raskrank rank`: input, output, and scores that are not finite."""

import json
import logging
import math
import re
from pathlib import Path

import pytest

from command import DOCUMENTS, QUERY, SECRET, error_line, stdin, write
from conftest import BROKEN, Tiny
from paths import NANO_CHECKPOINT
from raskrank import Reranker
from raskrank.cli.main import main

pytestmark = pytest.mark.usefixtures("no_surroundings")


@pytest.fixture
def lines(tmp_path: Path) -> Path:
    return write(tmp_path / "documents.txt", "\n".join(DOCUMENTS) + "\n")


# rank


def test_rank_prints_a_table(lines: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["rank", QUERY, str(lines)]) == 0
    captured = capsys.readouterr()
    shown = captured.out.splitlines()
    assert shown[0] == "rank   score  line  text"
    assert len(shown) == 5
    hits = Reranker.load().rank(QUERY, DOCUMENTS)
    for line, (rank, hit) in zip(shown[1:], enumerate(hits, 1), strict=True):
        assert line == f"{rank:>4}  {hit.score:.4f}  {hit.index + 1:>4}  {DOCUMENTS[hit.index]}"
    assert captured.err == ""


def test_rank_json_says_the_same_as_the_library(lines: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["rank", "--json", "--top-k", "2", "--threads", "1", QUERY, str(lines)]) == 0
    hits = Reranker.load().rank(QUERY, DOCUMENTS, top_k=2)
    assert json.loads(capsys.readouterr().out) == [
        {
            "rank": rank,
            "index": hit.index,
            "line": hit.index + 1,
            "score": hit.score,
            "truncated": False,
            "text": DOCUMENTS[hit.index],
        }
        for rank, hit in enumerate(hits, 1)
    ]


def test_raw_scores_are_logits_in_the_same_order(tiny: Tiny, lines: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--bundle", str(tiny.bundle()), QUERY, str(lines)]
    assert main(["rank", "--json", *options]) == 0
    scores = json.loads(capsys.readouterr().out)
    assert main(["rank", "--json", "--raw-scores", *options]) == 0
    logits = json.loads(capsys.readouterr().out)
    assert [row["index"] for row in logits] == [row["index"] for row in scores]
    assert [1 / (1 + math.exp(-row["score"])) for row in logits] == pytest.approx([row["score"] for row in scores], abs=1e-6)
    assert logits != scores


def test_ties_stand_in_the_order_of_the_input(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = write(tmp_path / "ties.txt", "\n".join(["Dyrepasser", "Utvikler i Python", "Dyrepasser", "Dyrepasser"]))
    assert main(["rank", "--json", QUERY, str(file)]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["line"] for row in rows if row["text"] == "Dyrepasser"] == [1, 3, 4]


def test_lines_keep_their_numbers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = write(tmp_path / "odd.txt", "\ufeff\n\nførste\r\n \t \nandre\u2028del\x0bdel\n\ntredje")
    assert main(["rank", "--json", QUERY, str(file)]) == 0
    rows = sorted(json.loads(capsys.readouterr().out), key=lambda row: row["index"])
    assert [(row["index"], row["line"], row["text"]) for row in rows] == [
        (0, 3, "første"),
        (1, 5, "andre\u2028del\x0bdel"),
        (2, 7, "tredje"),
    ]


@pytest.mark.parametrize("arguments", [[], ["-"]])
def test_rank_reads_standard_input(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stdin(monkeypatch, "Sykepleier på Kroken\nPython".encode())
    assert main(["rank", "--json", QUERY, *arguments]) == 0
    assert {row["text"] for row in json.loads(capsys.readouterr().out)} == {"Sykepleier på Kroken", "Python"}


@pytest.mark.parametrize(
    "arguments",
    [
        ["--top-k", "1", QUERY, "{file}"],
        [QUERY, "--top-k", "1", "{file}"],
        [QUERY, "{file}", "--top-k", "1"],
        ["--top-k", "1", "--", QUERY, "{file}"],
    ],
)
def test_options_may_stand_anywhere(arguments: list[str], lines: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["rank", *(argument.format(file=lines) for argument in arguments)]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 2


def test_a_query_may_begin_with_a_dash(lines: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["rank", "--json", "--", "--help", str(lines)]) == 0
    assert len(json.loads(capsys.readouterr().out)) == len(DOCUMENTS)


@pytest.mark.parametrize(
    ("name", "first"), [("cvs.jsonl", '{"text": "en", "id": "a"}'), ("cvs.data", ' \n{"id": "a", "text": "en", "more": [1]}')]
)
def test_json_lines_keep_their_ids(name: str, first: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = write(tmp_path / name, first + '\n\n{"text": "to\\nlinjer", "id": {"n": 2}}\n{"text": ""}\n')
    assert main(["rank", "--json", QUERY, str(file)]) == 0
    rows = sorted(json.loads(capsys.readouterr().out), key=lambda row: row["index"])
    assert [(row["text"], row.get("id")) for row in rows] == [("en", "a"), ("to\nlinjer", {"n": 2}), ("", None)]
    assert "id" not in rows[2]


def test_lines_that_only_look_like_json_are_ranked_when_it_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = write(tmp_path / "notes.txt", '{"title": "no text"}\n[1, 2]\n')
    assert main(["rank", "--json", QUERY, str(file)]) == 2
    assert "--format text takes each line as it stands" in error_line(capsys)
    assert main(["rank", "--json", "--format", "text", QUERY, str(file)]) == 0
    assert {row["text"] for row in json.loads(capsys.readouterr().out)} == {'{"title": "no text"}', "[1, 2]"}


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        (f'{{"text": "{SECRET}"', "not JSON"),
        (f'"{SECRET}"', "expected an object, as the first is, got a string"),
        (f'{{"text": ["{SECRET}"]}}', '"text": expected a string, got an array'),
        (f'{{"title": "{SECRET}"}}', 'no field "text"; it has the key "title"'),
        (f'{{"text": "{SECRET} \\ud800"}}', "lone surrogate at character 9"),
        (f'{{"text": "{SECRET}", "id": {"9" * 5000}}}', "too long"),
        ("[" * 100_000, "nested too deeply"),
    ],
)
def test_a_bad_json_line_is_named_and_not_quoted(
    bad: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write(tmp_path / "bad.jsonl", f'{{"text": "god"}}\n\n{bad}\n')
    assert main(["rank", QUERY, str(file)]) == 2
    error = error_line(capsys)
    assert f"{file}, line 3: " in error
    assert said in error
    assert SECRET not in error


def test_a_document_that_is_too_long_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write(tmp_path / "long.txt", f"kort\n\n{SECRET * 1_250_001}\n")
    assert main(["rank", QUERY, str(file)]) == 2
    error = error_line(capsys)
    assert "line 3: a text of 10000008 characters, more than 10000000" in error
    assert SECRET not in error


def test_input_that_is_not_utf8(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "latin1.txt").write_bytes("abc søk".encode("latin-1"))
    assert main(["rank", QUERY, str(tmp_path / "latin1.txt")]) == 2
    assert "not UTF-8 text at byte 5" in error_line(capsys)


@pytest.mark.parametrize(("name", "said"), [("absent.txt", "No such file"), (".", "Is a directory"), ("nul\0", "null byte")])
def test_a_file_that_cannot_be_read(name: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["rank", QUERY, str(tmp_path / name)]) == 2
    assert said in error_line(capsys)


def test_a_query_that_is_not_unicode(lines: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["rank", "s\udcf8k", str(lines)]) == 2
    assert "query: not valid Unicode, a lone surrogate at character 1" in error_line(capsys)


@pytest.mark.parametrize(("option", "shown"), [([], ""), (["--json"], "[]\n")])
def test_no_documents(
    option: list[str], shown: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stdin(monkeypatch, b"\n \n")
    assert main(["rank", *option, QUERY]) == 0
    captured = capsys.readouterr()
    assert captured.out == shown
    assert captured.err == ("" if option else "raskrank: standard input holds no document\n")


def test_truncated_documents_are_marked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = write(tmp_path / "long.txt", "kort\n" + "langt og lengre enn langt " * 200 + "\n")
    assert main(["rank", QUERY, str(file)]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert shown[0] == "rank   score  line     text"
    marked = {line.split()[2]: "  *  " in line for line in shown[1:3]}
    assert marked == {"1": False, "2": True}
    assert shown[-1] == "* not read to its end: the model reads 512 tokens of query and document"


def test_texts_cannot_command_the_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = write(tmp_path / "evil.jsonl", json.dumps({"text": "a\x1b]0;title\x07b\nc\x9b2J\u202ed", "id": "\x9b"}))
    assert main(["rank", QUERY, str(file)]) == 0
    shown = capsys.readouterr().out
    assert shown.splitlines()[1].endswith("a ]0;title b c 2Jd")
    assert main(["rank", "--json", QUERY, str(file)]) == 0
    raw = capsys.readouterr().out
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", shown + raw)
    assert json.loads(raw)[0]["text"] == "a\x1b]0;title\x07b\nc\x9b2J\u202ed"


def test_rank_with_pytorch(lines: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["rank", "--json", "--backend", "torch", "--checkpoint", str(NANO_CHECKPOINT), QUERY, str(lines)]
    assert main(arguments) == 0
    scores = {row["index"]: row["score"] for row in json.loads(capsys.readouterr().out)}
    expected = Reranker.load().score(QUERY, DOCUMENTS)
    assert [scores[index] for index in range(4)] == pytest.approx(expected.tolist(), abs=0.1)


# scores that are no numbers


@pytest.fixture
def with_broken(tmp_path: Path) -> Path:
    return write(tmp_path / "documents.txt", f"Python\n\n75 {BROKEN} {SECRET}\nSykepleier\n100 {BROKEN}\n")


def test_scores_that_are_no_numbers(broken: Path, with_broken: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["rank", "--bundle", str(broken), QUERY, str(with_broken)]) == 1
    error = error_line(capsys)
    assert "scores are NaN or infinite on lines 3, 5\n" in error
    assert SECRET not in error


def test_fallback_says_what_it_did(broken: Path, with_broken: Path, tiny: Tiny, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--bundle", str(broken), "--fallback", "torch", "--checkpoint", str(tiny.checkpoint())]
    assert main(["rank", "--json", *options, QUERY, str(with_broken)]) == 0
    captured = capsys.readouterr()
    assert len(json.loads(captured.out)) == 4
    assert captured.err == "raskrank: warning: 2 of 4 logits were not finite and were computed by PyTorch instead\n"
    assert [type(handler) for handler in logging.getLogger("raskrank").handlers] == [logging.NullHandler]
