"""`raskrank bench`: its passages, its models, its report and the command as a whole."""

import fcntl
import json
import os
import pty
import random
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from dataclasses import replace
from pathlib import Path

import pytest

from conftest import Tiny
from paths import NANO_CHECKPOINT
from raskrank.cli.main import main
from raskrank.measure.bench import MAX_ROUNDS, Bench, fit
from raskrank.measure.bench_report import to_dict, to_text
from raskrank.measure.bench_result import Benchmark, Model, Result, Speed
from raskrank.measure.contenders import loaded_for_bench
from raskrank.measure.cross_encoder import CrossEncoder
from raskrank.measure.fresh import FreshProcess
from raskrank.measure.passages import LONG_WORDS, QUERY, Workload, from_samples, from_texts
from raskrank.measure.timing import Timing
from raskrank.printable import width
from raskrank.settings import bundle_path

SECRET = "HEMMELIG"
DEADLINE = 60
QUICK = ("--seconds", "1", "--passages", "10")


@pytest.fixture(autouse=True)
def _no_surroundings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RASKRANK_MODEL", raising=False)


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    file = tmp_path / "texts.txt"
    file.write_text("".join(f"{SECRET} {'Utvikler i Oslo ' * number}\n" for number in range(12)), "utf-8")
    return file


def _error(capsys: pytest.CaptureFixture[str]) -> str:
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("raskrank: error: ")
    assert captured.err.count("\n") == 1
    return captured.err


# passages


def test_our_own_passages_are_the_same_every_time() -> None:
    first, second = from_samples(100), from_samples(100)
    assert first == second
    assert [workload.name for workload in first] == ["1 mixed", "10 mixed", "100 mixed", "100 short", "100 long"]
    words = {workload.name: [len(passage.split()) for passage in workload.passages] for workload in first}
    assert set(words["100 long"]) == {LONG_WORDS}
    assert max(words["100 short"]) <= 8
    assert 5 <= min(words["100 mixed"]) < 40 < 200 < max(words["100 mixed"]) <= 300
    assert len({passage for workload in first for passage in workload.passages}) > 250
    for workload in from_samples(1000):
        assert len(set(workload.passages)) == len(workload.passages)  # equal ones are scored once


def test_short_pairs_have_at_most_32_tokens() -> None:
    (short,) = (workload for workload in from_samples(100) if workload.kind == "short")
    nano = CrossEncoder(bundle=bundle_path(None), threads=1)
    lengths = nano.pair_lengths(QUERY, short.passages)
    nano.close()
    assert sorted(lengths)[95] <= 32


@pytest.mark.parametrize(
    ("texts", "most", "counts"), [(200, 100, [1, 10, 100]), (3, 100, [1, 3]), (200, 5, [1, 5]), (1, 9, [1])]
)
def test_as_many_texts_as_there_are(texts: int, most: int, counts: list[int]) -> None:
    workloads = from_texts([f"tekst {number}" for number in range(texts)], most)
    assert [len(workload.passages) for workload in workloads] == counts
    assert [workload.name for workload in workloads] == [str(count) for count in counts]


def test_a_sample_has_all_lengths_in_the_order_of_the_texts() -> None:
    texts = ["x" * length for length in random.Random(1).sample(range(1, 1001), 1000)]
    workload = Workload(kind="", passages=tuple(texts), share=1)
    sample = workload.sample(10).passages
    assert sorted(map(len, sample)) == [51, 151, 251, 351, 451, 551, 651, 751, 851, 951]
    assert list(sample) == [text for text in texts if text in sample]
    assert len(workload.sample(1).passages[0]) == 501
    assert workload.sample(2000).passages == workload.passages


# planning


@pytest.mark.parametrize(
    ("passages", "round_s", "share_s", "expected"),
    [
        (100, 0.001, 100.0, (100, MAX_ROUNDS)),
        (100, 1.0, 4.0, (100, 3)),
        (100, 1.0, 10.5, (100, 9)),
        (100, 1.0, 2.0, (50, 3)),
        (100, 1.0, 0.0, (1, 3)),
        (1, 100.0, -5.0, (1, 3)),
    ],
)
def test_passages_and_rounds_fit_the_time(passages: int, round_s: float, share_s: float, expected: tuple[int, int]) -> None:
    assert fit(passages, round_s, share_s) == expected


# the report


def _speed(label: str, seconds: tuple[float, ...], lengths: tuple[int, ...], tau: float | None = None) -> Speed:
    return Speed(label=label, timing=Timing(seconds), lengths=lengths, kendall_tau=tau)


