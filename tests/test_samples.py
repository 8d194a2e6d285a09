"""The pairs an export is judged on: the set of our own, and files of other people's."""

import json
from collections import Counter
from pathlib import Path

import pytest

from raskrank.errors import InputError
from raskrank.samples import DEFAULT, Sample, as_pairs, read_samples

LINES = [{"query": "a", "documents": ["x", "y"]}, {"query": "b", "documents": ["x", ""]}]
EXPECTED = [Sample("a", ("x", "y")), Sample("b", ("x", ""))]
GOOD = "".join(json.dumps(line) + "\n" for line in LINES)


def write(folder: Path, content: str | bytes, name: str = "samples.jsonl") -> Path:
    file = folder / name
    file.write_bytes(content.encode() if isinstance(content, str) else content)
    return file


# The default set


def test_the_default_set_is_large_and_mixed() -> None:
    samples = read_samples()
    assert len(samples) >= 60
    assert all(4 <= len(sample.documents) <= 8 for sample in samples)
    assert len({sample.query for sample in samples}) == len(samples)
    assert len(as_pairs(samples)) >= 400
    languages = Counter(json.loads(line)["language"] for line in DEFAULT.read_text("utf-8").splitlines())
    assert set(languages) == {"nb", "nn", "en", "mixed"}
    assert min(languages.values()) >= 10


def test_the_default_set_holds_what_applications_meet() -> None:
    texts = [document for _, document in as_pairs(read_samples())]
    assert min(map(len, texts)) <= 20
    assert max(map(len, texts)) >= 1500
    assert any(not text.isascii() and any(ord(character) > 0x1F000 for character in text) for text in texts)  # emoji


def test_the_default_set_says_what_is_relevant() -> None:
    for line in map(json.loads, DEFAULT.read_text("utf-8").splitlines()):
        assert 1 <= len(line["relevant"]) < len(line["documents"])
        assert line["relevant"] == sorted({*line["relevant"]} & {*range(len(line["documents"]))})


# Files


def test_json_lines(tmp_path: Path) -> None:
    assert read_samples(write(tmp_path, GOOD)) == EXPECTED
    assert as_pairs(EXPECTED) == [("a", "x"), ("a", "y"), ("b", "x"), ("b", "")]


@pytest.mark.parametrize(
    "content",
    [
        GOOD.replace("\n", "\r\n").encode(),
        b"\xef\xbb\xbf" + GOOD.encode(),
        GOOD.rstrip("\n").encode(),
        ("\n \n" + GOOD.replace("\n", "\n\n")).encode(),
        GOOD.replace("}", ', "language": "nb", "grade": [1, NaN]}').encode(),
    ],
    ids=["CRLF", "BOM", "no last newline", "blank lines", "other keys"],
)
def test_json_lines_of_other_programs(tmp_path: Path, content: bytes) -> None:
    assert read_samples(write(tmp_path, content)) == EXPECTED


def test_line_separators_inside_a_text_end_no_line(tmp_path: Path) -> None:
    documents = ["a\u2028b", "c\x0bd", "e\u0085f"]
    line = json.dumps({"query": "q", "documents": documents}, ensure_ascii=False)
    other = json.dumps({"query": "r", "documents": ["x", "y"]})
    assert read_samples(write(tmp_path, f"{line}\n{other}\n"))[0].documents == tuple(documents)


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("start", ["", "\ufeff"])
def test_tsv(tmp_path: Path, start: str, end: str) -> None:
    content = start + "".join(f"{line}{end}" for line in ("a\tx", "b\tx", "", "a\ty", "b\t"))
    assert read_samples(write(tmp_path, content, "samples.tsv")) == EXPECTED


def test_lines_of_one_query_form_a_query(tmp_path: Path) -> None:
    lines = [{"query": query, "documents": [document]} for query in ("a", "b") for document in ("x", "y")]
    file = write(tmp_path, "".join(json.dumps(line) + "\n" for line in lines))
    assert len(as_pairs(read_samples(file))) == 4


