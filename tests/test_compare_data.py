"""The data of a comparison: both formats, every way of being wrong, and the candidates that are made of it."""

import json
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from raskrank.errors import InputError, LimitError, MissingExtra
from raskrank.measure.candidates import make_tasks
from raskrank.measure.data import Data, Query, read_data

SECRET = "HEMMELIG"
PASSAGES = [
    {"id": "p1", "text": "Utvikler med erfaring i Python"},
    {"id": "p2", "text": "Sykepleier i turnus"},
    {"id": "p3", "text": "Dyrepasser med ansvar for pytonslanger"},
]
QUERIES = [{"id": "q1", "text": "Hvem kan Python?"}, {"id": "q2", "text": "Hvem er sykepleier?"}]
QRELS = "query-id\tpassage-id\tgrade\nq1\tp1\t2\nq1\tp3\t0\nq2\tp2\t1\n"
LINE = {"query": "Hvem kan Python?", "positives": ["Utvikler"], "negatives": ["Kokk", "Lege"]}


def jsonl(items: Sequence[object]) -> str:
    return "".join(json.dumps(item, ensure_ascii=False) + "\n" for item in items)


def folder(path: Path, **files: str | bytes) -> Path:
    """A data folder, with other contents where given: passages, queries, qrels."""
    path.mkdir()
    contents = {"passages": jsonl(PASSAGES), "queries": jsonl(QUERIES), "qrels": QRELS, **files}
    for name, content in contents.items():
        data = content.encode() if isinstance(content, str) else content
        (path / f"{name}.{'tsv' if name == 'qrels' else 'jsonl'}").write_bytes(data)
    return path


def test_a_folder(tmp_path: Path) -> None:
    data = read_data(folder(tmp_path / "data"))
    assert data.passages == {passage["id"]: passage["text"] for passage in PASSAGES}
    assert data.queries == (
        Query(id="q1", text="Hvem kan Python?", language=None, grades={"p1": 2}, negatives=None),
        Query(id="q2", text="Hvem er sykepleier?", language=None, grades={"p2": 1}, negatives=None),
    )


def test_a_folder_as_beir_has_them(tmp_path: Path) -> None:
    path = tmp_path / "beir"
    (path / "qrels").mkdir(parents=True)
    titled = [{**PASSAGES[0], "title": "CV"}, {**PASSAGES[1], "title": ""}, PASSAGES[2]]
    for name, items in (("corpus", titled), ("queries", QUERIES)):
        beir = [{"_id": item["id"], **{key: item[key] for key in item if key != "id"}, "metadata": {}} for item in items]
        (path / f"{name}.jsonl").write_text(jsonl(beir), "utf-8")
    for split, grades in (
        ("train", "q1\tp2\t1\n"),
        ("test", QRELS.replace("query-id\tpassage-id\tgrade", "query-id\tcorpus-id\tscore")),
    ):
        (path / "qrels" / f"{split}.tsv").write_text(grades, "utf-8")
    data, plain = read_data(path), read_data(folder(tmp_path / "plain"))
    assert data.queries == plain.queries
    assert data.passages == {**plain.passages, "p1": f"CV {PASSAGES[0]['text']}"}


def test_blank_lines_windows_lines_and_a_byte_order_mark_do_not_matter(tmp_path: Path) -> None:
    files = {
        name: "\ufeff\r\n" + text.replace("\n", "\r\n\r\n")
        for name, text in (("queries", jsonl(QUERIES)), ("qrels", QRELS.partition("\n")[2]))
    }
    assert read_data(folder(tmp_path / "odd", **files)) == read_data(folder(tmp_path / "plain"))


def test_queries_without_a_relevant_passage_are_left_out(tmp_path: Path) -> None:
    data = read_data(folder(tmp_path / "data", qrels="q1\tp1\t1\nq2\tp2\t0\nq2\tp3\t-1\n"))
    assert [query.id for query in data.queries] == ["q1"]


