"""Documents as people have them: arrays, JSON Lines, CSV and TSV, by the names of their fields, and what is refused."""

import io
import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from raskrank import documents, reading
from raskrank.cli.main import main
from raskrank.documents import Document, Form, read_documents, stream_documents
from raskrank.errors import InputError, LimitError

SECRET = "HEMMELIG"
TEXTS = ["Utvikler i Python", 'Sykepleier, "natt"', "to\nlinjer"]
Write = Callable[[str, str | bytes], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write(name: str, content: str | bytes) -> Path:
        file = tmp_path / name
        file.write_bytes(content.encode() if isinstance(content, str) else content)
        return file

    return write


def _read(file: Path, form: Form | None = None) -> list[Document]:
    return list(stream_documents(file, form))


def _seen(file: Path, form: Form | None = None) -> list[tuple[str, str, int, object]]:
    return [(document.text, document.unit, document.number, document.extra.get("id")) for document in _read(file, form)]


def _refusal(file: Path, form: Form | None = None) -> str:
    with pytest.raises(InputError) as caught:
        _read(file, form)
    assert SECRET not in str(caught.value)
    assert str(file) in str(caught.value)
    return str(caught.value)


# What people have


def test_a_json_array_of_objects_is_as_many_documents(write: Write) -> None:
    items = [{"id": number, "text": text} for number, text in enumerate(TEXTS)]
    for indent in (None, 2):
        file = write("cvs.json", "\ufeff\n" + json.dumps(items, indent=indent))
        assert _seen(file) == [(text, "item", number, number - 1) for number, text in enumerate(TEXTS, 1)]


def test_a_json_array_of_texts_is_as_many_documents(write: Write) -> None:
    assert _seen(write("cvs.json", json.dumps(TEXTS))) == [(text, "item", number, None) for number, text in enumerate(TEXTS, 1)]


@pytest.mark.parametrize("name", ["corpus.jsonl", "corpus.ndjson", "corpus.JSONL", "corpus.json", "corpus.txt", "corpus"])
def test_the_corpus_of_beir_keeps_its_ids(name: str, write: Write) -> None:
    lines = [json.dumps({"_id": f"d{number}", "title": "CV", "text": text}) for number, text in enumerate(TEXTS)]
    file = write(name, "\n\n".join(lines))
    assert _seen(file) == [(text, "line", 2 * number + 1, f"d{number}") for number, text in enumerate(TEXTS)]
    assert all(document.untold_title for document in _read(file))
    titled = _read(file, Form(title_field="title"))
    assert [document.text for document in titled] == [f"CV {text}" for text in TEXTS]
    assert not any(document.untold_title for document in titled)


@pytest.mark.parametrize("field", documents.TEXT_FIELDS)
@pytest.mark.parametrize("id_field", documents.ID_FIELDS)
def test_the_usual_names_are_known(field: str, id_field: str, write: Write) -> None:
    item = {id_field: "a", "score": 3, field: "en"}
    assert _seen(write("a.json", json.dumps([item]))) == [("en", "item", 1, "a")]
    assert _seen(write("a.jsonl", json.dumps(item))) == [("en", "line", 1, "a")]
    assert _seen(write("a.csv", f"{id_field},score,{field.upper()}\r\na,3,en\r\n")) == [("en", "row", 2, "a")]


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_csv_as_spreadsheets_write_it(delimiter: str, write: Write) -> None:
    rows = ["\ufeffid{0}Text", '1{0}"Sykepleier{0} ""natt"""', "", '2{0}"to\r\nlinjer"', '3{0}""', "4{0}en{0}{0}"]
    file = write("cvs.csv", "\r\n".join(rows).format(delimiter))
    texts = [f'Sykepleier{delimiter} "natt"', "to\r\nlinjer", "", "en"]
    assert _seen(file) == [(text, "row", row, id) for text, row, id in zip(texts, (2, 4, 5, 6), "1234", strict=True)]


def test_quotes_in_tsv_are_text(write: Write) -> None:
    file = write("cvs.tsv", 'docid\ttext\n1\t"Hei" sa hun\n2\t"uten slutt\n')
    assert _seen(file) == [('"Hei" sa hun', "row", 2, "1"), ('"uten slutt', "row", 3, "2")]


def test_a_field_of_csv_may_be_longer_than_pythons_limit(write: Write) -> None:
    assert [len(document.text) for document in _read(write("a.csv", f'text\n"{"a" * 1_000_000}"\n'))] == [1_000_000]


def test_characters_that_spreadsheets_lose_come_through(write: Write) -> None:
    text = "a\0b\x0b\u2028\x1c"
    assert _seen(write("a.csv", f'id,text\n1,"{text}"\n'))[0][0] == text
    assert _seen(write("a.txt", text))[0][0] == text
    assert _seen(write("a.json", json.dumps([text])))[0][0] == text


def test_another_field_is_read_when_it_is_named(write: Write) -> None:
    item = {"text": "en", "summary": "to"}
    for file in (
        write("a.jsonl", json.dumps(item)),
        write("a.json", json.dumps([item])),
        write("a.csv", "text,summary\nen,to\n"),
        write("a.tsv", "text\tsummary\nen\tto\n"),
    ):
        assert [document.text for document in _read(file, Form(field="summary"))] == ["to"]
        assert [document.text for document in _read(file, Form(field="summary", title_field="text"))] == ["en to"]


def test_a_document_without_a_title_has_its_text_alone(write: Write) -> None:
    file = write(
        "a.jsonl", '{"text": "en"}\n{"title": null, "text": "to"}\n{"title": "", "text": "tre"}\n{"title": "T", "text": ""}'
    )
    assert [document.text for document in _read(file, Form(title_field="title"))] == ["en", "to", "tre", "T "]


def test_the_format_that_is_named_counts_more_than_the_name(write: Write) -> None:
    content = 'text,id\n{"text": "en"},1\n'
    assert [document.text for document in _read(write("a.csv", content), Form(format="text"))] == content.splitlines()
    assert _seen(write("a.txt", "id;text\n1;en\n"), Form(format="csv")) == [("en", "row", 2, "1")]
    assert _seen(write("a.txt", '["en"]'), Form(format="json")) == [("en", "item", 1, None)]


@pytest.mark.parametrize(
    ("content", "texts"),
    [
        ('[\n  {"text": "en"},\n  {"text": "to"}\n]', ["en", "to"]),
        ('\n{"text": "en"}\n{"text": "to"}', ["en", "to"]),
        ('["en", "to"]', ["en", "to"]),
        ("[1] en\n{a} to", ["[1] en", "{a} to"]),
        ("[Oslo]\n- {", ["[Oslo]", "- {"]),
        ("en\n[\n{\n", ["en", "[", "{"]),
        ("text,id\nen,1", ["text,id", "en,1"]),
        ("", []),
        ("\n \n", []),
    ],
)
def test_standard_input_is_known_by_how_it_begins(content: str, texts: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content.encode())))
    name, found = read_documents("-")
    assert name == "standard input"
    assert [document.text for document in found] == texts


