"""The benchmarks' own arithmetic, their peers, exports and worker processes."""

import inspect
import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from tokenizers import Tokenizer

from benchmarks.harness import compare, discovery, environments, exports, limits, models, speed, workloads
from benchmarks.harness.calls import Call
from benchmarks.harness.contender import OURS, Contender, Setup
from benchmarks.harness.limits import (
    Dimensions,
    Peaks,
    attention_operations,
    limit_seconds,
    matrix_rate,
    product_operations,
)
from benchmarks.harness.padding import Batching, padding_waste
from benchmarks.harness.workers import WorkerError, WorkerProcess
from benchmarks.peers import flashrank, ours, sentence_transformers
from paths import NANO_CHECKPOINT, ROOT

NANO = ROOT / "engine" / "raskrank" / "nano"
MINILM = Dimensions(layers=6, hidden=384, intermediate=1536)
WORKLOADS = {workload.name: workload for workload in workloads.WORKLOADS}


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    tokenizer = Tokenizer.from_file(str(NANO_CHECKPOINT / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


OPTIONS = {"folder": str(NANO), "threads": 1}
OURS_ON_NANO = Contender(name=OURS, load=ours.load, options=OPTIONS, setting="", batching="unpadded", packages=())


def contender(**changes: object) -> Contender:
    """Ours on the embedded bundle, which needs nothing to be made."""
    return replace(OURS_ON_NANO, **changes)  # type: ignore[arg-type]


def worker(**options: object) -> WorkerProcess:
    return WorkerProcess.of(contender(options={**OPTIONS, **options}), 1)


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
    monkeypatch.setattr(limits, "SECONDS", 0.05)
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
    here = contender(load=flashrank.load, options={"folder": str(NANO), "max_length": 512})
    missing = "ModuleNotFoundError: No module named 'flashrank'"
    with WorkerProcess.of(here, 1) as process, pytest.raises(WorkerError, match=missing):
        process.load()


def test_a_worker_that_dies_is_reported_with_its_last_words() -> None:
    call = Call(Call.of(ours.load).file, "no_such_function")
    with (
        WorkerProcess("test", Path(sys.executable), call, {}, 1) as process,
        pytest.raises(WorkerError, match=r"exit code 1; AttributeError: .*no_such_function"),
    ):
        process.load()


def test_who_fails_leaves_and_the_others_are_measured(tokenizer: Tokenizer) -> None:
    said: list[str] = []
    with worker() as one, worker() as other:
        running = [
            speed.Running(contender(), one, one.load()),
            speed.Running(contender(name="gone"), other, probabilities=True),
        ]
        measured = speed.measure(WORKLOADS["mixed-10"], running, tokenizer, 512, 2, said.append)
    assert list(measured["contenders"]) == [OURS]
    assert len(measured["contenders"][OURS]["seconds"]) == 2
    assert running[1].problem == "RuntimeError: score before load"
    assert said[-1] == "mixed-10: round 2 of 2"


def test_the_fastest_batch_size_is_measured(tokenizer: Tokenizer) -> None:
    tried = contender(batching="tokens", batch_sizes=(1, 4, 16))
    with worker() as process:
        running = [speed.Running(tried, process, process.load())]
        measured = speed.measure(WORKLOADS["mixed-10"], running, tokenizer, 512, 1, lambda _: None)["contenders"][OURS]
    assert measured["batch_size"] in (1, 4)  # 16 is more than there are
    assert (measured["padding"] == 0) == (measured["batch_size"] == 1)


def test_who_holds_much_of_a_short_memory_starts_anew(tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speed, "MEMORY_LEFT", sys.maxsize)
    monkeypatch.setattr(speed, "MEMORY_HELD", 0)
    with worker() as process:
        started = process.started
        running = [speed.Running(contender(), process, process.load())]
        measured = speed.measure(WORKLOADS["mixed-10"], running, tokenizer, 512, 2, lambda _: None)["contenders"][OURS]
        assert len(measured["seconds"]) == 2
        assert running[0].problem is None
        assert process.started > started


def test_every_environment_is_pinned_and_says_when_it_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environments, "FOLDER", tmp_path)
    for name in environments.NAMES:
        lines = (environments.REQUIREMENTS / f"{name}.txt").read_text("utf-8").splitlines()
        assert all(line.startswith("#") or re.fullmatch(r"[\w.-]+==[\w.]+", line) for line in lines)
        command = f"python -m benchmarks.harness.environments {name}"
        assert environments.problem(name) == f"environment {name} is not set up: {command}"
    (tmp_path / "light.failed").write_text("ERROR: no such package", "utf-8")
    assert environments.problem("light") == "environment light could not be set up: ERROR: no such package"
    assert environments.problem("") is None


def test_thread_counts() -> None:
    assert [compare.thread_counts(cores) for cores in (1, 2, 6, 8)] == [[1], [1, 2], [1, 2, 4, 6], [1, 2, 4, 8]]


A_PEER = """
from benchmarks.harness.contender import Contender, Export, Loaded, Setup


def contenders(setup: Setup) -> list[Contender]:
    files = Export(folder=setup.files / "mine", environment="", make=make, options={"word": setup.model})
    return [
        Contender(
            name="a peer of one file",
            load=load,
            options={"folder": str(files.folder)},
            setting="counts letters",
            batching="given",
            packages=("pip",),
            export=files,
        )
    ]


def make(folder: str, word: str) -> None:
    from pathlib import Path

    Path(folder, "word.txt").write_text(word, "utf-8")


def load(folder: str) -> Loaded:
    from pathlib import Path

    word = Path(folder, "word.txt").read_text("utf-8")
    return Loaded(lambda query, documents, _: [document.count(word) for document in documents], probabilities=False)
"""


@pytest.fixture
def setup(tmp_path: Path) -> Setup:
    return Setup(
        model="nano",
        checkpoint=NANO_CHECKPOINT,
        model_type="xlm-roberta",
        max_length=512,
        threads=2,
        instruction_sets=("avx2",),
        files=tmp_path / "files",
        calibration=tmp_path / "calibration.jsonl",
    )


def test_a_peer_is_one_file(setup: Setup, tmp_path: Path) -> None:
    (tmp_path / "a_peer.py").write_text(A_PEER, "utf-8")
    (tmp_path / "__init__.py").write_text("raise AssertionError('is no peer')", "utf-8")
    (peer,) = compare.prepare(setup, discovery.contenders(setup, tmp_path))
    assert (peer.name, peer.problem) == ("a peer of one file", None)
    with WorkerProcess.of(peer, 1) as process:
        assert process.load() is False
        assert process.score("", ["nano nano", "none", "nano"]).scores == [2, 0, 1]
        assert set(process.versions(peer.packages)) == {"pip"}


def test_two_contenders_of_one_name_are_refused(setup: Setup, tmp_path: Path) -> None:
    for name in ("one.py", "two.py"):
        (tmp_path / name).write_text(A_PEER, "utf-8")
    with pytest.raises(ValueError, match="two contenders are named a peer of one file"):
        discovery.contenders(setup, tmp_path)


def test_an_export_is_made_once_for_the_same_weights(setup: Setup, tmp_path: Path) -> None:
    (tmp_path / "a_peer.py").write_text(A_PEER, "utf-8")
    export = discovery.contenders(setup, tmp_path)[0].export
    assert export is not None
    assert exports.make(export, setup.checkpoint) is None
    (export.folder / "word.txt").write_text("kept", "utf-8")
    assert exports.make(export, setup.checkpoint) is None
    assert (export.folder / "word.txt").read_text("utf-8") == "kept"
    (export.folder / "made-from").write_text("other weights", "ascii")
    assert exports.make(export, setup.checkpoint) is None
    assert (export.folder / "word.txt").read_text("utf-8") == "nano"


def test_an_export_that_fails_says_how_and_its_peer_is_not_measured(setup: Setup, tmp_path: Path) -> None:
    broken = A_PEER.replace('Path(folder, "word.txt").write_text(word, "utf-8")', 'raise OSError("no more words")')
    (tmp_path / "a_peer.py").write_text(broken, "utf-8")
    (peer,) = compare.prepare(setup, discovery.contenders(setup, tmp_path))
    assert peer.problem == "the mine export failed: OSError: no more words"


def test_every_peer_says_what_it_needs(setup: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models, "bundle", lambda *_: NANO)
    found = discovery.contenders(setup)
    assert found[0].name == OURS
    assert {name.split()[0] for name in (entry.name for entry in found)} == {
        "FlashRank", "OpenVINO", "Raskrank", "fastembed", "optimum", "sentence-transformers", "transformers"
    }  # fmt: skip
    assert set(speed.REFERENCES) <= {entry.name for entry in found}
    for entry in found:
        assert entry.environment in ("", *environments.NAMES)
        assert entry.setting
        assert entry.packages
        # The worker is given these as JSON, and they fit the function.
        assert json.loads(json.dumps(entry.options)) == entry.options
        inspect.signature(entry.load).bind(**entry.options)
        if entry.export is not None:
            inspect.signature(entry.export.make).bind(folder="", **entry.export.options)
            assert entry.export.environment in environments.NAMES
        requirements = environments.REQUIREMENTS / f"{entry.environment}.txt"
        pinned = (
            {line.partition("==")[0] for line in requirements.read_text("utf-8").splitlines()} if entry.environment else set()
        )
        assert not entry.environment or set(entry.packages) <= pinned
    problems = {entry.name: entry.problem for entry in found if entry.problem}
    assert problems == {"FlashRank int8": "of rerankers with one logit it takes BERT, this is xlm-roberta"}


@pytest.mark.parametrize(("sets", "file"), [
    (("avx2",), "model_quint8_avx2.onnx"),
    (("avx2", "avx512f", "avx512_vnni"), "model_qint8_avx512_vnni.onnx"),
    (("asimd",), "model_qint8_arm64.onnx"),
])  # fmt: skip
def test_the_int8_file_is_the_one_for_this_cpu(setup: Setup, sets: tuple[str, ...], file: str) -> None:
    assert sentence_transformers.int8_file(replace(setup, instruction_sets=sets)) == file


@pytest.mark.parametrize("file", sorted(discovery.PEERS.glob("[!_]*.py")), ids=lambda file: file.stem)
def test_a_peers_file_needs_nothing_where_it_runs(file: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from benchmarks.harness.calls import load_file; "
        "load_file(Path(sys.argv[1])); "
        "print(sorted({name.partition('.')[0] for name in sys.modules} - sys.stdlib_module_names))"
    )
    # -S: without site-packages, so without Raskrank or any library.
    done = subprocess.run([sys.executable, "-S", "-c", code, str(file)], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["['__main__',", "'benchmarks']"]