def test_a_language_is_the_querys_own_or_the_one_of_its_passages(tmp_path: Path) -> None:
    passages = [{**PASSAGES[0], "language": "nb"}, {**PASSAGES[1], "language": "nn"}, PASSAGES[2]]
    queries = [{**QUERIES[0], "language": "en"}, QUERIES[1], {"id": "q3", "text": "Hvem?"}, {"id": "q4", "text": "Ukjent?"}]
    qrels = "q1\tp1\t1\nq2\tp2\t1\nq3\tp1\t1\nq3\tp2\t1\nq4\tp3\t1\n"
    data = read_data(folder(tmp_path / "data", passages=jsonl(passages), queries=jsonl(queries), qrels=qrels))
    assert [query.language for query in data.queries] == ["en", "nn", None, None]


def test_a_file_with_positives_and_negatives(tmp_path: Path) -> None:
    file = tmp_path / "data.jsonl"
    file.write_text("\n" + jsonl([LINE, {**LINE, "language": "nb", "negatives": ["Kokk"]}]), "utf-8")
    first, second = read_data(file).queries
    assert (first.text, first.language, second.language) == (LINE["query"], None, "nb")
    texts = read_data(file).passages
    assert [texts[name] for name in first.grades] == ["Utvikler"]
    assert [texts[name] for name in first.negatives or ()] == ["Kokk", "Lege"]
    assert [texts[name] for name in second.negatives or ()] == ["Kokk"]


# Errors: file, line, what was expected, and never the text


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"passages": jsonl([PASSAGES[0], {"text": SECRET}])}, 'passages.jsonl, line 2: expected {"id": ..., "text": ...}'),
        ({"passages": jsonl([{"id": 7, "text": SECRET}])}, "passages.jsonl, line 1: expected"),
        ({"passages": jsonl([{"id": "", "text": SECRET}])}, "passages.jsonl, line 1: expected"),
        ({"queries": jsonl([{"id": "q1"}])}, "queries.jsonl, line 1: expected"),
        ({"queries": jsonl([{"id": "q1", "text": [SECRET]}])}, "queries.jsonl, line 1: expected"),
        ({"passages": f'{{"id": "p1", "text": "{SECRET}\n'}, "passages.jsonl, line 1: not JSON: Unterminated string"),
        ({"passages": f'["{SECRET}"]\n'}, "passages.jsonl, item 1: expected a JSON object, got a string"),
        ({"passages": "[" * 100_000}, "passages.jsonl: JSON with numbers that are too long, or nested too deeply"),
        ({"passages": '{"id": "p1", "text": "\\ud800"}'}, "passages.jsonl, line 1: not valid Unicode, a lone surrogate at"),
        ({"passages": b'{"id": "p1", "text": "\xff"}'}, "passages.jsonl: not UTF-8 text at byte 22"),
        (
            {"queries": jsonl([{**QUERIES[0], "language": 1}])},
            'queries.jsonl, line 1: "language" must be a string, got a number',
        ),
        ({"passages": jsonl([*PASSAGES, PASSAGES[1]])}, "passages.jsonl, line 4: the id 'p2' stands on line 2 already"),
        ({"passages": "\n"}, "passages.jsonl: empty; expected"),
        ({"queries": ""}, "queries.jsonl: empty; expected"),
        ({"qrels": "q1\tp1\n"}, "qrels.tsv, line 1: expected query id, tab, passage id, tab, grade"),
        ({"qrels": QRELS + "q2 p2 1\n"}, "qrels.tsv, line 5: expected query id, tab"),
        ({"qrels": QRELS + "q2\tp3\tmuch\n"}, "qrels.tsv, line 5: expected query id, tab"),
        ({"qrels": QRELS + f"q2\tp3\t{'9' * 5000}\n"}, "a whole number from -9999 to 9999"),
        ({"qrels": QRELS + "q9\tp3\t1\n"}, "qrels.tsv, line 5: queries.jsonl has no id 'q9'"),
        ({"qrels": QRELS + "q1\tp9\t1\n"}, "qrels.tsv, line 5: passages.jsonl has no id 'p9'"),
        ({"qrels": QRELS + "q1\tp1\t1\n"}, "qrels.tsv, line 5: query 'q1' and passage 'p1' have a grade already"),
        ({"qrels": ""}, "no query has a relevant passage"),
        ({"qrels": "q1\tp1\t0\n"}, "no query has a relevant passage"),
    ],
)
def test_what_is_wrong_in_a_folder(tmp_path: Path, files: Mapping[str, Any], message: str) -> None:
    with pytest.raises(InputError) as caught:
        read_data(folder(tmp_path / "data", **files))
    assert message in str(caught.value)
    assert SECRET not in str(caught.value)
    assert str(tmp_path / "data") in str(caught.value)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([LINE, {"query": SECRET, "positives": [SECRET]}], 'data.jsonl, line 2: expected {"query": text, "positives": [text'),
        ([{**LINE, "positives": []}], "data.jsonl, line 1: expected"),
        ([{**LINE, "negatives": []}], "data.jsonl, line 1: expected"),
        ([{**LINE, "positives": SECRET}], "data.jsonl, line 1: expected"),
        ([{**LINE, "negatives": ["Kokk", 1]}], "data.jsonl, line 1: expected"),
        ([{**LINE, "query": None}], "data.jsonl, line 1: expected"),
        ([{**LINE, "negatives": [SECRET, SECRET]}], "data.jsonl, line 1: a text stands twice"),
        ([{**LINE, "positives": [SECRET], "negatives": [SECRET]}], "data.jsonl, line 1: a text stands twice"),
        ([{**LINE, "language": ["nb"]}], 'data.jsonl, line 1: "language" must be a string, got an array'),
        ([SECRET], "data.jsonl, line 1: expected a JSON object, got a string"),
        ([], "data.jsonl: no query has a relevant passage"),
    ],
)
def test_what_is_wrong_in_a_file(tmp_path: Path, lines: Sequence[object], message: str) -> None:
    file = tmp_path / "data.jsonl"
    file.write_text(jsonl(lines), "utf-8")
    with pytest.raises(InputError) as caught:
        read_data(file)
    assert message in str(caught.value)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize("name", ["passages.jsonl", "queries.jsonl", "qrels.tsv"])