@pytest.mark.parametrize("name", ["a.json", "a.jsonl", "a.csv", "a.tsv", "a.txt"])
@pytest.mark.parametrize("content", ["", "\n \n", "\ufeff"])
def test_an_empty_file_has_no_documents(name: str, content: str, write: Write) -> None:
    assert _read(write(name, content)) == []


# What is refused


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        (
            "a.json",
            f'{{\n  "text": "{SECRET}"\n}}',
            'an object with the key "text", expected an array, or an object on each line',
        ),
        ("a.json", f'{{\n "docs": ["{SECRET}"]\n}}', "jq -c '.docs[]' makes JSON Lines of the array in it"),
        ("a.json", f'{{"docs": ["{SECRET}"]}}', "line 1: no field with a text is called text, contents"),
        ("a.json", f'{{"n": 1, "skills": "{SECRET}"}}', 'it has the keys "n", "skills"; say which one with --field NAME'),
        ("a.json", f'[{{"text": "{SECRET}"}}', "not JSON: Expecting ',' delimiter at line 1, character"),
        ("a.json", f'"{SECRET}"', "a string, expected an array"),
        ("a.json", f'[["{SECRET}"]]', "item 1: expected an object or a string, got an array"),
        ("a.json", f'["{SECRET}", {{"text": "a"}}]', "item 2: expected a string, as the first is, got an object"),
        ("a.json", f'[{{"text": "a"}}, {{"body": "{SECRET}"}}]', 'item 2: no field "text"; it has the key "body"'),
        ("a.json", f'[{{"text": "a"}}, {{"text": null, "b": "{SECRET}"}}]', 'item 2: "text": expected a string, got null'),
        ("a.json", f'[{{"text": "{SECRET}", "body": "b"}}]', "several fields could be the text, text, body; say which one"),
        ("a.json", "[1, 2]", "item 1: expected an object or a string, got a number"),
        ("a.json", "[" * 100_000, "numbers that are too long, or nested too deeply"),
        ("a.json", f"[{'9' * 5000}]", "numbers that are too long, or nested too deeply"),
        ("a.json", '["\\ud800"]', "item 1: not valid Unicode, a lone surrogate at character 0 of a text"),
        ("a.jsonl", f'[\n{{"text": "{SECRET}"}}\n]', "line 1: not JSON"),
        ("a.jsonl", f'{{"text": "a"}}\n{SECRET}', "line 2: not JSON: Expecting value at character 0"),
        ("a.csv", f"1,{SECRET}\n2,b\n", "row 1: no field with a text is called text, contents"),
        ("a.csv", f"{SECRET}\nb\n", "it has 1 fields and must be the header"),
        ("a.csv", f"text,body\n{SECRET},b\n", "row 1: several fields could be the text, text, body"),
        ("a.csv", f"id,text\n1,{SECRET},b\n", "row 2: 3 fields, the header has 2; a field that holds a delimiter"),
        ("a.csv", f"id,text\n{SECRET}\n", "row 2: 1 fields, the header has 2"),
        ("a.csv", f'id,text\n1,"{SECRET}" b\n', "row 2: not CSV: ',' expected after '\"'"),
        ("a.csv", f'id,text\n1,"{SECRET}\n2,b\n', "row 2: not CSV: unexpected end of data"),
        ("a.csv", f"id,text\r1,{SECRET}\r", "row 1: not CSV: new-line character seen in unquoted field"),
        ("a.tsv", f'id\ttext\n1\t"{SECRET}\n b"\n', "row 3: 1 fields, the header has 2"),
        ("a.txt", f'{{"summary": "{SECRET}"}}\n', "--format text takes each line as it stands"),
        ("a.txt", f'{{\n"text": "{SECRET}"\n', "--format text takes each line as it stands"),
        (
            "a.txt",
            f'["{SECRET}"\nb\n',
            "not JSON: Expecting ',' delimiter at line 2, character 1; it begins as JSON does; --format",
        ),
        ("a.txt", f"{SECRET}\xff".encode("latin-1"), "not UTF-8 text at byte 8"),
        ("a.txt", b"\xef\xbb\xbfabc\xff", "not UTF-8 text at byte 6"),
    ],
)
def test_what_is_not_understood_is_refused(name: str, content: str | bytes, said: str, write: Write) -> None:
    assert said in _refusal(write(name, content))