def _benchmark() -> Benchmark:
    names = ("minilm", "a-name-that-is-far-too-long-for-a-table", "PyTorch")
    fresh = FreshProcess(first_score_s=0.234, resident_bytes=84_600_000, private_bytes=None)
    models = [
        Model(
            label=name,
            name=name,
            backend="onnx",
            precision="int8",
            scheme="row",
            plain=None,
            folder=f"/{'folder/' * 9}{name}",
            bundle_bytes=24_200_000,
            fresh=fresh,
        )
        for name in names
    ]
    many = tuple(range(20, 120))
    results = [
        Result(
            kind="mixed",
            asked=1,
            speeds=tuple(
                _speed(name, (0.01 * place, 0.02 * place, 0.04 * place), (64,)) for place, name in enumerate(names, 1)
            ),
        ),
        Result(
            kind="mixed",
            asked=1000,
            speeds=tuple(_speed(name, (1.0, 2.0, 4.0 * place), many, 1 - place / 100) for place, name in enumerate(names, 1)),
        ),
    ]
    return Benchmark(
        cpu="AMD EPYC 9654 96-Core Processor",
        instruction_sets=("avx2", "avx512f", "avx512_vnni"),
        usable_cores=8,
        threads=2,
        versions={"Python": "3.11.7", "raskrank": "0.1.0", "onnxruntime": "1.32.0", "tokenizers": "0.22.2", "numpy": "2.4.6"},
        date="2026-11-25T03:14:50+00:00",
        source="100 of 340 texts of cvs.txt",
        fresh_passages=10,
        models=tuple(models),
        results=tuple(results),
        left_out=("1000 long",),
        seconds=98.7,
    )


def test_the_report_fits_80_columns() -> None:
    folders = [model.folder for model in _benchmark().models]
    lines = [line for line in to_text(_benchmark()).splitlines() if not any(folder in line for folder in folders)]
    assert max(map(width, lines)) <= 80


def test_the_report_compares_with_the_first_model() -> None:
    tables = to_text(_benchmark()).split("\n\n")
    (pytorch,) = (table.splitlines() for table in tables if table.startswith("PyTorch, times as long as minilm"))
    assert [line.split() for line in pytorch[2:]] == [
        ["1", "mixed", "60.0", "120", "16.7", "1,067", "3.00", "(3.00–3.00)"],
        ["100", "mixed*", "2,000", "12,000", "50.0", "3,475", "1.00", "(1.00–3.00)"],
    ]
    (first,) = (table.splitlines() for table in tables if table.startswith("minilm\n"))
    assert "times as long" not in first[1]
    assert any("minilm's ranking of 100 passages: a-name-that-is-far-…" in table for table in tables)


def test_the_report_says_what_it_left_out() -> None:
    assert "* Fewer than asked for" in to_text(_benchmark())
    assert "No time was left for: 1000 long" in to_text(_benchmark())
    whole = replace(_benchmark(), left_out=(), results=_benchmark().results[:1])
    assert "* Fewer" not in to_text(whole)
    assert "No time" not in to_text(whole)
    assert "Kendall" not in to_text(whole)


def test_the_report_as_json() -> None:
    data = json.loads(json.dumps(to_dict(_benchmark())))
    assert data["models"][0]["fresh"] == {"first_score_s": 0.234, "resident_bytes": 84_600_000, "private_bytes": None}
    workload = data["workloads"][1]
    assert (workload["kind"], workload["passages"], workload["passages_asked"], workload["rounds"]) == ("mixed", 100, 1000, 3)
    measured = workload["models"][2]
    assert measured["tokens"] == {"min": 20, "median": 69.5, "max": 119}
    assert measured["times_as_long"] == {"median": 1.0, "min": 1.0, "max": 3.0}
    assert measured["kendall_tau"] == 0.97
    assert (measured["median_s"], measured["passages_per_s"], measured["tokens_per_s"]) == (2.0, 50.0, 3475.0)


# models