def test_a_file_that_is_not_there(tmp_path: Path, name: str) -> None:
    path = folder(tmp_path / "data")
    (path / name).unlink()
    with pytest.raises(
        InputError, match=f"{name}: cannot be read: No such file or directory; expected a folder as BEIR has them"
    ):
        read_data(path)


def test_data_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nowhere: cannot be read: No such file or directory; expected a folder"):
        read_data(tmp_path / "nowhere")


def test_a_text_that_no_model_would_take(tmp_path: Path) -> None:
    passages = jsonl([*PASSAGES, {"id": "p4", "text": "a" * 10_000_001}])
    with pytest.raises(LimitError, match=r"passages.jsonl, line 4: a text of 10000001 characters, more than 10000000"):
        read_data(folder(tmp_path / "data", passages=passages))


def test_one_passage_alone(tmp_path: Path) -> None:
    passages = jsonl([PASSAGES[0], {**PASSAGES[0], "id": "p2"}])
    with pytest.raises(InputError, match="one passage alone cannot be ranked"):
        read_data(folder(tmp_path / "data", passages=passages, qrels="q1\tp1\t1\n"))


# Candidates

COLORS = ("rød", "grønn", "blå", "gul", "hvit", "svart")


def many(queries: int, passages: int, *, negatives: tuple[str, ...] | None = None) -> Data:
    """Query number n asks for the word of passage number n."""
    texts = {f"p{number}": f"ord{number} {COLORS[number % len(COLORS)]}" for number in range(passages)}
    asked = [
        Query(id=f"q{number}", text=f"Hvor står ORD{number}?", language=None, grades={f"p{number}": 1}, negatives=negatives)
        for number in range(queries)
    ]
    return Data(passages=texts, queries=tuple(asked))


