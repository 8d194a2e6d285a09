"""Every block of docs/server.md does what it shows."""

import json
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cohere  # noqa: F401  what the examples import
import langchain_cohere  # noqa: F401
import litellm  # noqa: F401
import llama_index.postprocessor.tei_rerank  # noqa: F401
import pytest
import uvicorn  # noqa: F401  needs the extra server

from paths import ROOT
from raskrank.cli.arguments import parse
from serving import Server, serving

PAGE = (ROOT / "docs" / "server.md").read_text("utf-8")
BLOCKS = re.findall(r"```(\w+)\n(.*?)```(?:\n\n```(json|text)\n(.*?)```)?", PAGE, re.DOTALL)
SCORE = re.compile(r"\d\.\d+")
ROUNDING = 0.02  # of a score in another machine's last digits


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serving() as running:
        yield running


def kind(language: str) -> list[Any]:
    return [block for block in BLOCKS if block[0] == language]


def test_nothing_is_left_out() -> None:
    assert {block[0] for block in BLOCKS} == {"bash", "python"}
    assert len(BLOCKS) == len(re.findall("^```[a-z]", PAGE, re.MULTILINE)) - sum(bool(block[2]) for block in BLOCKS)


@pytest.mark.parametrize("block", kind("python"), ids=lambda block: block[1].split()[1])
def test_an_example_prints_what_it_shows(block: tuple[str, str, str, str], server: Server, tmp_path: Path) -> None:
    _, code, _, shown = block
    script = tmp_path / "example.py"
    script.write_text(code.replace("http://127.0.0.1:8000", server.url), "utf-8")
    done = subprocess.run([sys.executable, str(script)], capture_output=True, encoding="utf-8", check=False)
    assert done.returncode == 0, done.stderr
    assert SCORE.sub("", done.stdout) == SCORE.sub("", shown)
    printed, expected = ([float(score) for score in SCORE.findall(text)] for text in (done.stdout, shown))
    assert printed == pytest.approx(expected, abs=ROUNDING)


def test_the_commands_are_commands(server: Server) -> None:
    for _, code, _, shown in kind("bash"):
        if shown:
            line = code.replace("http://127.0.0.1:8000", server.url)
            done = subprocess.run(["bash", "-c", line], capture_output=True, encoding="utf-8", check=True)
            assert like(json.loads(done.stdout)) == like(json.loads(shown))
            continue
        for line in code.splitlines():
            words = shlex.split(line)
            if words[0] == "raskrank":
                assert parse(words[1:]).command == "serve"
            else:
                assert words == ["pip", "install", "raskrank[server]"]


def like(value: object) -> object:
    """The same where only scores differ in their last digits, or an id and a time."""
    if isinstance(value, dict):
        return {name: like(inner) for name, inner in value.items() if name not in ("id", "created")}
    if isinstance(value, list):
        return [like(inner) for inner in value]
    return round(value, 1) if isinstance(value, float) else value


def test_every_metric_path_and_field_of_ours_is_named(server: Server) -> None:
    lines = server.ask("GET", "/metrics").body.decode().splitlines()
    metrics = {line.split()[2] for line in lines if line.startswith("# TYPE") and not line.split()[2].endswith("_created")}
    described = server.ask("GET", "/openapi.json").json
    paths = set(described["paths"])
    assert not [name for name in (*metrics, *paths, "long_documents", "score_threshold", "deadline") if name not in PAGE]
