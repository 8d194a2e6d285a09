"""`raskrank score` on files of text: every row with its score, all else as it was, and what is wrong said by its place."""

import csv
import io
import json
import re
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from command import SECRET, error_line, write
from pairs import parts, read_jsonl, rows, write_jsonl
from raskrank import Reranker, Windows
from raskrank.bulk.job import Settings
from raskrank.bulk.sources import PIECE, PIECES, find
from raskrank.cli.main import main
from raskrank.errors import InputError

pytestmark = pytest.mark.usefixtures("no_surroundings")


def scored(output: Path, inputs: Sequence[Path], *options: str) -> Path:
    assert main(["score", *map(str, inputs), str(output), *options]) == 0
    return output


def test_each_row_gets_the_score_of_its_pair(nano: Reranker, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    items = rows(50)
    out = scored(tmp_path / "out", [write_jsonl(tmp_path / "pairs.jsonl", items)], "--part-rows", "20")
    pairs = [(item["query"], item["document"]) for item in items]
    expected = nano.assess(pairs)
    found = read_jsonl(out)
    assert [item["id"] for item in found] == [*range(50)]
    assert [np.float32(item["score"]) for item in found] == [np.float32(hit.score) for hit in expected]
    assert [item["truncated"] for item in found] == [hit.truncated for hit in expected]
    assert len(parts(out)) == 3
    said = capsys.readouterr().out
    assert f"50 pairs, {sum(nano.assess(pairs[at : at + 20]).tokens for at in (0, 20, 40)):,} tokens" in said
    assert "parts: 3 written, 0 done before" in said


def test_a_line_of_json_is_kept_byte_for_byte(tmp_path: Path) -> None:
    lines = [
        '{"query": "a",  "document": "b", "price": 1e5, "big": 12345678901234567890, "text": "\\u00e5"}  ',
        '\t{"z": [1.0, {"score": null}], "document":"b" , "query":"a"}\r',
    ]
    out = scored(tmp_path / "out", [write(tmp_path / "pairs.jsonl", "\n\n".join(lines) + "\n")])
    written = parts(out)[0].read_text("utf-8").splitlines()
    for before, after in zip(lines, written, strict=True):
        assert after.startswith(before.rstrip().removesuffix("}").rstrip() + ", ")
        assert {*json.loads(after)} == {*json.loads(before), "score", "truncated"}


@pytest.mark.parametrize("size", [1, 2, 3, 100])
@pytest.mark.parametrize("mark", ["", "\ufeff"], ids=["plain", "byte order mark"])
def test_parts_of_csv_begin_where_rows_do(size: int, mark: str, tmp_path: Path) -> None:
    text = 'query;document;"two\nlines"\n\n"one ""quoted""";"across\nlines; and more";x\n\ufeffq2;å;y\n\n;;\nq4;d4;æ\n'
    file = write(tmp_path / "pairs.csv", (mark or "\n") + text)
    out = scored(tmp_path / "out", [file], "--part-rows", str(size))
    written = [list(csv.reader(io.StringIO(part.read_text("utf-8")), delimiter=";")) for part in parts(out)]
    assert all(part[0] == ["query", "document", "two\nlines", "score", "truncated"] for part in written)
    assert [row[:3] for part in written for row in part[1:]] == [
        ['one "quoted"', "across\nlines; and more", "x"],
        ["\ufeffq2", "å", "y"],
        ["", "", ""],
        ["q4", "d4", "æ"],
    ]
    assert len(written) == -(-4 // size)


def test_tsv_has_no_quotes(tmp_path: Path) -> None:
    out = scored(tmp_path / "out", [write(tmp_path / "pairs.tsv", 'query\tdocument\n"a\t5" long\nb\tc\n')])
    lines = parts(out)[0].read_text("utf-8").splitlines()
    assert [line.split("\t")[:2] for line in lines] == [["query", "document"], ['"a', '5" long'], ["b", "c"]]


def test_windows_say_where_they_are(nano: Reranker, tmp_path: Path) -> None:
    items = [{"query": "Hvem kan Python?", "document": "Noe helt annet. " * 400 + "Utvikler med erfaring i Python"}, *rows(3)]
    options = ["--long-documents", "windows", "--max-windows", "30", "--overlap", "32", "--raw-scores"]
    out = scored(tmp_path / "out", [write_jsonl(tmp_path / "pairs.jsonl", items)], *options)
    pairs = [(str(item["query"]), str(item["document"])) for item in items]
    expected = nano.assess(pairs, raw_scores=True, long_documents=Windows(max_windows=30, overlap=32))
    found = [(np.float32(item["score"]), (item["span_start"], item["span_end"])) for item in read_jsonl(out)]
    assert found == [(np.float32(hit.score), hit.span) for hit in expected]
    assert found[0][1] != (0, len(pairs[0][1]))


def test_names_of_columns_can_be_given(tmp_path: Path) -> None:
    file = write_jsonl(tmp_path / "pairs.jsonl", [{"q": "a", "d": "b", "score": 7}])
    out = scored(tmp_path / "out", [file], "--query-column", "q", "--document-column", "d", "--prefix", "new_")
    (item,) = read_jsonl(out)
    assert {*item} == {"q", "d", "score", "new_score", "new_truncated"}
    assert item["score"] == 7


def test_a_folder_is_read_in_the_order_of_its_paths_and_keeps_its_shape(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    for name in ("b.jsonl", "lang=no/a.jsonl", "lang=no/_old/c.jsonl", ".hidden.jsonl", "notes.txt"):
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        write_jsonl(file, [{"query": name, "document": name}])
    more = write_jsonl(tmp_path / "more.ndjson", [{"query": "more", "document": "more"}])
    out = scored(tmp_path / "out", [folder, more])
    found = {part.relative_to(out).as_posix(): json.loads(part.read_text("utf-8"))["query"] for part in parts(out)}
    assert found == {
        "part-00000-00000-00000.jsonl": "b.jsonl",
        "lang=no/part-00001-00000-00000.jsonl": "lang=no/a.jsonl",
        "part-00002-00000-00000.jsonl": "more",
    }


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("p.jsonl", '{"query": "a", "document": "b", "score": 1}', 'p.jsonl, line 1: has a column "score" already; --prefix'),
        ("p.jsonl", '{"query": "a", "document": "b"}\n{"query": "a", "document": "b", "truncated": 1}', "p.jsonl, line 2"),
        ("p.jsonl", '{"question": "a", "document": "b"}', 'line 1: no column is called "query"; it has the keys'),
        ("p.jsonl", '["a", "b"]', "line 1: expected an object, got an array"),
        ("p.jsonl", '{"query": "a", "document": "b"}\n\n{"query": "a"}', 'line 3: "document" is null; '),
        ("p.jsonl", '{"query": "a", "document": "b"}\n{"query": 7, "document": "b"}', 'line 2: "query" is no text, but int'),
        ("p.jsonl", '{"query": "a", "document": "b"}\n{"query": "\\ud800", "document": "b"}', "line 2: .*lone surrogate"),
        ("p.jsonl", '{"query": "a", "document": "b"}\n{', "line 2: not JSON"),
        ("p.csv", "query,document,score\na,b,c\n", 'p.csv, row 1: has a column "score" already'),
        ("p.csv", "query,other\na,b\n", 'row 1: no column is called "document"; it has 2 fields and must be the header'),
        ("p.csv", "query,document,query\na,b,c\n", 'row 1: several columns are called "query"'),
        ("p.csv", "query,document,x,x\na,b,c,d\n", "row 1: two columns have the same name"),
        ("p.csv", "query,document\na,b\nc\n", "row 3: 1 fields, the header has 2"),
        ("p.txt", "a\tb", "p.txt: its name does not say what it is; say --format parquet, jsonl, csv, tsv"),
    ],
)
def test_what_is_wrong_is_said_by_its_place(
    name: str, text: str, says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write(tmp_path / name, text.replace('"b"', f'"{SECRET}"').replace(",b", f",{SECRET}"))
    assert main(["score", str(file), str(tmp_path / "out"), "--part-rows", "1"]) == 2
    said = capsys.readouterr().err
    assert SECRET not in said
    assert re.search(says, said)


def test_rows_without_texts_can_get_a_null(nano: Reranker, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    texts = ['"b"', "null", "[1]", '"\\ud800"', '"d"']
    file = write(
        tmp_path / "p.jsonl", "".join(f'{{"query": "a", "document": {text}}}\n' for text in texts) + '{"query": "a"}\n'
    )
    found = read_jsonl(scored(tmp_path / "out", [file], "--bad-rows", "null"))
    expected = [float(str(score)) for score in nano.score("a", ["b", "d"])]
    assert [item["score"] for item in found] == [expected[0], None, None, None, expected[1], None]
    assert [item["truncated"] for item in found] == [False, None, None, None, False, None]
    assert "4 rows have no text" in capsys.readouterr().out


def test_a_score_that_is_no_number_ends_the_run_or_is_null(
    broken: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    items = [{"query": "a", "document": text} for text in ("b", "en kvittering", "c")]
    file = write_jsonl(tmp_path / "p.jsonl", items)
    options = ["--bundle", str(broken), "--backend", "onnx"]
    assert main(["score", str(file), str(tmp_path / "out"), *options]) == 1
    assert "p.jsonl, line 2: the score is NaN or infinite; " in error_line(capsys)
    found = read_jsonl(scored(tmp_path / "out", [file], *options, "--bad-rows", "null"))
    assert [item["score"] is None for item in found] == [False, True, False]


@pytest.mark.parametrize("inside", ["in", "in/out"])
def test_an_output_within_the_input_is_refused(inside: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "in").mkdir()
    write_jsonl(tmp_path / "in" / "p.jsonl", rows(1))
    assert main(["score", str(tmp_path / "in"), str(tmp_path / inside)]) == 2
    assert "OUTPUT lies in the folder of the input" in error_line(capsys)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["p.jsonl"], "OUTPUT is missing: score INPUT... OUTPUT"),
        (["out", "--ray", "p.jsonl"], "p.jsonl was taken for the address of a cluster: write --ray at the end"),
        (["p.jsonl", "out", "--overlap", "3"], "--overlap: there are windows only with --long-documents windows"),
        (["p.jsonl", "out", "--prefix", "q", "--query-column", "qscore"], '"qscore" is read, and the name of a column that is'),
        (["p.jsonl", "out", "--query-column", "document"], 'the columns of query and document are one, "document"'),
        (["absent.jsonl", "out"], "absent.jsonl: cannot be read: No such file"),
    ],
)
def test_wrong_use_is_refused(
    arguments: list[str], says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_jsonl(tmp_path / "p.jsonl", rows(1))
    assert main(["score", *arguments]) == 2
    assert says in error_line(capsys)
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(find_spec("ray") is not None, reason="Ray is installed")
def test_what_ray_needs_is_asked_for_before_anything_begins(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = write_jsonl(tmp_path / "p.jsonl", rows(1))
    assert main(["score", str(file), str(tmp_path / "out"), "--ray"]) == 2
    assert "pip install 'raskrank[ray]'" in error_line(capsys)
    assert not (tmp_path / "out").exists()


def test_paths_may_stand_around_options(tmp_path: Path) -> None:
    file = write_jsonl(tmp_path / "p.jsonl", rows(1))
    assert main(["score", str(file), "--threads", "1", str(tmp_path / "out")]) == 0
    assert len(read_jsonl(tmp_path / "out")) == 1


@pytest.mark.parametrize("name", ["p.jsonl", "p.csv"])
def test_a_file_without_rows_has_no_part(name: str, tmp_path: Path) -> None:
    out = scored(tmp_path / "out", [write(tmp_path / name, "\n")])
    assert parts(out) == []


def test_a_copy_is_the_same_input_and_a_changed_file_is_not(tmp_path: Path) -> None:
    content = bytearray(PIECES * PIECE * 3)
    file = tmp_path / "p.jsonl"
    file.write_bytes(content)
    (first,) = find([file], tmp_path / "out", None)
    copy = tmp_path / "copies" / "p.jsonl"
    copy.parent.mkdir()
    copy.write_bytes(content)
    assert find([copy], tmp_path / "out", None)[0].identity() == first.identity()
    for place in (0, len(content) - 1):
        content[place] = 1
        copy.write_bytes(content)
        assert find([copy], tmp_path / "out", None)[0].identity() != first.identity()
        content[place] = 0


def test_settings_are_checked() -> None:
    with pytest.raises(InputError, match="bad_rows"):
        Settings(bad_rows="nill")  # type: ignore[arg-type]
