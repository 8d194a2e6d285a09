"""`raskrank score --ray` and the Scorer, on a cluster of two nodes, each with processes of its own."""

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import ray
import ray.data
from ray.cluster_utils import Cluster

from command import INTERRUPTIBLE, SECRET
from pairs import journal, parts, read_jsonl, rows, states, write_jsonl
from raskrank import InputError, MissingFile, Reranker, Windows
from raskrank.bulk.cluster import connected, run_on
from raskrank.bulk.job import Job, Model
from raskrank.bulk.journal import Journal
from raskrank.bulk.plan import Plan
from raskrank.cli.main import main
from raskrank.integrations.ray import Scorer
from raskrank.manifest import WEIGHTS

pytestmark = [pytest.mark.usefixtures("no_surroundings"), pytest.mark.filterwarnings("ignore:.*deprecated")]

ROWS, PART = 6000, 200
DEADLINE = 240  # seconds: a cluster among other tests is slow


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """Its address. Two nodes with one CPU each."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
        try:
            nodes.add_node(num_cpus=1)
            nodes.wait_for_nodes()
            yield nodes.address
        finally:
            nodes.shutdown()


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_jsonl(tmp_path_factory.mktemp("pairs") / "pairs.jsonl", rows(ROWS))


@pytest.fixture(scope="module")
def alone(pairs: Path) -> dict[str, bytes]:
    """The parts that one process writes."""
    out = pairs.parent / "alone"
    assert main(["score", str(pairs), str(out), "--part-rows", str(PART)]) == 0
    return {part.name: part.read_bytes() for part in parts(out)}


def started(pairs: Path, out: Path, cluster: str) -> "subprocess.Popen[str]":
    command = [*INTERRUPTIBLE, "score", str(pairs), str(out), "--part-rows", str(PART), "--ray", cluster]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for(process: "subprocess.Popen[str]", out: Path, count: int) -> None:
    """Until so many parts are in the journal."""
    deadline = time.monotonic() + DEADLINE
    while not (out / "_raskrank.jsonl").exists() or len(journal(out)) < count:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_worker_that_is_killed_costs_its_part_alone(
    pairs: Path, alone: dict[str, bytes], cluster: str, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    process = started(pairs, out, cluster)
    wait_for(process, out, 4)
    victim = int(journal(out)[-1]["worker"].rpartition(":")[2])
    os.kill(victim, signal.SIGSTOP)  # so that nothing happens between looking and killing
    before = states(out)
    assert WEIGHTS in Path(f"/proc/{victim}/maps").read_text("utf-8")  # so that all processes of a node share their pages
    os.kill(victim, signal.SIGKILL)
    said, errors = process.communicate(timeout=DEADLINE)
    assert process.returncode == 0, errors
    lines = journal(out)
    assert 4 <= len(before) < len(alone)
    assert {part.name: part.read_bytes() for part in parts(out)} == alone
    assert sorted(line["part"] for line in lines) == sorted(alone)  # each once
    assert [path.name for path in out.iterdir() if path.name.startswith(".")] == []
    again = [name for name, state in before.items() if states(out)[name] != state]
    assert len(again) <= 1  # a part that was in place, of which nobody knew yet
    assert len({line["worker"] for line in lines}) >= 3  # two, and the one that came for the one that was killed
    assert f"{ROWS:,} pairs" in said
    assert "of one of the 2 machines" in said
    assert "Traceback" not in errors


def test_a_run_that_was_stopped_goes_on_in_one_process(
    pairs: Path, alone: dict[str, bytes], cluster: str, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    process = started(pairs, out, cluster)
    wait_for(process, out, 2)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=DEADLINE)
    assert process.returncode == 130
    assert "parts are done; the same command goes on from there" in errors
    assert "Traceback" not in errors
    before = {line["part"] for line in journal(out)}
    assert 2 <= len(before) < len(alone)
    state = states(out)
    assert main(["score", str(pairs), str(out), "--part-rows", str(PART)]) == 0
    assert {part.name: part.read_bytes() for part in parts(out)} == alone
    assert {name for name in state if states(out)[name] == state[name]} >= before


def test_what_is_wrong_with_a_row_is_said_once_and_without_its_text(cluster: str, tmp_path: Path) -> None:
    items = [{"query": SECRET, "document": SECRET} for _ in range(40)]
    items[33] = {"query": SECRET, "document": 7}  # type: ignore[dict-item]
    file, out = write_jsonl(tmp_path / "p.jsonl", items), tmp_path / "out"
    command = [*INTERRUPTIBLE, "score", str(file), str(out), "--part-rows", "10", "--ray", cluster]
    process = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE, check=False)
    assert process.returncode == 2
    assert process.stderr.count('p.jsonl, line 34: "document" is no text, but int') == 1
    assert SECRET not in process.stderr + process.stdout
    assert "Traceback" not in process.stderr
    assert all(item["score"] is not None for item in read_jsonl(out))


def test_a_bundle_that_a_machine_lacks_is_an_error_in_plain_words(pairs: Path, cluster: str, tmp_path: Path) -> None:
    plan = Plan(Job(inputs=(pairs,), output=tmp_path / "out", part_rows=PART))
    model = Model(bundle=tmp_path / "gone", manifest_sha256="0" * 64)
    with Journal(tmp_path / "out", plan.asked(model)) as lines, connected(cluster, None) as found:
        assert (found.machines, found.cores, found.actors) == (2, 1, 2)
        with pytest.raises(MissingFile, match=r"no bundle at .*gone; make one with: raskrank export .* \(on "):
            run_on(found, plan, model, lines, lambda _: None)
    assert journal(tmp_path / "out") == []


def test_no_cluster_is_an_error_in_plain_words(pairs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["score", str(pairs), str(tmp_path / "out"), "--ray", "127.0.0.1:1"]) == 2
    assert "--ray: no cluster of Ray at 127.0.0.1:1" in capsys.readouterr().err


def test_more_threads_than_a_machine_has_are_refused(
    pairs: Path, cluster: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["score", str(pairs), str(tmp_path / "out"), "--threads", "2", "--ray", cluster]) == 2
    assert "--threads: no machine of the cluster has 2 cores; the largest has 1" in capsys.readouterr().err


@pytest.mark.parametrize("batch_format", ["numpy", "pyarrow"])
def test_a_pipeline_of_ones_own(batch_format: str, cluster: str, nano: Reranker) -> None:
    items = rows(30)
    ray.init(cluster, log_to_driver=False, logging_level="ERROR")
    try:
        scored = ray.data.from_items(items).map_batches(
            Scorer,
            fn_constructor_kwargs={"query_column": "query", "long_documents": "windows"},
            batch_format=batch_format,
            batch_size=8,
            num_cpus=1,
            compute=ray.data.ActorPoolStrategy(size=1),
        )
        found = sorted(scored.take_all(), key=lambda row: int(row["id"]))
    finally:
        ray.shutdown()
    expected = nano.assess([(item["query"], item["document"]) for item in items], long_documents="windows")
    assert [(np.float32(row["score"]), row["truncated"], (row["span_start"], row["span_end"])) for row in found] == [
        (np.float32(hit.score), hit.truncated, hit.span) for hit in expected
    ]
    assert [row["document"] for row in found] == [item["document"] for item in items]


def arrays() -> dict[str, Any]:
    return {"query": np.array(["a", "a"], object), "document": np.array(["b", None], object)}


def test_the_scorer_works_without_a_cluster() -> None:
    scorer = Scorer(threads=1, bad_rows="null", long_documents=Windows(max_windows=2))
    found, table = scorer(arrays()), scorer(pa.table(arrays()))
    assert np.isnan(found["score"]).tolist() == [False, True]
    assert (found["span_start"].tolist(), found["span_end"].tolist()) == ([0, -1], [1, -1])
    assert found["truncated"].tolist() == [False, False]
    assert table.column_names == ["query", "document", "score", "truncated", "span_start", "span_end"]
    assert [value is None for value in table["score"].to_pylist()] == [False, True]
    assert table["score"][0].as_py() == found["score"][0]


@pytest.mark.parametrize(
    ("batch", "says"),
    [
        (arrays(), 'batch, row 1 .counted from 0.: "document" is null; bad_rows="null"'),
        ({"query": np.array(["a"])}, 'no column is called "document"; see query_column and document_column'),
        ({**arrays(), "score": np.zeros(2)}, 'has a column "score" already; prefix='),
        (["a"], "expected batch_format"),
    ],
    ids=["null", "missing", "taken", "list"],
)
def test_the_scorer_says_what_is_wrong(batch: Any, says: str) -> None:
    with pytest.raises(InputError, match=says):
        Scorer(threads=1)(batch)
