"""The description of the interface is valid, and the server does what it says, as schemathesis finds out."""

import re
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import schemathesis  # noqa: F401  a process of its own
import uvicorn  # noqa: F401  needs the extra server
from openapi_spec_validator import OpenAPIV31SpecValidator, validate

from raskrank.server import openapi
from serving import Server, serving

CONFIG = Path(__file__).with_name("schemathesis.toml")
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serving("--max-documents", "20", "--max-text-chars", "2000", ends=False) as running:  # it warns of what is no HTTP
        yield running


@pytest.fixture(scope="module")
def described(server: Server) -> Any:
    return server.ask("GET", "/openapi.json").json


def test_it_is_valid_openapi(described: Any) -> None:
    validate(described, cls=OpenAPIV31SpecValidator)
    assert described["openapi"].startswith("3.1")


def test_the_server_does_what_it_says(server: Server, tmp_path: Path) -> None:
    command = [
        str(Path(sys.executable).with_name("schemathesis")),
        "--config-file",
        str(CONFIG),
        "run",
        f"{server.url}/openapi.json",
    ]
    done = subprocess.run(
        [*command, "--checks", "all", "--max-examples", "30", "--no-color"],
        cwd=tmp_path,
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert "11 passed" in done.stdout


def test_nothing_failed_of_all_that(server: Server) -> None:
    assert server.outcome("ok") > 0
    assert server.outcome("invalid") > 0
    assert server.outcome("failed") == 0


def test_every_example_is_answered(server: Server, described: Any) -> None:
    for path in openapi.RERANK:
        content = described["paths"][path]["post"]["requestBody"]["content"]["application/json"]
        for example in content["examples"].values():
            assert server.post(path, example["value"]).status == 200


class Reader(HTMLParser):
    """What a page shows, and what it makes a browser fetch or run."""

    def __init__(self) -> None:
        super().__init__()
        self.text = ""
        self.fetched: list[str | None] = []
        self.inline = 0

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        values = dict(attributes)
        self.fetched += [values[name] for name in ("src", "href") if name in values and tag != "a"]
        self.inline += tag == "script" and "src" not in values
        self.inline += tag == "style" or any(name == "style" or name.startswith("on") for name in values)

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.mark.parametrize("path", ["/", "/docs"])
def test_pages_fetch_nothing_from_elsewhere_and_have_a_strict_policy(server: Server, path: str) -> None:
    page = server.ask("GET", path)
    reader = Reader()
    reader.feed(page.body.decode())
    assert reader.inline == 0
    for address in reader.fetched:
        assert address is not None
        assert not re.match("[a-z]+:|/", address)
        assert server.ask("GET", f"/{address}").status == 200
    policy = page.headers["content-security-policy"].split("; ")
    assert {"default-src 'none'", "script-src 'self'", "base-uri 'none'", "frame-ancestors 'none'"} <= set(policy)
    assert "unsafe" not in page.headers["content-security-policy"]
    assert page.headers["x-content-type-options"] == "nosniff"


def test_the_page_of_the_interface_names_every_path_field_and_status(server: Server, described: Any) -> None:
    reader = Reader()
    reader.feed(server.ask("GET", "/docs").body.decode())
    fields = {
        name for body in ("TextsRequest", "DocumentsRequest") for name in described["components"]["schemas"][body]["properties"]
    }
    statuses = described["paths"]["/rerank"]["post"]["responses"]
    assert not [name for name in (*described["paths"], *fields, *statuses) if name not in reader.text]