# Errors


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "not JSON: Expecting property name"),
        ("a\tb", "not JSON: Expecting value"),
        ("[" * 100_000, "JSON with numbers that are too long, or nested too deeply"),
        ("[]", 'expected {"query": text, "documents": [text, ...]}'),
        ('"a"', 'expected {"query": text, "documents": [text, ...]}'),
        ("{}", 'expected {"query": text, "documents": [text, ...]}'),
        ('{"query": 1, "documents": ["x", "y"]}', 'expected {"query": text, "documents": [text, ...]}'),
        ('{"query": null, "documents": ["x", "y"]}', 'expected {"query": text, "documents": [text, ...]}'),
        ('{"query": "secret"}', '"documents" must be a list of texts'),
        ('{"query": "secret", "documents": "secret"}', '"documents" must be a list of texts'),
        ('{"query": "secret", "documents": ["secret", 1]}', '"documents" must be a list of texts'),
        ('{"query": "secret", "documents": [["secret"]]}', '"documents" must be a list of texts'),
        (r'{"query": "secret\ud800", "documents": ["x"]}', "not valid Unicode, a lone surrogate at character 6 of a text"),
        (r'{"query": "a", "documents": ["x", "\udfff"]}', "not valid Unicode, a lone surrogate at character 0 of a text"),
    ],
)
def test_a_malformed_line_is_named(tmp_path: Path, line: str, message: str) -> None:
    file = write(tmp_path, f"{GOOD}\n{line}\n{GOOD}")
    with pytest.raises(InputError) as caught:
        read_samples(file)
    assert str(caught.value).startswith(f"{file}, line 4: {message}")
    assert "secret" not in str(caught.value)
    assert caught.value.__cause__ is None  # which would show the line


@pytest.mark.parametrize("line", ["secret", "secret\tsecret\tsecret", " secret", "secret; secret"])
def test_a_malformed_tsv_line_is_named(tmp_path: Path, line: str) -> None:
    file = write(tmp_path, f"a\tx\na\ty\n{line}\nb\tx\nb\ty\n", "samples.tsv")
    with pytest.raises(InputError) as caught:
        read_samples(file)
    assert str(caught.value) == f"{file}, line 3: expected query, tab, document"


@pytest.mark.parametrize(
    ("content", "name", "count"),
    [
        ("", "samples.jsonl", 0),
        ("\n \n", "samples.jsonl", 0),
        ("\ufeff", "samples.tsv", 0),
        (json.dumps(LINES[0]), "samples.jsonl", 1),
        ("a\tx\na\ty\nb\tx\n", "samples.tsv", 1),
        (f"{json.dumps(LINES[0])}\n" * 3, "samples.jsonl", 1),
        ('{"query": "a", "documents": []}\n{"query": "b", "documents": ["x"]}', "samples.jsonl", 0),
    ],
    ids=["empty", "blank", "BOM alone", "one query", "one TSV query", "one query thrice", "nothing to rank"],
)
def test_too_few_queries_say_nothing(tmp_path: Path, content: str, name: str, count: int) -> None:
    file = write(tmp_path, content, name)
    with pytest.raises(InputError) as caught:
        read_samples(file)
    assert str(caught.value) == f"{file}: {count} queries with two or more documents, at least 2 are needed"


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.jsonl: cannot be read: No such file"):
        read_samples(tmp_path / "none.jsonl")


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"cannot be read: Is a directory"):
        read_samples(tmp_path)


@pytest.mark.parametrize("name", ["samples.jsonl", "samples.tsv"])
def test_a_file_that_is_not_utf8_is_named(tmp_path: Path, name: str) -> None:
    good = GOOD if name.endswith(".jsonl") else "a\tx\na\ty\nb\tx\nb\ty\n"
    file = write(tmp_path, good.encode() + "Blåbær\tsecret\n".encode("latin-1"), name)
    with pytest.raises(InputError) as caught:
        read_samples(file)
    assert str(caught.value) == f"{file}: not UTF-8 text at byte {len(good) + 2}"


def test_utf16_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not UTF-8 text at byte 0"):
        read_samples(write(tmp_path, GOOD.encode("utf-16")))