@pytest.mark.parametrize(
    ("name", "content", "form", "said"),
    [
        ("a.txt", "a\n", Form(field="b"), "read as lines of text, which have no fields: leave out --field, or say --format"),
        ("a.txt", "a\n", Form(title_field="b"), "leave out --title-field"),
        ("a.json", '["a"]', Form(field="b"), "strings have no fields: leave out --field"),
        ("a.json", '[{"text": "a"}]', Form(field="b"), 'item 1: no field "b", or several; it has the key "text"'),
        ("a.json", '[{"text": "a", "b": 1}]', Form(field="b"), 'item 1: "b": expected a string, got a number'),
        ("a.json", '[{"text": "a", "b": 1}]', Form(title_field="b"), 'item 1: "b": expected a string, got a number'),
        ("a.json", '[{"text": "a"}]', Form(title_field="b"), 'no object has the field "b" of --title-field'),
        ("a.csv", "id,text\n1,a\n", Form(field="b"), 'row 1: no field "b", or several; it has 2 fields'),
        ("a.csv", "b,b\n1,a\n", Form(field="b"), 'row 1: no field "b", or several'),
        ("a.csv", "id,text\n1,a\n", Form(title_field="b"), 'row 1: the header has no field "b"'),
    ],
)
def test_a_field_that_is_not_there_is_refused(name: str, content: str, form: Form, said: str, write: Write) -> None:
    assert said in _refusal(write(name, content), form)


