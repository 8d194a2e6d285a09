"""The command line as a user meets it: output, exit codes, errors, terminals, signals."""

import fcntl
import io
import json
import logging
import math
import os
import pty
import re
import select
import shlex
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

import bundles
import raskrank
from conftest import BROKEN, Tiny
from paths import NANO_CHECKPOINT
from raskrank import Reranker, terminal
from raskrank.bundle import read_manifest
from raskrank.cli.main import main
from raskrank.manifest import Precision

QUERY = "Hvem kan Python?"
DOCUMENTS = ["Sykepleier i turnus", "Utvikler med erfaring i Python", "Dyrepasser", "Elektriker i Bergen"]
SECRET = "HEMMELIG"
EXECUTABLE = str(Path(sys.executable).with_name("raskrank"))
DEADLINE = 60
# A child of a background job inherits that SIGINT is ignored; this one does not.
INTERRUPTIBLE = [
    sys.executable,
    "-c",
    "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler);"
    "from raskrank.cli.main import main; sys.exit(main())",
]


@pytest.fixture(autouse=True)
def _no_surroundings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RASKRANK_MODEL", raising=False)
    monkeypatch.setenv("COLUMNS", "80")


@pytest.fixture
def lines(tmp_path: Path) -> Path:
    return _write(tmp_path / "documents.txt", "\n".join(DOCUMENTS) + "\n")


def _write(file: Path, text: str) -> Path:
    file.write_text(text, "utf-8", newline="")
    return file


def _stdin(monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))