def test_a_bundle_beside_another_and_its_checkpoint(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("raskrank.measure.bench.MAX_ROUNDS", 4)
    bundles, checkpoint = [tiny.bundle("bert", "fp32"), tiny.bundle("bert", "int8")], tiny.checkpoint()
    workloads = from_texts([f"Python og SQL {'båt ' * number}" for number in range(10)], 10)
    with loaded_for_bench(bundles, threads=1, against_torch=True, checkpoint=checkpoint) as contenders:
        bench = Bench(contenders, "Hvem kan Python?")
        one, ten = bench.measure(workloads, bench.pace(workloads[0]), left=lambda: 100.0)
    assert [*contenders] == ["bundle-bert-fp32", "bundle-bert-int8", "PyTorch"]
    assert [contender.folder for contender in contenders.values()] == [*bundles, checkpoint]
    assert [contender.manifest is None for contender in contenders.values()] == [False, False, True]
    assert (one.passages, ten.passages, one.rounds) == (1, 10, 4)
    assert [speed.label for speed in ten.speeds] == [*contenders]
    assert len({speed.lengths for speed in ten.speeds}) == 1
    assert [speed.kendall_tau for speed in one.speeds] == [None] * 3
    assert ten.speeds[2].kendall_tau == pytest.approx(1.0)


def test_where_no_time_is_left_the_first_workload_stands_for_its_kind(tiny: Tiny) -> None:
    with loaded_for_bench([tiny.bundle()], threads=1) as contenders:
        bench = Bench(contenders, QUERY)
        workloads = from_samples(100)
        (result,) = bench.measure(workloads, bench.pace(workloads[0]), left=lambda: 0.0)
    assert (result.name, result.asked, result.rounds) == ("1 mixed*", 100, 3)


@pytest.mark.slow
def test_bench_against_torch(capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--json", "--against", "torch", "--checkpoint", str(NANO_CHECKPOINT), "--passages", "10"]
    assert main(["bench", *options]) == 0
    data = json.loads(capsys.readouterr().out)
    ours, theirs = data["models"]
    assert ours["fresh"]["first_score_s"] < theirs["fresh"]["first_score_s"]
    most = max(data["workloads"], key=lambda workload: workload["passages"])
    assert most["models"][1]["times_as_long"]["median"] > 1
    assert most["models"][1]["kendall_tau"] > 0.8


# the command


def test_bench(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", *QUICK]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    assert re.search(r"^machine +\S", captured.out)
    assert re.search(r"^1 mixed\*? +\d+ +\d+ +\d+ +\d+$", captured.out, re.MULTILINE)
    assert re.search(r"^nano +[\d.]+ +\d", captured.out, re.MULTILINE)


def test_bench_json_with_texts_of_ones_own(texts: Path, tiny: Tiny, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--json", "--texts", str(texts), "--query", SECRET, "--threads", "1", *QUICK]
    assert main(["bench", str(tiny.bundle()), *options, str(tiny.bundle())]) == 0
    shown = capsys.readouterr().out
    data = json.loads(shown)
    assert data["passages_from"] == f"10 of 12 texts of {texts}"
    assert data["threads"] == 1
    assert [model["label"] for model in data["models"]] == ["bundle-bert-int8", "bundle-bert-int8 (2)"]
    taus = [workload["models"][1]["kendall_tau"] for workload in data["workloads"] if workload["passages"] > 1]
    assert all(tau == pytest.approx(1.0) for tau in taus)
    assert SECRET not in shown


def test_bench_uses_as_many_cores_as_the_environment_says(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RASKRANK_THREADS", "3")
    assert main(["bench", "--json", *QUICK]) == 0
    assert json.loads(capsys.readouterr().out)["threads"] == 3
    assert main(["bench", "--json", "--threads", "1", *QUICK]) == 0
    assert json.loads(capsys.readouterr().out)["threads"] == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--seconds", "0"], "--seconds: expected a number of seconds above 0, got '0'"),
        (["--seconds", "inf"], "--seconds: expected a number of seconds above 0"),
        (["--passages", "1001"], "--passages: expected at most 1000, got 1001"),
        (["--checkpoint", "folder"], "--checkpoint: only --against uses one"),
        (["--against", "keras"], "--against: invalid choice"),
        (["--texts", "absent.txt"], "absent.txt: cannot be read"),
        (["--query", "s\udcf8k", *QUICK], "query: not valid Unicode"),
        (["nowhere"], "no bundle at nowhere"),
    ],
)
def test_bench_refuses(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", *arguments]) == 2
    assert said in _error(capsys)


def test_bench_without_texts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "empty.txt"
    file.write_text("\n \n", "utf-8")
    assert main(["bench", "--texts", str(file)]) == 2
    assert f"{file} holds no text" in _error(capsys)


def test_against_torch_without_the_extra(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    assert main(["bench", "--against", "torch"]) == 2
    assert "--against torch needs torch; install it with: pip install 'raskrank[export]'" in _error(capsys)


def test_against_torch_without_the_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["bench", "--against", "torch"]) == 1
    assert "--checkpoint FOLDER" in _error(capsys)


def test_against_another_checkpoint(tiny: Tiny, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--against", "torch", "--checkpoint", str(NANO_CHECKPOINT)]
    assert main(["bench", str(tiny.bundle()), *options, *QUICK]) == 1
    assert "its weights are not those" in _error(capsys)


def test_progress_and_an_interruption_on_a_terminal() -> None:
    # A child of a background job inherits that SIGINT is ignored; this one does not.
    code = (
        "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler);"
        "from raskrank.cli.main import main; sys.exit(main())"
    )
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    process = subprocess.Popen([sys.executable, "-c", code, "bench"], stdout=subprocess.PIPE, stderr=theirs)
    os.close(theirs)
    shown = _read_until(ours, b"fresh processes")
    process.send_signal(signal.SIGINT)
    shown += _read_until(ours, b"raskrank: interrupted")
    out, _ = process.communicate(timeout=DEADLINE)
    os.close(ours)
    assert (process.returncode, out) == (130, b"")
    assert re.search(rb"load nano +\d+\.\d s\r\n", shown)
    assert b"Traceback" not in shown


def _read_until(terminal: int, expected: bytes) -> bytes:
    shown, deadline = b"", time.monotonic() + DEADLINE
    while expected not in shown:
        assert time.monotonic() < deadline, shown
        if select.select([terminal], [], [], 0.1)[0]:
            shown += os.read(terminal, 65536)
    return shown
