"""The benchmarks' own arithmetic, their worker processes, and what they make of a result file."""

import json
import re
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from tokenizers import Tokenizer

import compare
import environments
import report
import results
import speed
import workloads
from limits import Dimensions, Peaks, attention_operations, limit_seconds, matrix_rate, product_operations
from padding import Batching, padding_waste
from paths import NANO_CHECKPOINT, ROOT
from peers import OURS, Contender
from results import Result, Timing
from workers import WorkerError, WorkerProcess

NANO = ROOT / "engine" / "raskrank" / "nano"
MINILM = Dimensions(layers=6, hidden=384, intermediate=1536)
WORKLOADS = {workload.name: workload for workload in workloads.WORKLOADS}


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    tokenizer = Tokenizer.from_file(str(NANO_CHECKPOINT / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def worker(adapter: str = "raskrank", **options: object) -> WorkerProcess:
    return WorkerProcess("test", Path(sys.executable), adapter, {"folder": str(NANO), "threads": 1, **options}, 1)


def timing(*seconds: float, **changes: object) -> Timing:
    plain = Timing(seconds=list(seconds), batch_size=None, padding=0.0, tau=1.0, drift=0.0)
    return Timing(**{**plain, **changes})  # type: ignore[typeddict-item]


def recorded(model: str = "nano") -> Result:
    """A result as compare.py writes it, with two contenders that ran and one that could not."""
    peer = "sentence-transformers torch"
    return Result(
        format=results.FORMAT,
        model=model,
        architecture="BertForSequenceClassification",
        parameters=2_400_000,
        date="2026-11-25",
        machine={"cpu": "A CPU", "cores": 2, "instruction_sets": ["avx2"], "system": "Linux", "python": "3.11.7"},
        texts="NorQuAD validation",
        contenders={
            OURS: {"setting": "defaults", "versions": {"raskrank": "0.1.0"}, "problem": None},
            peer: {"setting": "batches of 32", "versions": {"torch": "2.13.0"}, "problem": None},
            "FlashRank int8": {"setting": "one batch", "versions": {}, "problem": "environment light is not set up"},
        },
        workloads={
            "mixed-100": {
                "title": WORKLOADS["mixed-100"].title,
                "passages": 100,
                "tokens": 20_000,
                "contenders": {
                    peer: timing(8.0, 9.0, 10.0, padding=0.25, tau=0.5),
                    OURS: timing(1.0, 2.0, 0.9, batch_size=8),
                },
            }
        },
        start={
            OURS: {"first": [0.2, 0.3, 0.4], "resident": [80_000_000] * 3, "private": [40_000_000] * 3},
            peer: {"first": [6.0, 6.0, 6.3], "resident": [800_000_000] * 3, "private": [700_000_000] * 3},
        },
        threads={"mixed-100": {"1": [2.0], "2": [1.0]}},
        limits={
            "peaks": {"1": {"int8": 400.0, "fp32": 100.0}},
            "shares": [{"title": WORKLOADS["pair"].title, "threads": 1, "limit": 0.006, "seconds": [0.01, 0.008, 0.012]}],
        },
    )


@pytest.mark.parametrize("kind", ["short", "mixed", "long"])
def test_passages_are_the_same_every_time(kind: workloads.Kind) -> None:
    assert workloads.passages(20, kind) == workloads.passages(20, kind)
    assert workloads.passages(20, kind) == workloads.passages(30, kind)[:20]
    assert len(set(workloads.passages(20, kind))) > 15


def test_workloads_have_the_lengths_they_name(tokenizer: Tokenizer) -> None:
    tokens = {
        name: speed.lengths(*workloads.texts(workload, tokenizer), tokenizer, 512)
        for name, workload in WORKLOADS.items()
        if workload.count <= 100
    }
    assert tokens["pair"] == [workloads.PAIR_TOKENS]
    assert max(tokens["short-100"]) <= 32
    assert set(tokens["long-20"]) == {512}
    assert min(tokens["mixed-100"]) < 60 < 200 < max(tokens["mixed-100"])
    assert all(len(tokens[name]) == workload.count for name, workload in WORKLOADS.items() if name in tokens)


@pytest.mark.parametrize(
    ("batching", "size", "padded"),
    [
        ("unpadded", 2, 10 + 20 + 30 + 40),
        ("tokens", 2, 2 * 40 + 2 * 20),
        ("characters", 2, 2 * 40 + 2 * 30),  # the second longest text has the fewest tokens
        ("given", 2, 2 * 30 + 2 * 40),
        ("given", 3, 3 * 30 + 40),
        ("one", 2, 4 * 40),
    ],
)
def test_padding_waste(batching: Batching, size: int, padded: int) -> None:
    waste = padding_waste(batching, size, [10, 30, 20, 40], [90, 60, 50, 100])
    assert waste == pytest.approx(padded / 100 - 1)


def test_operations_of_minilm_counted_by_hand() -> None:
    square, wide = 384 * 384, 384 * 1536
    five_layers = 5 * (2 * 128 * 4 * square + 2 * 128 * 2 * wide)
    last = 2 * 128 * 2 * square + 2 * (square + square + wide + wide)
    assert product_operations(MINILM, 128) == five_layers + last
    assert attention_operations(MINILM, 128) == 5 * 2 * (2 * 128 * 128 * 384) + 2 * (2 * 128 * 384)


def test_limit_adds_int8_products_to_fp32_attention() -> None:
    peaks = Peaks(int8=440, fp32=105)
    limit = limit_seconds(MINILM, [128], peaks)
    assert limit == pytest.approx(product_operations(MINILM, 128) / 440e9 + attention_operations(MINILM, 128) / 105e9)
    assert 0.006 < limit < 0.007
    assert limit_seconds(MINILM, [128, 128], peaks) == pytest.approx(2 * limit)


def test_dimensions_are_read_from_a_checkpoint() -> None:
    config = json.loads((NANO_CHECKPOINT / "config.json").read_text("utf-8"))
    assert Dimensions.read(NANO_CHECKPOINT).layers == config["num_hidden_layers"]


def test_matrix_rate_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("limits.SECONDS", 0.05)
    assert all(matrix_rate(32, 64, 64, int8=int8, threads=2) > 0 for int8 in (False, True))


def test_a_worker_loads_scores_and_says_what_it_is() -> None:
    with worker() as process:
        assert process.load() is True
        scored = process.score(workloads.QUERY, ["Tromsø har 78 000 innbyggere.", "Fisk"])
        memory = process.memory()
        assert set(process.versions(("raskrank", "numpy"))) == {"raskrank", "numpy"}
    assert len(scored.scores) == 2
    assert 0 < scored.seconds < scored.at - process.started
    assert 0 < memory["private"] <= memory["resident"]


def test_a_worker_that_cannot_load_says_why(tmp_path: Path) -> None:
    with worker(folder=str(tmp_path / "nothing")) as process, pytest.raises(WorkerError, match=r"MissingFile: .*nothing"):
        process.load()


def test_a_worker_without_its_library_says_so() -> None:
    options = {"folder": str(NANO), "max_length": 512}
    missing = "ModuleNotFoundError: No module named 'flashrank'"
    with (
        WorkerProcess("test", Path(sys.executable), "flashrank", options, 1) as process,
        pytest.raises(WorkerError, match=missing),
    ):
        process.load()


def test_a_worker_that_dies_is_reported_with_its_last_words() -> None:
    with (
        worker("no_such_adapter") as process,
        pytest.raises(WorkerError, match=r"exit code 1; AttributeError: .*no_such_adapter"),
    ):
        process.load()


def test_who_fails_leaves_and_the_others_are_measured(tokenizer: Tokenizer) -> None:
    contender = Contender(name=OURS, adapter="raskrank", options={}, setting="", batching="unpadded", packages=())
    said: list[str] = []
    with worker() as one, worker() as other:
        running = [
            speed.Running(contender, one, one.load()),
            speed.Running(replace(contender, name="gone"), other, probabilities=True),
        ]
        measured = speed.measure(WORKLOADS["mixed-10"], running, tokenizer, 512, 2, said.append)
    assert list(measured["contenders"]) == [OURS]
    assert len(measured["contenders"][OURS]["seconds"]) == 2
    assert running[1].problem == "RuntimeError: score before load"
    assert said[-1] == "mixed-10: round 2 of 2"


def test_the_fastest_batch_size_is_measured(tokenizer: Tokenizer) -> None:
    contender = Contender(
        name=OURS, adapter="raskrank", options={}, setting="", batching="tokens", packages=(), batch_sizes=(1, 4, 16)
    )
    with worker() as process:
        running = [speed.Running(contender, process, process.load())]
        measured = speed.measure(WORKLOADS["mixed-10"], running, tokenizer, 512, 1, lambda _: None)["contenders"][OURS]
    assert measured["batch_size"] in (1, 4)  # 16 is more than there are
    assert (measured["padding"] == 0) == (measured["batch_size"] == 1)


def test_who_holds_much_of_a_short_memory_starts_anew(tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speed, "MEMORY_LEFT", sys.maxsize)
    monkeypatch.setattr(speed, "MEMORY_HELD", 0)
    contender = Contender(name=OURS, adapter="raskrank", options={}, setting="", batching="unpadded", packages=())
    with worker() as process:
        started = process.started
        running = [speed.Running(contender, process, process.load())]
        measured = speed.measure(WORKLOADS["mixed-10"], running, tokenizer, 512, 2, lambda _: None)["contenders"][OURS]
        assert len(measured["seconds"]) == 2
        assert running[0].problem is None
        assert process.started > started


def test_every_environment_is_pinned_and_says_when_it_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environments, "FOLDER", tmp_path)
    for name in environments.NAMES:
        lines = (environments.REQUIREMENTS / f"{name}.txt").read_text("utf-8").splitlines()
        assert all(line.startswith("#") or re.fullmatch(r"[\w.-]+==[\w.]+", line) for line in lines)
        assert environments.problem(name) == f"environment {name} is not set up: python benchmarks/environments.py {name}"
    (tmp_path / "light.failed").write_text("ERROR: no such package", "utf-8")
    assert environments.problem("light") == "environment light could not be set up: ERROR: no such package"
    assert environments.problem("") is None


def test_thread_counts() -> None:
    assert [compare.thread_counts(cores) for cores in (1, 2, 6, 8)] == [[1], [1, 2], [1, 2, 4, 6], [1, 2, 4, 8]]


def test_ratio_and_p95() -> None:
    assert results.ratio([8, 9, 10], [1, 2, 0.8]) == (9.0, 4.5, 12.5)
    assert results.p95(list(range(1, 21))) == 19
    assert results.p95([3, 1, 2]) == 3


def test_a_result_file_is_read_as_it_was_written(tmp_path: Path) -> None:
    results.write(recorded(), tmp_path / "results" / "nano.json")
    assert results.read(tmp_path / "results" / "nano.json") == recorded()


def test_a_result_of_another_format_is_refused(tmp_path: Path) -> None:
    (tmp_path / "old.json").write_text('{"format": 0}', "utf-8")
    with pytest.raises(ValueError, match=r"old\.json: format 0, expected 1"):
        results.read(tmp_path / "old.json")


def test_report_says_how_fast_and_who_is_missing() -> None:
    text = report.report(recorded())
    assert "| **Raskrank int8** (batches of 8) | 1,000 | 2,000 | 100 | 20,000 | 1.00 | 0% | 1.0000 | 0.0000 |" in text
    assert "| sentence-transformers torch | 9,000 | 10,000 | 11.1 | 2,222 | 9.00 (4.50–11.1) | 25% | 0.5000 | 0.0000 |" in text
    assert text.index("**Raskrank int8** (b") < text.index("| sentence-transformers torch | 9,000")
    assert "| sentence-transformers torch | 6.00 | 20.0 | 800 | 700 | 0.10 |" in text
    assert "| one pair of 128 tokens | 1 | 6.00 | 8.00 | 75% |" in text
    assert "- FlashRank int8: environment light is not set up" in text
    assert "2,000 (1.00x) | 1,000 (2.00x)" in text


def test_every_table_of_a_report_is_rectangular() -> None:
    for table in re.findall(r"(?:^\|.*\n)+", report.report(recorded()) + report.readme_table([recorded()]), re.MULTILINE):
        assert len({line.count("|") for line in table.splitlines()}) == 1, table


def test_report_and_chart_are_written(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="needs the extra bench")
    page, chart = report.write_report(recorded(), tmp_path, "nano")
    assert "(nano.png)" in page.read_text("utf-8")
    assert chart.read_bytes().startswith(b"\x89PNG")


def test_a_report_without_the_main_workload_has_no_chart(tmp_path: Path) -> None:
    result = recorded()
    result["workloads"] = {}
    assert report.write_report(result, tmp_path, "nano") == [tmp_path / "nano.md"]


def test_readme_table_has_a_column_group_for_each_model() -> None:
    other = recorded("bge")
    del other["workloads"]["mixed-100"]["contenders"]["sentence-transformers torch"]
    table = report.readme_table([recorded("minilm"), other])
    assert "| sentence-transformers torch | 9,000 | 9.00 (4.50–11.1) | – | – |" in table
    assert "| **Raskrank int8** | 0.30 | 80 | 0.30 | 80 |" in table
    assert "75% for one pair of 128 tokens on 1 thread" in table
    assert "A CPU, 2 cores (avx2), 2026-11-25" in table


def test_readme_is_written_between_its_markers() -> None:
    readme = f"before\n{report.BEGIN}\nold\n{report.END}\nafter\n"
    assert report.write_readme(readme, "new") == f"before\n{report.BEGIN}\nnew\n{report.END}\nafter\n"


@pytest.mark.parametrize("readme", ["none", report.BEGIN, report.END + report.BEGIN, 2 * (report.BEGIN + report.END)])
def test_readme_without_markers_is_refused(readme: str) -> None:
    with pytest.raises(ValueError, match="once and in this order"):
        report.write_readme(readme, "table")


def test_readme_shows_the_committed_results() -> None:
    readme = (ROOT / "README.md").read_text("utf-8")
    if report.BEGIN not in readme:
        pytest.skip("README.md has no benchmark table")
    assert report.write_readme(readme, report.readme_table(report.committed())) == readme