def test_many_keys_and_long_ones_make_no_long_message(write: Write) -> None:
    message = _refusal(write("a.json", json.dumps([{f"{number}" * 1000: 1 for number in range(100)}])))
    assert "and 90 more" in message
    assert len(message) < 1500


def test_an_id_nested_without_end_is_refused(write: Write) -> None:
    file = write("a.jsonl", f'{{"id": {"[" * 600}{"]" * 600}, "text": "a"}}')
    assert "line 1: its id is nested more than 10 deep" in _refusal(file)


def test_a_line_without_end_is_refused() -> None:
    with pytest.raises(LimitError, match=f"a line of more than {reading.MAX_LINE_BYTES} bytes"):
        _read(Path("/dev/zero"))


def test_too_large_an_array_is_refused(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "MAX_JSON_CHARS", 20)
    assert "JSON of more than 20 characters in one array; jq -c '.[]' makes JSON Lines of it" in _refusal(
        write("a.json", '[\n"en",\n"to",\n"tre"\n]')
    )


def test_standard_input_without_end_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    class Yes(io.BytesIO):
        def read1(self, size: int | None = -1) -> bytes:  # noqa: ARG002
            return b"y\n" * 4096

    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(Yes()))
    with pytest.raises(LimitError, match="standard input: more than 1000000 documents"):
        read_documents("-")


# On the command line


def _rank(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[list[dict[str, object]], str]:
    assert main(["rank", "--json", *arguments]) == 0
    captured = capsys.readouterr()
    return json.loads(captured.out), captured.err


def test_rank_prints_ids_and_rows(write: Write, capsys: pytest.CaptureFixture[str]) -> None:
    file = write("cvs.csv", "doc_id,text\na,Utvikler i Python\nb,Sykepleier\n")
    rows, said = _rank(capsys, "Hvem kan Python?", str(file))
    assert [(row["row"], row["id"]) for row in sorted(rows, key=lambda row: str(row["id"]))] == [(2, "a"), (3, "b")]
    assert said == ""
    assert main(["rank", "Hvem kan Python?", str(file)]) == 0
    assert capsys.readouterr().out.splitlines()[0] == "rank   score  row  text"


def test_rank_says_that_titles_are_not_ranked(write: Write, capsys: pytest.CaptureFixture[str]) -> None:
    file = write("corpus.jsonl", '{"_id": "a", "title": "Python", "text": "en"}\n')
    rows, said = _rank(capsys, "Python", str(file))
    assert (rows[0]["text"], rows[0]["id"]) == ("en", "a")
    assert said == 'raskrank: note: "title" is not ranked; --title-field title puts it in front of each text\n'
    rows, said = _rank(capsys, "Python", "--title-field", "title", str(file))
    assert (rows[0]["text"], said) == ("Python en", "")


@pytest.mark.parametrize("number", ["1e999", "1" + "0" * 400, "-0", "NaN", '{"$oid": "5f"}', "null", "true"])
def test_any_id_that_json_may_have_is_printed(number: str, write: Write, capsys: pytest.CaptureFixture[str]) -> None:
    file = write("a.jsonl", f'{{"id": {number}, "text": "en"}}')
    rows, said = _rank(capsys, "by", str(file))
    assert rows[0]["text"] == "en"
    assert said == ""


def test_bench_reads_the_same_forms(write: Write, capsys: pytest.CaptureFixture[str]) -> None:
    file = write("a.json", f'[{{"summary": "{SECRET}"}}]')
    assert main(["bench", "--texts", str(file)]) == 2
    assert 'it has the key "summary"' in capsys.readouterr().err
    assert main(["bench", "--texts", str(file), "--field", "summary", "--json", "--seconds", "0.1", "--threads", "1"]) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out)["passages_from"] == f"all 1 texts of {file}"
    assert SECRET not in captured.out + captured.err
    assert main(["bench", "--field", "summary"]) == 2
    assert "--field: only --texts uses it" in capsys.readouterr().err