def test_candidates_are_the_relevant_ones_and_the_best_of_bm25() -> None:
    passages = {
        "a": "ingen av ordene",
        "b": "Python Python Python",
        "c": "noe annet",
        "d": "python og andre slanger i en lang tekst om dyr",
        "e": "Utvikler som er relevant",
    }
    query = Query(id="q", text="Hvem kan PYTHON?", language="nb", grades={"e": 3}, negatives=None)
    (task,) = make_tasks(Data(passages=passages, queries=(query,)), queries=1, candidates=3)
    assert {*zip(task.documents, task.grades, strict=True)} == {(passages["b"], 0), (passages["d"], 0), (passages["e"], 3)}
    assert (task.query, task.language) == (query.text, "nb")


def test_the_best_grades_stay_where_not_all_relevant_passages_have_room() -> None:
    query = Query(id="q", text="ord0", language=None, grades={"p1": 1, "p2": 3, "p3": 2}, negatives=None)
    (task,) = make_tasks(Data(passages=many(0, 9).passages, queries=(query,)), queries=1, candidates=2)
    assert sorted(task.grades) == [2, 3]


def test_negatives_take_the_place_of_bm25_in_their_order() -> None:
    (task,) = make_tasks(many(1, 9, negatives=("p5", "p6", "p7")), queries=1, candidates=3)
    assert {document.split()[0] for document in task.documents} == {"ord0", "ord5", "ord6"}


def test_a_relevant_text_is_not_there_again_as_irrelevant() -> None:
    data = many(1, 9)
    data = Data(passages={"copy": data.passages["p0"], **data.passages}, queries=data.queries)
    (task,) = make_tasks(data, queries=1, candidates=9)
    assert len({*task.documents}) == 9
    assert task.grades.count(1) == 1


def test_fewer_passages_than_candidates() -> None:
    (task,) = make_tasks(many(1, 3), queries=1, candidates=20)
    assert len(task.documents) == 3


@pytest.mark.parametrize("text", ["", "?!", "ingenting finnes her", "å"])
def test_a_query_without_a_known_word(text: str) -> None:
    query = Query(id="q", text=text, language=None, grades={"p4": 1}, negatives=None)
    (task,) = make_tasks(Data(passages=many(0, 9).passages, queries=(query,)), queries=1, candidates=4)
    assert sorted(document.split()[0] for document in task.documents) == ["ord0", "ord1", "ord2", "ord4"]


def test_passages_without_words() -> None:
    query = Query(id="q", text="Hva?", language=None, grades={"a": 1}, negatives=None)
    (task,) = make_tasks(Data(passages={"a": "!", "b": "?", "c": ""}, queries=(query,)), queries=1, candidates=3)
    assert sorted(task.documents) == ["", "!", "?"]


def test_the_order_is_the_same_each_time_and_favours_no_place() -> None:
    data = many(300, 300)
    tasks = make_tasks(data, queries=300, candidates=5)
    assert tasks == make_tasks(data, queries=300, candidates=5)
    places = Counter(task.grades.index(1) for task in tasks)
    assert sorted(places) == [0, 1, 2, 3, 4]
    assert all(35 <= count <= 85 for count in places.values())  # of 60 expected, with a deviation of 7


def test_fewer_queries_are_a_part_of_more() -> None:
    data = many(50, 50)
    few, more = ([task.query for task in make_tasks(data, queries=count, candidates=3)] for count in (7, 20))
    assert (len(few), len(more)) == (7, 20)
    assert {*few} < {*more}
    assert few == [query for query in more if query in few]
    assert few != [query.text for query in data.queries[:7]]


def test_bm25_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bm25s", None)
    with pytest.raises(MissingExtra, match=r"a search by BM25 needs bm25s; install it with: pip install 'raskrank\[compare\]'"):
        make_tasks(many(1, 3), queries=1, candidates=3)
    assert make_tasks(many(1, 3, negatives=("p1",)), queries=1, candidates=3)