def _run(*arguments: str, env: Mapping[str, str] | None = None, input: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    command = [EXECUTABLE, *arguments]
    return subprocess.run(command, input=input, capture_output=True, timeout=DEADLINE, env=env, check=False)


def _error(capsys: pytest.CaptureFixture[str]) -> str:
    """What a failed command said: one line on standard error, and nothing on standard output."""
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("raskrank: ")
    assert captured.err.count("\n") == 1
    return captured.err


def edited(tiny: Tiny, folder: Path, precision: Precision = "int8", **updates: object) -> Path:
    """A bundle with a manifest that says other things."""
    return bundles.edit(bundles.copy_bundle(tiny.bundle("bert", precision), folder / "edited"), **updates)


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
    file = _write(tmp_path / "ties.txt", "\n".join(["Dyrepasser", "Utvikler i Python", "Dyrepasser", "Dyrepasser"]))
    assert main(["rank", "--json", QUERY, str(file)]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["line"] for row in rows if row["text"] == "Dyrepasser"] == [1, 3, 4]


def test_lines_keep_their_numbers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = _write(tmp_path / "odd.txt", "\ufeff\n\nførste\r\n \t \nandre\u2028del\x0bdel\n\ntredje")
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
    _stdin(monkeypatch, "Sykepleier på Kroken\nPython".encode())
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
    file = _write(tmp_path / name, first + '\n\n{"text": "to\\nlinjer", "id": {"n": 2}}\n{"text": ""}\n')
    assert main(["rank", "--json", QUERY, str(file)]) == 0
    rows = sorted(json.loads(capsys.readouterr().out), key=lambda row: row["index"])
    assert [(row["text"], row.get("id")) for row in rows] == [("en", "a"), ("to\nlinjer", {"n": 2}), ("", None)]
    assert "id" not in rows[2]


def test_lines_that_only_look_like_json_are_ranked_when_it_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = _write(tmp_path / "notes.txt", '{"title": "no text"}\n[1, 2]\n')
    assert main(["rank", "--json", QUERY, str(file)]) == 2
    assert "--format text takes each line as it stands" in _error(capsys)
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
    file = _write(tmp_path / "bad.jsonl", f'{{"text": "god"}}\n\n{bad}\n')
    assert main(["rank", QUERY, str(file)]) == 2
    error = _error(capsys)
    assert f"{file}, line 3: " in error
    assert said in error
    assert SECRET not in error


def test_a_document_that_is_too_long_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = _write(tmp_path / "long.txt", f"kort\n\n{SECRET * 1_250_001}\n")
    assert main(["rank", QUERY, str(file)]) == 2
    error = _error(capsys)
    assert "line 3: a text of 10000008 characters, more than 10000000" in error
    assert SECRET not in error


def test_input_that_is_not_utf8(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "latin1.txt").write_bytes("abc søk".encode("latin-1"))
    assert main(["rank", QUERY, str(tmp_path / "latin1.txt")]) == 2
    assert "not UTF-8 text at byte 5" in _error(capsys)


@pytest.mark.parametrize(("name", "said"), [("absent.txt", "No such file"), (".", "Is a directory"), ("nul\0", "null byte")])
def test_a_file_that_cannot_be_read(name: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["rank", QUERY, str(tmp_path / name)]) == 2
    assert said in _error(capsys)


def test_a_query_that_is_not_unicode(lines: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["rank", "s\udcf8k", str(lines)]) == 2
    assert "query: not valid Unicode, a lone surrogate at character 1" in _error(capsys)


@pytest.mark.parametrize(("option", "shown"), [([], ""), (["--json"], "[]\n")])
def test_no_documents(
    option: list[str], shown: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _stdin(monkeypatch, b"\n \n")
    assert main(["rank", *option, QUERY]) == 0
    captured = capsys.readouterr()
    assert captured.out == shown
    assert captured.err == ("" if option else "raskrank: standard input holds no document\n")


def test_truncated_documents_are_marked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = _write(tmp_path / "long.txt", "kort\n" + "langt og lengre enn langt " * 200 + "\n")
    assert main(["rank", QUERY, str(file)]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert shown[0] == "rank   score  line     text"
    marked = {line.split()[2]: "  *  " in line for line in shown[1:3]}
    assert marked == {"1": False, "2": True}
    assert shown[-1] == "* not read to its end: the model reads 512 tokens of query and document"


def test_texts_cannot_command_the_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = _write(tmp_path / "evil.jsonl", json.dumps({"text": "a\x1b]0;title\x07b\nc\x9b2J\u202ed", "id": "\x9b"}))
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
    return _write(tmp_path / "documents.txt", f"Python\n\n75 {BROKEN} {SECRET}\nSykepleier\n100 {BROKEN}\n")


def test_scores_that_are_no_numbers(broken: Path, with_broken: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["rank", "--bundle", str(broken), QUERY, str(with_broken)]) == 1
    error = _error(capsys)
    assert "scores are NaN or infinite on lines 3, 5\n" in error
    assert SECRET not in error


def test_fallback_says_what_it_did(broken: Path, with_broken: Path, tiny: Tiny, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--bundle", str(broken), "--fallback", "torch", "--checkpoint", str(tiny.checkpoint())]
    assert main(["rank", "--json", *options, QUERY, str(with_broken)]) == 0
    captured = capsys.readouterr()
    assert len(json.loads(captured.out)) == 4
    assert captured.err == "raskrank: warning: 2 of 4 logits were not finite and were computed by PyTorch instead\n"
    assert [type(handler) for handler in logging.getLogger("raskrank").handlers] == [logging.NullHandler]


# info


def test_info(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info"]) == 0
    shown = capsys.readouterr().out
    assert str(Reranker.load().info()) in shown
    parity = Reranker.load()._loaded.manifest.parity["int8"]  # type: ignore[union-attr]
    (row,) = (line.split() for line in shown.splitlines() if line.startswith("onnx int8"))
    assert row[2] == f"{parity['tau']:.4f}"
    assert row[-1] == str(parity["pairs"])
    assert all(len(line) <= 80 for line in shown.partition("parity with")[2].splitlines())


def test_info_json(tiny: Tiny, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", "--json", "--bundle", str(tiny.bundle())]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["bundle"] == str(tiny.bundle())
    assert shown["parity"]["thresholds"]["min_tau"] == -1
    assert shown["versions"]["raskrank"] == raskrank.__version__


def test_names_in_a_manifest_cannot_command_the_terminal(
    tiny: Tiny, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = edited(tiny, tmp_path, name="evil\x1b[2J")
    assert main(["info", "--bundle", str(folder)]) == 0
    shown = capsys.readouterr().out
    assert "evil [2J" in shown
    assert "\x1b" not in shown


def test_info_without_parity_numbers(tiny: Tiny, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = edited(tiny, tmp_path, parity={"fp32": 3, "int8": {"tau": "high"}})
    assert main(["info", "--bundle", str(folder)]) == 0
    assert "parity with" not in capsys.readouterr().out


# bundles that cannot be used


@pytest.mark.parametrize("command", [["rank", QUERY, "-"], ["info"], ["verify"]])
def test_no_such_bundle(command: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    _stdin(monkeypatch, b"Python")
    assert main([*command, "--bundle", "nowhere"]) == 2
    assert "no bundle at nowhere; make one with: raskrank export" in _error(capsys)


@pytest.mark.parametrize("command", [["rank", QUERY, "-"], ["info"], ["verify"]])
def test_a_broken_bundle(
    command: list[str], tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _stdin(monkeypatch, b"Python")
    folder = edited(tiny, tmp_path, max_length="long")
    assert main([*command, "--bundle", str(folder)]) == 1
    assert "max_length: expected int" in _error(capsys)


def test_an_error_of_the_system(tiny: Tiny, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def refuse(path: Path) -> bytes:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "read_bytes", refuse)
    assert main(["info", "--bundle", str(tiny.bundle())]) == 1
    assert _error(capsys) == f"raskrank: error: {tiny.bundle() / 'manifest.json'}: Permission denied\n"


# verify


def test_verify_passes(tiny: Tiny, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--bundle", str(tiny.bundle("bert", "fp32")), "--checkpoint", str(tiny.checkpoint())]
    assert main(["verify", *options, "--pairs", str(tiny.samples)]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert shown[0] == "onnx fp32 against torch fp32, 12 pairs of 3 queries"
    assert shown[-1] == "passed: max_fp32_error 10"


def test_verify_json_says_the_same_as_the_library(tiny: Tiny, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pairs = [(query, f"{word} nummer {number}") for query in ("Oslo", "båt") for word in ("Bil", "By") for number in range(9)]
    file = _write(tmp_path / "pairs.tsv", "".join(f"{query}\t{document}\n" for query, document in pairs))
    options = ["--bundle", str(tiny.bundle()), "--checkpoint", str(tiny.checkpoint()), "--pairs", str(file)]
    assert main(["verify", "--json", *options]) == 0
    shown = json.loads(capsys.readouterr().out)
    expected = Reranker.load(tiny.bundle(), checkpoint=tiny.checkpoint()).verify(pairs)
    assert shown["parity"] == expected.summary()
    assert shown["passed"] is True
    assert shown["failed"] == []
    assert shown["thresholds"] == {"min_tau": -1, "min_top1": 0, "max_drift": 1, "max_mean_drift": 1}


@pytest.mark.parametrize("as_json", [False, True])
def test_verify_fails_below_the_thresholds(
    as_json: bool, tiny: Tiny, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = edited(tiny, tmp_path, parity__thresholds__max_drift=0, parity__thresholds__max_mean_drift=0.0)
    options = ["--bundle", str(folder), "--checkpoint", str(tiny.checkpoint()), "--pairs", str(tiny.samples)]
    assert main(["verify", *options, *(["--json"] if as_json else [])]) == 1
    captured = capsys.readouterr()
    assert re.fullmatch(
        r"raskrank: error: \S+: the bundle differs from its checkpoint: largest score drift [\d.e-]+, allowed <= 0; "
        r"mean score drift [\d.e-]+, allowed <= 0\n",
        captured.err,
    )
    if as_json:
        assert json.loads(captured.out)["failed"] == ["max_drift", "max_mean_drift"]
    else:
        assert captured.out.startswith("onnx int8 against torch fp32, 12 pairs")
        assert "passed" not in captured.out
        assert captured.out.splitlines()[-1].startswith("failed: largest score drift")


@pytest.mark.filterwarnings("ignore:invalid value encountered")
def test_verify_fails_on_nan(broken: Path, tiny: Tiny, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pairs = _write(tmp_path / "pairs.tsv", f"a\t75 {BROKEN}\na\tb\nc\td\nc\te\n")
    options = ["--bundle", str(broken), "--checkpoint", str(tiny.checkpoint()), "--pairs", str(pairs)]
    assert main(["verify", "--json", *options]) == 1
    captured = capsys.readouterr()
    assert json.loads(captured.out)["parity"]["max_logit_difference"] is None
    assert "in multiples of what fp32 itself rounds, nan, allowed" in captured.err


@pytest.mark.parametrize("thresholds", [None, {}, {"max_fp32_error": True}])
def test_verify_needs_recorded_thresholds(
    thresholds: object, tiny: Tiny, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = edited(tiny, tmp_path, "fp32", parity__thresholds=thresholds)
    assert main(["verify", "--bundle", str(folder)]) == 1
    assert "the manifest does not record the thresholds of its export" in _error(capsys)


def test_verify_refuses_another_checkpoint(tiny: Tiny, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--bundle", str(tiny.bundle()), "--checkpoint", str(NANO_CHECKPOINT), "--pairs", str(tiny.samples)]
    assert main(["verify", *options]) == 1
    assert "its weights are not those" in _error(capsys)


def test_verify_refuses_bad_pairs(tiny: Tiny, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = _write(tmp_path / "pairs.jsonl", f'{{"query": "{SECRET}"}}\n')
    assert main(["verify", "--bundle", str(tiny.bundle()), "--pairs", str(file)]) == 2
    error = _error(capsys)
    assert f"{file}, line 1" in error
    assert SECRET not in error


# export


def test_export_prints_its_report(tiny: Tiny, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "bundle"
    options = ["--precision", "fp32", "--max-length", "32", "--samples", str(tiny.samples)]
    assert main(["export", str(tiny.checkpoint()), *options, str(output)]) == 0
    captured = capsys.readouterr()
    assert captured.out.endswith(f"written to {output}\nuse it with RASKRANK_MODEL={output}\n")
    assert captured.err == ""
    assert Reranker.load(output).info().max_length == 32
    assert main(["export", str(tiny.checkpoint()), str(output)]) == 1
    assert "--overwrite" in _error(capsys)


def test_export_json_and_progress(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Tty(io.StringIO):
        def isatty(self) -> bool:
            return True

    stderr = Tty()
    monkeypatch.setattr(sys, "stderr", stderr)
    options = ["--precision", "fp32", "--samples", str(tiny.samples), "--overwrite", "--json"]
    assert main(["export", str(tiny.checkpoint()), str(tmp_path / "bundle"), *options]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["manifest"]["precision"] == "fp32"
    steps = [line.rsplit("\r", 1)[-1] for line in stderr.getvalue().split("\n")]
    assert [re.split(r" {2,}", line)[0] for line in steps if line] == [*report["seconds"]]
    assert re.fullmatch(r"read checkpoint +[\d.]+ s", next(line for line in steps if line))


def test_export_whose_int8_ranks_differently(tiny: Tiny, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "bundle"
    options = ["--samples", str(tiny.samples), "--max-drift", "0", "--min-tau", "-1"]
    assert main(["export", str(tiny.checkpoint()), str(output), *options]) == 0
    assert "NOT QUANTIZED: every form of int8 failed, so the bundle is fp32" in capsys.readouterr().out
    assert read_manifest(output)[0].precision == "fp32"


def test_export_of_something_else(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", str(tmp_path / "nothing"), str(tmp_path / "bundle")]) == 1
    assert "There is no folder" in _error(capsys)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--samples", "absent.jsonl"], "absent.jsonl: cannot be read"),
        (["--min-tau", "2"], "min_tau: expected a number from -1 to 1"),
        (["--max-drift", "nan"], "max_drift: expected a number from 0 to 1"),
        (["--max-length", "1000000"], "max_length: expected 5 to 128 tokens"),
    ],
)
def test_export_refuses_wrong_options(
    options: list[str], said: str, tiny: Tiny, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export", str(tiny.checkpoint()), str(tmp_path / "bundle"), *options]) == 2
    assert said in _error(capsys)
    assert not (tmp_path / "bundle").exists()


@pytest.mark.parametrize(
    "command",
    [
        ["export", "model", "bundle"],
        ["verify"],
        ["rank", "--backend", "torch", QUERY, "absent.txt"],
        ["compare", "--against", "torch", "--data", "absent"],
    ],
)
def test_without_the_extra(command: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    assert main(command) == 2
    error = _error(capsys)
    assert "needs torch; " in error
    assert "pip install 'raskrank[export]'" in error


# arguments and help


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["frank"], "invalid choice: 'frank'"),
        (["rank"], "required: QUERY"),
        (["rank", QUERY, "a", "b"], "unrecognized arguments"),
        (["rank", QUERY, "--top", "3"], "unrecognized arguments: --top"),
        (["rank", "--top-k", "0", QUERY], "--top-k: expected a whole number of at least 1, got '0'"),
        (["rank", "--threads", "two", QUERY], "--threads: expected a whole number"),
        (["rank", "--backend", "tensorflow", QUERY], "--backend: invalid choice"),
        (["rank", "--fallback", "onnx", QUERY], "--fallback: invalid choice"),
        (["export", "model"], "OUTPUT is missing"),
        (["export", "owner/model", "--trim-vocab", "a.txt"], "in the cache a trimmed bundle would stand for the whole model"),
        (["export", "model", "bundle", "--precision", "int4"], "--precision: invalid choice"),
        (["info", "bundle"], "unrecognized arguments: bundle"),
        (["info", "two\nlines\x1b[2J"], "unrecognized arguments: two lines [2J"),
    ],
)
def test_wrong_arguments(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    assert said in _error(capsys)


def test_no_command_prints_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("usage: raskrank")


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"raskrank {raskrank.__version__}\n"


@pytest.mark.parametrize("command", [[], ["export"], ["rank"], ["info"], ["verify"], ["bench"]])
def test_help(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*command, "--help"]) == 0
    shown = capsys.readouterr().out
    assert "example:\n  raskrank " in shown
    assert max(map(len, shown.splitlines())) <= 80
    if command:
        assert re.findall(r"^  (\d+)  +\S", shown.partition("exit codes:\n")[2], re.MULTILINE) == ["0", "1", "2", "130"]
        assert re.search(rf"  raskrank {command[0]} ", shown.partition("example:")[2])


# processes


@pytest.mark.parametrize("command", [[EXECUTABLE], [sys.executable, "-m", "raskrank"]])
def test_entry_points(command: list[str], lines: Path) -> None:
    done = subprocess.run(
        [*command, "rank", "--json", QUERY, str(lines)], capture_output=True, timeout=DEADLINE, check=True, text=True
    )
    assert len(json.loads(done.stdout)) == len(DOCUMENTS)
    assert done.stderr == ""


def test_no_terminal_no_progress(tmp_path: Path) -> None:
    done = _run("rank", QUERY, "-", input=b"Python\n" * 300)
    assert done.returncode == 0
    assert done.stderr == b""
    assert len(done.stdout.splitlines()) == 301


@pytest.mark.parametrize("settings", [{}, {"PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}, {"PYTHONIOENCODING": "latin-1"}])
def test_utf8_where_the_locale_is_c(settings: dict[str, str]) -> None:
    done = _run("rank", "abc", input="Tromsø 日本".encode(), env={"LC_ALL": "C", **settings})
    assert done.returncode == 0
    assert done.stdout.decode("utf-8").splitlines()[1].endswith("Tromsø 日本")


@pytest.mark.parametrize("option", [[], ["--json"]])
def test_a_reader_that_leaves_is_no_error(option: list[str], tmp_path: Path) -> None:
    file = _write(tmp_path / "many.txt", ("Python " * 8 + "\n") * 1000)
    process = subprocess.Popen([EXECUTABLE, "rank", *option, QUERY, str(file)], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stderr is not None
    with process:
        process.stdout.readline()
        process.stdout.close()
        said = process.stderr.read()
        assert process.wait(timeout=DEADLINE) == 0
    assert said == b""


def test_a_failed_check_stays_one_when_the_reader_leaves(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = edited(tiny, tmp_path, parity__thresholds__max_drift=0)
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as stdout:
        monkeypatch.setattr(sys, "stdout", stdout)
        options = ["--bundle", str(folder), "--checkpoint", str(tiny.checkpoint()), "--pairs", str(tiny.samples)]
        assert main(["verify", *options]) == 1
    assert "largest score drift" in capsys.readouterr().err


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_an_error(lines: Path) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [EXECUTABLE, "rank", QUERY, str(lines)], stdout=full, stderr=subprocess.PIPE, timeout=DEADLINE, check=False
        )
    assert done.returncode == 1
    assert done.stderr == b"raskrank: error: standard output: No space left on device\n"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["rank", "--help"], ["info"], ["info", "--json"]])
def test_help_into_a_full_disk_is_an_error(arguments: list[str]) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run([EXECUTABLE, *arguments], stdout=full, stderr=subprocess.PIPE, timeout=DEADLINE, check=False)
    assert done.returncode == 1
    assert done.stderr == b"raskrank: error: standard output: No space left on device\n"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("arguments", [[], ["rank", QUERY, "absent.txt"]])
def test_messages_into_a_full_disk_change_no_exit_code(arguments: list[str]) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run([EXECUTABLE, *arguments], stdout=full, stderr=full, timeout=DEADLINE, check=False)
    assert done.returncode == 2


def test_nothing_that_is_printed_gets_into_a_file_that_is_written(tmp_path: Path) -> None:
    code = (
        "import os; from raskrank.cli.main import main; main(['--version']); print(os.open('file', os.O_CREAT | os.O_WRONLY))"
    )
    script = f"{shlex.quote(sys.executable)} -c {shlex.quote(code)} <&- 2>&-"
    done = subprocess.run(["sh", "-c", script], cwd=tmp_path, capture_output=True, timeout=DEADLINE, check=True)
    assert int(done.stdout.split()[-1]) > 2


@pytest.mark.parametrize(
    "command",
    [
        ["rank", QUERY, "{name}"],
        ["rank", QUERY, "-", "--bundle", "{name}"],
        ["info", "--bundle", "{name}"],
        ["info", "--bundle", "owner/{name}"],
        ["verify", "--pairs", "{name}"],
        ["export", "model", "bundle", "--samples", "{name}"],
        ["compare", "--data", "{name}"],
        ["bench", "--texts", "{name}"],
        ["bench", "{name}"],
    ],
)
@pytest.mark.parametrize("name", ["a" * 300, "a/" * 5000, "nul\0", "\udcff", "two\nlines\x1b[2J"], ids=ascii)
def test_odd_names_are_an_error_line(
    name: str, command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _stdin(monkeypatch, b"Python")
    monkeypatch.setenv("RASKRANK_CACHE", str(tmp_path))
    assert main([part.format(name=name) for part in command]) in (1, 2)
    assert len(_error(capsys)) < 2500


def test_closed_standard_streams(lines: Path) -> None:
    command = f"{shlex.quote(EXECUTABLE)} rank x"
    for redirection, code in ((f"{shlex.quote(str(lines))} >&-", 0), ("<&-", 2), ("absent.txt 2>&-", 2)):
        done = subprocess.run(["sh", "-c", f"{command} {redirection}"], capture_output=True, timeout=DEADLINE, check=False)
        assert done.returncode == code
        assert b"Traceback" not in done.stdout + done.stderr


def test_interrupted_while_it_reads(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [*INTERRUPTIBLE, "rank", QUERY], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    with process:
        process.stdin.write(b"Python\n" * 100_000)  # more than a pipe holds: it comes through when the other side reads
        process.stdin.flush()
        time.sleep(0.3)
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=DEADLINE) == 130
        assert process.stdout.read() == b""
        assert process.stderr.read() == b"raskrank: interrupted\n"


# terminals


class Terminal:
    """A pseudo-terminal of `size` columns, and what a process wrote to it."""

    def __init__(self, size: int) -> None:
        self.ours, self.theirs = pty.openpty()
        fcntl.ioctl(self.theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, size, 0, 0))
        self.written = b""

    def read_until(self, done: Callable[[], bool]) -> None:
        """Reads on until `done`, which is asked whenever something came and ten times a second."""
        deadline = time.monotonic() + DEADLINE
        while not done():
            assert time.monotonic() < deadline, self.written
            if select.select([self.ours], [], [], 0.1)[0]:
                self.written += os.read(self.ours, 65536)

    def close(self) -> None:
        os.close(self.ours)
        os.close(self.theirs)


@pytest.fixture
def terminal_of(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int], Terminal]]:
    monkeypatch.delenv("COLUMNS")
    opened: list[Terminal] = []

    def open_terminal(size: int) -> Terminal:
        opened.append(Terminal(size))
        return opened[-1]

    yield open_terminal
    for each in opened:
        each.close()


@pytest.mark.parametrize("size", [40, 80])
def test_the_table_fits_the_terminal(size: int, terminal_of: Callable[[int], Terminal], tmp_path: Path) -> None:
    texts = ["Sykepleier i turnus " * 9, "日本語のテキスト" * 20, "e\u0301" * 200, "❤\ufe0f" * 99, "lang tekst " * 2000]
    file = _write(tmp_path / "documents.txt", "\n".join(texts))
    screen = terminal_of(size)
    process = subprocess.Popen([EXECUTABLE, "rank", QUERY, str(file)], stdout=screen.theirs, stderr=subprocess.PIPE)
    screen.read_until(lambda: process.poll() is not None and not select.select([screen.ours], [], [], 0)[0])
    assert process.stderr is not None
    assert (process.returncode, process.stderr.read()) == (0, b"")
    process.stderr.close()
    shown = screen.written.decode().split("\r\n")
    assert all(terminal.width(line) <= size for line in shown)
    assert sum("…" in line for line in shown) == 5
    assert max(map(terminal.width, shown)) >= size - 2


def test_progress_on_a_terminal_changes_no_result(terminal_of: Callable[[int], Terminal], tmp_path: Path) -> None:
    texts = [f"{word} {number % 150}" for number in range(150) for word in ("Python", "sykepleier")] + ["Python 3"] * 300
    file = _write(tmp_path / "many.txt", "\n".join(texts))
    screen = terminal_of(80)
    process = subprocess.Popen([EXECUTABLE, "rank", "--json", QUERY, str(file)], stdout=subprocess.PIPE, stderr=screen.theirs)
    assert process.stdout is not None
    with process:
        rows = json.loads(process.stdout.read())
        screen.read_until(lambda: process.poll() is not None and not select.select([screen.ours], [], [], 0)[0])
    assert process.returncode == 0
    assert b"ranking" in screen.written
    assert b"/600" in screen.written
    hits = Reranker.load().rank(QUERY, texts)
    assert [(row["index"], row["score"]) for row in rows] == [(hit.index, hit.score) for hit in hits]


def test_interrupted_while_it_ranks(terminal_of: Callable[[int], Terminal], tmp_path: Path) -> None:
    file = _write(tmp_path / "many.txt", ("Python og SQL " * 60 + "\n") * 20_000)
    screen = terminal_of(80)
    process = subprocess.Popen([*INTERRUPTIBLE, "rank", QUERY, str(file)], stdout=subprocess.PIPE, stderr=screen.theirs)
    assert process.stdout is not None
    with process:
        screen.read_until(lambda: b"/20000" in screen.written)
        process.send_signal(signal.SIGINT)
        screen.read_until(lambda: process.poll() is not None and not select.select([screen.ours], [], [], 0)[0])
        assert process.stdout.read() == b""
    assert process.returncode == 130
    assert screen.written.endswith(b"\r\x1b[Kraskrank: interrupted\r\n")
    assert b"Traceback" not in screen.written


def test_nobody_types_documents_by_accident(terminal_of: Callable[[int], Terminal]) -> None:
    done = subprocess.run(
        [EXECUTABLE, "rank", QUERY], stdin=terminal_of(80).theirs, capture_output=True, timeout=DEADLINE, check=False
    )
    assert done.returncode == 2
    assert done.stderr.startswith(b"raskrank: error: no documents: name a FILE")


# attacks


def test_no_hostile_argument_or_file_ends_in_a_traceback() -> None:
    attack = Path(__file__).parent / "attacks" / "command_line.py"
    done = subprocess.run([sys.executable, str(attack), "--count", "25"], capture_output=True, timeout=280, check=False)
    assert done.returncode == 0, done.stdout.decode()
    assert done.stdout.endswith(b"; 0 failed\n")
