"""`raskrank compare` as a whole: what it measures, prints and draws, and what it refuses."""

import io
import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer

import raskrank
from bundles import copy_bundle, edit, sign
from conftest import Tiny
from paths import NANO_CHECKPOINT, shared
from processes import run_script
from raskrank import Cascade, Reranker, cpu, kernels
from raskrank.cli.main import main
from raskrank.manifest import FILES, MANIFEST, MODEL, WEIGHTS
from raskrank.measure import compare, fresh
from raskrank.measure.candidates import Task, make_tasks
from raskrank.measure.cascade import CascadeContender
from raskrank.measure.compare import Overlap, agreement, overlap, timed_passages
from raskrank.measure.contender import Ranking
from raskrank.measure.contenders import loaded_for_comparison
from raskrank.measure.cross_encoder import CrossEncoder
from raskrank.measure.data import read_data
from raskrank.measure.fresh import FreshProcess
from raskrank.measure.quality import quality
from raskrank.settings import bundle_path

SECRET = "HEMMELIG"
BROKEN = "kvittering"
LINES: list[dict[str, Any]] = [
    {"query": "Hvem kan Python?", "positives": ["Python og SQL"], "negatives": ["Sykepleier", "Jeg søker jobb", SECRET]},
    {"query": "nurse night shift", "positives": ["Nurse in Tromsø"], "negatives": ["Electrician", "5 år erfaring"]},
    {"query": "Kva er ein båt?", "positives": ["Ein båt er eit fartøy."], "negatives": ["Bil", "A boat on the sea"]},
]
NANO = Path(raskrank.__file__).parent / "nano"
LANGUAGES = ("nb", "en", None)
INT8 = "onnx int8" if kernels.unavailable() else "native int8"  # what runs the tiny bundles


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compare, "ROUNDS", 1)
    monkeypatch.setattr(fresh, "PROCESSES", 1)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.delenv("RASKRANK_MODEL", raising=False)


@pytest.fixture
def same_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """No fresh processes, since each that imports PyTorch takes seconds."""
    found = FreshProcess(first_score_s=1.0, resident_bytes=None, private_bytes=None)
    monkeypatch.setattr(CrossEncoder, "start_anew", lambda *_: found)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return _write(tmp_path / "data.jsonl", LINES)


@pytest.fixture
def broken(tiny: Tiny, tmp_path: Path) -> Path:
    """A bundle that gives NaN where a text has the word BROKEN."""
    import onnx

    folder = copy_bundle(tiny.bundle("bert", "fp32"), tmp_path / "broken")
    graph = onnx.load(str(folder / MODEL), load_external_data=False).graph
    (rows,) = (tensor for tensor in graph.initializer if "word_embeddings" in tensor.name)
    place = {entry.key: entry.value for entry in rows.external_data}
    weights = np.memmap(folder / WEIGHTS, np.float32, "r+", int(place["offset"]), tuple(rows.dims))
    weights[Tokenizer.from_file(str(folder / "tokenizer.json")).token_to_id(BROKEN)] = np.nan
    weights.flush()
    return sign(folder)


def _write(file: Path, lines: Sequence[object]) -> Path:
    file.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
    return file


