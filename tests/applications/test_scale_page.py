"""The page about bulk scoring says what is so: each block of it runs, where there are pairs.parquet and the bundle ./bge."""

import json
import re
import runpy
import shutil
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest
import ray
from pyarrow import dataset, parquet

import bundles
from command import DEADLINE, INTERRUPTIBLE
from pairs import rows
from paths import ROOT

PAGE = (ROOT / "docs" / "scale.md").read_text("utf-8")
SHELL, PYTHON = (re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL) for language in ("sh", "python"))
PREFIX = "raskrank "

pytestmark = pytest.mark.filterwarnings("ignore:.*deprecated", "ignore::ResourceWarning")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The current one."""
    folder = tmp_path_factory.mktemp("scale")
    parquet.write_table(pa.Table.from_pylist(rows(60)), folder / "pairs.parquet")
    bundles.copy_bundle(ROOT / "engine" / "raskrank" / "nano", folder / "bge")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.delenv("RAY_ADDRESS", raising=False)
        yield folder


@pytest.fixture(scope="module")
def cluster(folder: Path) -> Iterator[Path]:
    """A cluster of one node, whose processes are in the folder too."""
    ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    yield folder
    ray.shutdown()


def test_every_block_is_tried_here() -> None:
    assert len(re.findall(r"^```\w", PAGE, re.MULTILINE)) == len(SHELL) + len(PYTHON) + 1  # how a cluster is started
    assert (len(SHELL), len(PYTHON)) == (3, 2)


@pytest.mark.parametrize("block", SHELL)
def test_the_commands_score(block: str, folder: Path) -> None:
    (line,) = block.splitlines()
    command = [*INTERRUPTIBLE, *line.removeprefix(PREFIX).split()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=2 * DEADLINE, check=False)  # it starts a cluster
    assert done.returncode == 0, done.stderr
    output = folder / next(word for word in line.split() if word.endswith("/"))
    columns = dataset.dataset(output).to_table().column_names
    shutil.rmtree(output)
    assert columns[:5] == ["id", "query", "document", "score", "truncated"]
    assert ("span_start" in columns) is ("windows" in line)


def test_the_pipeline_keeps_what_is_relevant(cluster: Path) -> None:
    (cluster / "pipeline.py").write_text(PYTHON[0], "utf-8")
    runpy.run_path(str(cluster / "pipeline.py"))
    found = dataset.dataset(cluster / "relevant").to_table()
    assert 0 < found.num_rows < 60
    assert min(found["score"].to_pylist()) > 0.5
    assert "span_end" in found.column_names


@pytest.mark.timeout(120)
def test_the_server_answers_on_ray_serve(cluster: Path) -> None:
    (cluster / "serving.py").write_text(PYTHON[1], "utf-8")
    from ray import serve  # which warns while it is imported

    try:
        runpy.run_path(str(cluster / "serving.py"), run_name="__main__")  # what is in it goes to other processes
        body = json.dumps({"query": "Hvem kan Python?", "documents": ["Sykepleier", "Utvikler i Python"]}).encode()
        request = urllib.request.Request("http://127.0.0.1:8000/rerank", body, {"content-type": "application/json"})
        answer = json.loads(_answered(request))
        assert [result["index"] for result in answer["results"]] == [1, 0]
    finally:
        serve.shutdown()


def _answered(request: urllib.request.Request) -> bytes:
    """Once the model is loaded."""
    deadline = time.monotonic() + DEADLINE
    while True:
        try:
            with urllib.request.urlopen(request, timeout=DEADLINE) as response:
                content: bytes = response.read()
                return content
        except urllib.error.HTTPError as error:
            if error.code != 503 or time.monotonic() > deadline:
                raise
        time.sleep(0.1)