def _compare(capsys: pytest.CaptureFixture[str], *arguments: object) -> dict[str, Any]:
    assert main(["compare", *map(str, arguments), "--json"]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    found: dict[str, Any] = json.loads(captured.out)
    return found


def _error(capsys: pytest.CaptureFixture[str], *arguments: object, code: int = 2) -> str:
    assert main(["compare", *map(str, arguments)]) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("raskrank: error: ")
    assert SECRET not in captured.err
    return captured.err


# What is measured


def test_int8_beside_fp32(tiny: Tiny, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = [
        line if language is None else {**line, "language": language} for line, language in zip(LINES, LANGUAGES, strict=True)
    ]
    file = _write(tmp_path / "data.jsonl", lines)
    bundles = [tiny.bundle("bert", "int8"), tiny.bundle("bert", "fp32")]
    report = _compare(capsys, *bundles, "--data", file)
    assert report["about"]["queries"] == 3
    assert report["about"]["candidates"] == 4
    assert [model["runs"] for model in report["models"]] == [INT8, "onnx fp32"]
    tasks = make_tasks(read_data(file), queries=200, candidates=20)
    for model, bundle in zip(report["models"], bundles, strict=True):
        with Reranker.load(bundle) as reranker:
            orders = [[task.grades[hit.index] for hit in reranker.rank(task.query, task.documents)] for task in tasks]
            assert model["parameters"] == reranker.info().parameters
        found = quality(orders)
        assert (model["ndcg@10"], model["mrr@10"], model["top1"]) == (found.ndcg, found.mrr, found.top1)
        assert model["disk_bytes"] == sum((bundle / name).stat().st_size for name in (*FILES, MANIFEST))
        assert model["resident_bytes"] > model["disk_bytes"]
        assert model["first_score_seconds"] > 0
        assert model["non_finite"] == 0
        assert model["against_checkpoint"] is None
        assert {*model["calls"]} == {"10", "100"}
        assert all(
            0 < call["median_seconds"] <= call["p95_seconds"] and call["rounds"] == 1 for call in model["calls"].values()
        )
        assert {language: numbers["queries"] for language, numbers in model["languages"].items()} == {
            "en": 1,
            "nb": 1,
            "not stated": 1,
        }
        assert sum(numbers["ndcg@10"] for numbers in model["languages"].values()) / 3 == pytest.approx(model["ndcg@10"])
    texts = [text for line in LINES for text in line["positives"] + line["negatives"]]
    tokenizer = Tokenizer.from_file(str(bundles[0] / "tokenizer.json"))
    lengths = [len(tokenizer.encode(text, add_special_tokens=False).ids) for text in texts]
    assert report["models"][0]["tokens_per_passage"] == pytest.approx(sum(lengths) / len(lengths))


@pytest.mark.usefixtures("same_process")
def test_the_checkpoint_stands_once_beside_its_bundles(tiny: Tiny, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bundles = tiny.bundle("bert", "int8"), tiny.bundle("bert", "fp32")
    torch, int8, fp32 = _compare(capsys, *bundles, "--against", "torch", "--data", data)["models"]
    assert [model["runs"] for model in (torch, int8, fp32)] == ["torch fp32", INT8, "onnx fp32"]
    assert torch["origin"] == str(tiny.checkpoint("bert"))
    assert torch["parameters"] == int8["parameters"]
    assert torch["against_checkpoint"] is None
    assert fp32["against_checkpoint"] == {"tau": 1.0, "top1": 1.0}
    assert torch["ndcg@10"] == fp32["ndcg@10"]
    assert -1 <= int8["against_checkpoint"]["tau"] <= 1


@pytest.mark.usefixtures("same_process")
def test_a_checkpoint_runs_in_pytorch(tiny: Tiny, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tiny.checkpoint("xlm-roberta")
    (model,) = _compare(capsys, folder, "--data", data)["models"]
    assert (model["name"], model["runs"], model["origin"]) == (folder.name, "torch fp32", str(folder))
    assert model["parameters"] > 0
    assert model["disk_bytes"] > model["parameters"] * 4


def test_nan_and_infinite_scores_are_counted(broken: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = [{"query": BROKEN, "positives": ["Python"], "negatives": ["SQL", "Bil"]}, {**LINES[0], "positives": [BROKEN]}]
    (model,) = _compare(capsys, broken, "--data", _write(tmp_path / "data.jsonl", lines))["models"]
    assert model["non_finite"] == 3 + 1
    assert model["ndcg@10"] < 1
    assert model["resident_bytes"] > 0


def test_documents_without_a_score_come_last(broken: Path) -> None:
    documents = ["Sykepleier", BROKEN, "Jeg søker jobb", f"uten {BROKEN}", "Bil"]
    model = CrossEncoder(bundle=broken, threads=1)
    order, non_finite = model.rank("nurse", documents)
    model.close()
    with Reranker.load(broken) as reranker:
        hits = reranker.rank("nurse", [documents[index] for index in (0, 2, 4)])
    assert order == (*((0, 2, 4)[hit.index] for hit in hits), 1, 3)
    assert non_finite == 2


def test_without_a_model_the_embedded_one_is_measured(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (model,) = _compare(capsys, "--data", data)["models"]
    assert model["name"] == "nano"


@pytest.mark.usefixtures("same_process")
def test_models_of_one_name_are_told_apart(tiny: Tiny, tmp_path: Path, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folders = [copy_bundle(tiny.bundle("bert", "int8"), tmp_path / name) for name in ("first", "second")]
    models = _compare(capsys, folders[0], "--data", data, folders[1])["models"]
    assert [model["name"] for model in models] == [f"checkpoint-bert ({folder})" for folder in folders]


@pytest.mark.usefixtures("same_process")
def test_queries_and_candidates_can_be_limited(tiny: Tiny, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = _compare(capsys, tiny.bundle(), "--queries", "2", "--candidates", "2", "--data", data)
    assert (report["about"]["queries"], report["about"]["candidates"]) == (2, 2)
    assert report["models"][0]["queries"] == 2


def test_few_passages_are_timed_again_and_again() -> None:
    tasks = [Task(query="a", documents=("b", "c"), grades=(0, 1), language=None)] * 2
    assert timed_passages(tasks, 5) == ["b", "c", "b", "c", "b"]


# Cascades


@pytest.mark.usefixtures("same_process")
def test_a_cascade_stands_beside_its_models(tiny: Tiny, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small, strong, cascade = _compare(capsys, NANO, tiny.bundle(), "--cascade", "2", "--candidates", "4", "--data", data)[
        "models"
    ]
    assert [model["name"] for model in (small, strong)] == ["nano", "checkpoint-bert"]
    assert (cascade["name"], cascade["runs"]) == ("nano → 2 → checkpoint-bert", "cascade")
    assert cascade["parameters"] == small["parameters"] + strong["parameters"]
    assert cascade["tokens_per_passage"] == strong["tokens_per_passage"]
    assert (cascade["first_score_seconds"], cascade["against_checkpoint"]) == (None, None)
    assert small["against_last_alone"] is strong["against_last_alone"] is None
    tasks = make_tasks(read_data(data), queries=200, candidates=4)
    with Cascade([Reranker.load(), Reranker.load(tiny.bundle())], keep=[2]) as real, Reranker.load(tiny.bundle()) as alone:
        kept = [[hit.index for hit in real.rank(task.query, task.documents)] for task in tasks]
        first = [alone.rank(task.query, task.documents)[0].index for task in tasks]
    grades = [[task.grades[place] for place in places] for task, places in zip(tasks, kept, strict=True)]
    assert cascade["top1"] == quality(grades).top1
    assert cascade["against_last_alone"] == {
        "top10": 1.0,  # of four documents, all are among the first ten
        "top1": sum(places[0] == best for places, best in zip(kept, first, strict=True)) / len(tasks),
    }


def test_what_is_pruned_comes_last_in_the_order_of_the_model_that_did(tiny: Tiny) -> None:
    documents = [f"{number} {text}" for number in range(4) for line in LINES for text in line["negatives"]]
    models = [CrossEncoder(bundle=folder, threads=1) for folder in (NANO, tiny.bundle(), NANO)]
    contender = CascadeContender(models, [9, 4])
    order, non_finite = contender.rank("Python", documents)
    with Cascade([model.reranker for model in models], [9, 4]) as cascade:
        expected = [hit.index for hit in cascade.rank("Python", documents)]
        first = [hit.index for hit in models[0].reranker.rank("Python", documents)]
    assert sorted(order) == list(range(len(documents)))
    assert order[:4] == tuple(expected)
    assert set(order[4:9]) == set(first[:9]) - set(expected)
    assert order[9:] == tuple(first[9:])
    assert non_finite == 0


def test_overlap_counts_the_first_ten() -> None:
    alone = [Ranking(tuple(range(20)), 0), Ranking((0, 1), 0)]
    cascade = [Ranking((1, 0, *range(2, 8), *range(12, 20), *range(8, 12)), 0), Ranking((0, 1), 0)]
    assert overlap(3, alone, cascade) == Overlap(alone=3, top=(0.8 + 1) / 2, top1=0.5)


def test_a_score_that_is_no_number_stops_no_cascade(broken: Path) -> None:
    models = [CrossEncoder(bundle=broken, threads=1), CrossEncoder(bundle=NANO, threads=1)]
    contender = CascadeContender(models, [2])
    order, non_finite = contender.rank("nurse", ["Sykepleier", BROKEN, "Bil"])
    contender.run("nurse", ["Sykepleier", BROKEN, "Bil"])
    assert (order[-1], non_finite) == (1, 1)
    for model in models:
        model.close()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["a", "--cascade", "5"], "--cascade: expected a number for each MODEL but the last, got 1 for 1 models"),
        (["a", "b", "--cascade", "5,3"], "--cascade: expected a number for each MODEL but the last, got 2 for 2 models"),
        (["a", "b", "--cascade", "30"], "--cascade: 30 documents of 20 are all of them, so that nothing is pruned"),
        (["a", "b", "--cascade", "none"], "expected a whole number of at least 1, got 'none'"),
        (["a", "b", "--cascade", "0"], "expected a whole number of at least 1, got '0'"),
        (["a", "b", "c", "--cascade", "3,5"], "expected numbers that do not rise, got '3,5'"),
    ],
)
def test_wrong_cascades(arguments: list[str], message: str, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert message in _error(capsys, "--data", data, *arguments)


# What is printed


@pytest.mark.usefixtures("same_process")
def test_the_command_prints_the_tables(tiny: Tiny, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", str(tiny.bundle()), "--data", str(data)]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    tables = [part.splitlines() for part in captured.out.split("\n\n") if part.startswith("|")]
    assert len(tables) == 2
    assert all(len({len(line) for line in lines}) == 1 for lines in tables)
    assert f"Data: {data}. " in " ".join(captured.out.split())  # a long path may begin a line
    assert SECRET not in captured.out


@pytest.mark.usefixtures("same_process")
def test_progress_on_a_terminal(
    tiny: Tiny, data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Tty(io.StringIO):
        def isatty(self) -> bool:
            return True

    stream = Tty()
    monkeypatch.setattr(sys, "stderr", stream)
    assert main(["compare", str(tiny.bundle()), "--data", str(data), "--json"]) == 0
    json.loads(capsys.readouterr().out)
    for step in (f"ranking with checkpoint-bert, {INT8}", "timing 10 passages", "timing 100 passages", "fresh processes"):
        assert step in stream.getvalue()


# The chart


def test_a_chart(tiny: Tiny, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from matplotlib.image import imread

    file = tmp_path / "chart.PNG"
    assert main(["compare", str(tiny.bundle()), "--data", str(data), "--chart", str(file)]) == 0
    captured = capsys.readouterr()
    assert captured.out.startswith("## Quality")
    assert captured.err == f"raskrank: the chart is in {file}\n"
    pixels = imread(file)
    assert pixels.shape == (750, 1200, 4)
    assert np.unique(pixels.reshape(-1, 4), axis=0).shape[0] > 20


def test_our_own_searches_without_data(capsys: pytest.CaptureFixture[str]) -> None:
    report = _compare(capsys)
    (model,) = report["models"]
    assert report["about"]["data"] == "Raskrank's samples"
    assert report["about"]["queries"] == 68
    assert {*model["languages"]} == {"nb", "nn", "en", "mixed"}
    assert model["ndcg@10"] > 0.8  # shuffled, the passages come to about 0.6


# What is refused


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--candidates", "1"], "--candidates: expected at least 2, got 1"),
        (["--queries", "0"], "expected a whole number of at least 1"),
        (["--against", "onnx"], "invalid choice: 'onnx'"),
        (["--chart", "chart.pdf"], "--chart: expected a file name that ends in .png, got chart.pdf"),
        (["--chart", "no/such/folder/chart.png"], "--chart: there is no folder no/such/folder"),
        (["--unknown"], "unrecognized arguments: --unknown"),
        (["no/such/bundle"], "no bundle at no/such/bundle"),
    ],
)
def test_wrong_use(arguments: list[str], message: str, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert message in _error(capsys, "--data", data, *arguments)


def test_a_model_that_is_there_twice(tiny: Tiny, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tiny.bundle()
    error = _error(capsys, folder, folder.parent / "." / folder.name, "--data", data)
    assert f"{folder} is there 2 times; name each model once" in error


def test_a_bi_encoder_is_no_model(tiny: Tiny, tmp_path: Path, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = Path(shutil.copytree(tiny.checkpoint("bert"), tmp_path / "bi"))
    modules = [
        {"idx": 0, "type": "sentence_transformers.models.Transformer"},
        {"idx": 1, "type": "sentence_transformers.models.Pooling"},
    ]
    (folder / "modules.json").write_text(json.dumps(modules), "utf-8")
    assert "is a bi-encoder" in _error(capsys, folder, "--data", data, code=1)


def test_another_checkpoint_than_the_bundles(
    tiny: Tiny, tmp_path: Path, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = copy_bundle(tiny.bundle("bert", "int8"), tmp_path / "bundle")
    edit(folder, source__model=str(tiny.checkpoint("xlm-roberta")))
    assert "its weights are not those" in _error(capsys, folder, "--against", "torch", "--data", data, code=1)


def test_a_checkpoint_that_is_not_here(tiny: Tiny, tmp_path: Path, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = edit(copy_bundle(tiny.bundle("bert", "int8"), tmp_path / "bundle"), source__model="no/such")
    error = _error(capsys, folder, "--against", "torch", "--data", data, code=1)
    assert f"{folder}: its checkpoint no/such is not on this machine; leave out --against torch" in error


def test_data_is_read_before_models_are_loaded(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = _write(tmp_path / "bad.jsonl", [{"query": SECRET}])
    assert "bad.jsonl, line 1: expected" in _error(capsys, "no/such/bundle", "--data", file)


@pytest.mark.parametrize(
    ("package", "arguments", "message"),
    [
        ("matplotlib", ["--chart", "chart.png"], "--chart needs matplotlib; install it with: pip install 'raskrank[compare]'"),
        ("sentence_transformers", ["--bi-encoder", "any"], "install it with: pip install 'raskrank[bi-encoder]'"),
    ],
)
def test_a_package_that_is_missing(
    package: str,
    arguments: list[str],
    message: str,
    data: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    assert message in _error(capsys, "--data", data, *arguments)


def test_the_extras_are_imported_only_where_they_are_needed(tmp_path: Path) -> None:
    done = run_script(tmp_path, "import sys; import raskrank.cli.compare; print(*sys.modules)")
    assert not {"bm25s", "matplotlib", "sentence_transformers", "torch", "onnxruntime"} & {*done.stdout.split()}


# The baselines


def test_bm25_as_a_baseline(tiny: Tiny, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    passages = {"p1": "en båt på fjorden", "p2": "en bil på veien", "p3": "sykepleier i Oslo", "p4": "båt båt båt"}
    data = tmp_path / "data"
    data.mkdir()
    for name, texts in (("passages", passages), ("queries", {"q1": "hvor er båt", "q2": "hva kjører på veien"})):
        lines = [json.dumps({"id": key, "text": text}, ensure_ascii=False) for key, text in texts.items()]
        (data / f"{name}.jsonl").write_text("\n".join(lines), "utf-8")
    (data / "qrels.tsv").write_text("q1\tp4\t1\nq2\tp2\t1\n", "utf-8")
    found = _compare(capsys, tiny.bundle(), "--bm25", "--data", data)
    model, baseline = found["models"]
    assert (baseline["name"], baseline["runs"], baseline["parameters"]) == ("BM25", "bm25s", 0)
    assert (baseline["ndcg@10"], baseline["top1"]) == (1.0, 1.0)  # p4 says "båt" most often, p2 alone has "veien"
    assert baseline["first_score_seconds"] is None
    assert found["about"]["candidates"] == 4
    assert model["runs"] == INT8
    assert "bm25s" in found["about"]["versions"]


def test_a_bi_encoder_as_a_baseline(tiny: Tiny, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    models = pytest.importorskip("sentence_transformers.models", reason="needs sentence-transformers")
    from sentence_transformers import SentenceTransformer

    transformer = models.Transformer(str(tiny.checkpoint("bert")))
    folder = tmp_path / "tiny-bi-encoder"
    SentenceTransformer(modules=[transformer, models.Pooling(transformer.get_embedding_dimension())]).save(str(folder))
    _, baseline = _compare(capsys, tiny.bundle(), "--bi-encoder", folder, "--data", data)["models"]
    assert (baseline["name"], baseline["runs"]) == (folder.name, "bi-encoder")
    assert 0 <= baseline["ndcg@10"] <= 1
    assert baseline["first_score_seconds"] is None
    assert baseline["tokens_per_passage"] > 0


# The embedded model on Norwegian questions


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_int8_ranks_norquad_as_fp32_does(tmp_path: Path) -> None:
    from raskrank_export import export

    folder = shared("data", "norquad", "validation")
    export(str(NANO_CHECKPOINT), tmp_path / "fp32", precision="fp32")
    tasks = make_tasks(read_data(folder), queries=1000, candidates=20)
    assert {len(task.documents) for task in tasks} == {20}
    with loaded_for_comparison([tmp_path / "fp32", bundle_path(None)], threads=cpu.usable_cpus()) as (fp32, int8):
        ranked = [[model.rank(task.query, task.documents) for task in tasks] for model in (fp32, int8)]
    found = agreement(*ranked)
    assert found.tau >= 0.99
    assert found.top1 >= 0.99
    first, second = (
        quality([[task.grades[index] for index in ranking.order] for task, ranking in zip(tasks, rankings, strict=True)])
        for rankings in ranked
    )
    assert abs(first.ndcg - second.ndcg) <= 0.002
