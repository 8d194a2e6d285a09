"""The documentation says what is so: its examples print what they show, its commands exist, and the site builds by itself."""

import itertools
import json
import re
import runpy
import statistics
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

import command_reference
import raskrank
import raskrank_export
from paths import ROOT
from raskrank.manifest import MANIFEST, Manifest

DOCS = ROOT / "docs"
EXAMPLES = (ROOT / "README.md", DOCS / "quickstart.md", DOCS / "long-documents.md")
EXAMPLE = re.compile(r"```python\n(.*?)```\n\n```text\n(.*?)```", re.DOTALL)
SCORE = re.compile(r"\d\.\d+")
ROUNDING = 0.02  # of a score in another machine's last digits, shown with two
# What a page may make a browser fetch while it is read; links are for the reader to follow.
FETCHED = {"script": "src", "img": "src", "link": "href", "iframe": "src", "source": "src"}


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: file.name)
def test_the_example_prints_what_it_shows(file: Path, tmp_path: Path) -> None:
    found = EXAMPLE.search(file.read_text("utf-8"))
    assert found is not None
    code, shown = found.groups()
    assert len(code.strip().splitlines()) <= 11
    script = tmp_path / "example.py"
    script.write_text(code, "utf-8")
    done = subprocess.run(
        [sys.executable, "-X", "utf8", str(script)], cwd=tmp_path, capture_output=True, encoding="utf-8", timeout=60, check=True
    )
    assert SCORE.sub("", done.stdout) == SCORE.sub("", shown)
    printed, expected = ([float(score) for score in SCORE.findall(text)] for text in (done.stdout, shown))
    assert printed == pytest.approx(expected, abs=ROUNDING)
    assert len(printed) == 2


def blocks(page: str) -> list[tuple[str, str]]:
    """Each Python block of a page, and what it is said to print; "" where nothing is."""
    text = (DOCS / page).read_text("utf-8")
    return re.findall(r"```python\n(.*?)```(?:\n\n```text\n(.*?)```)?", text, re.DOTALL)


@pytest.mark.parametrize(("code", "shown"), blocks("applications.md"), ids=map(str, itertools.count()))
def test_each_block_of_the_page_on_applications_prints_what_it_shows(code: str, shown: str, tmp_path: Path) -> None:
    script = tmp_path / "example.py"
    script.write_text(code, "utf-8")
    done = subprocess.run(
        [sys.executable, "-X", "utf8", str(script)],
        cwd=tmp_path,
        capture_output=True,
        encoding="utf-8",
        timeout=60,
        check=False,
    )
    assert (done.stderr, done.stdout) == ("", shown)
    assert shown


def test_the_numbers_of_the_first_screen_are_those_of_the_results() -> None:
    screen = " ".join((ROOT / "README.md").read_text("utf-8").partition("## Start")[0].split())
    vnni, avx2, amx = (_result(name) for name in ("zen5-vnni-2-cores", "zen3-avx2-2-cores", "xeon-amx-16-cores"))
    ours, torch, openvino = "Raskrank int8", "sentence-transformers torch", "OpenVINO int8 direct, streams"
    mixed, start = {name: seconds(vnni, "mixed-100", name) for name in (ours, torch)}, vnni["start"]
    first, resident = ({name: statistics.median(start[name][key]) for name in (ours, torch)} for key in ("first", "resident"))
    peers = [name for name in vnni["workloads"]["pair"]["contenders"] if not name.startswith("Raskrank")]
    alone = min(seconds(vnni, "pair", name) for name in peers)
    pair = max(
        seconds(result, "pair", ours) / seconds(result, "pair", name)
        for result in (avx2, amx)
        for name in result["workloads"]["pair"]["contenders"]
    )
    for claim in (
        f"**{mixed[torch] / mixed[ours]:.1f} times as fast** as sentence-transformers on PyTorch: "
        f"100 passages in {mixed[ours]:.2f} s instead of {mixed[torch]:.1f} s",
        f"after {first[ours]:.2f} s** instead of {first[torch]:.1f} s",
        f"{resident[ours] / 1e6:.0f} MB of memory instead of {resident[torch] / 1e6:.0f} MB",
        f"is {seconds(avx2, 'mixed-100', torch) / seconds(avx2, 'mixed-100', ours):.1f} on 2 cores with AVX2 alone",
        f"{seconds(amx, 'mixed-100', torch) / seconds(amx, 'mixed-100', ours):.1f} on 16 cores of an Intel Xeon with AMX",
        f"by up to {pair:.1f} times",
        f"takes {seconds(vnni, 'mixed-100', openvino) / mixed[ours]:.1f} times as long",
        f"{alone / seconds(vnni, 'pair', ours):.1f} times as long on one pair alone",
    ):
        assert claim in screen


def _result(machine: str) -> Any:
    return json.loads((ROOT / "benchmarks" / "results" / f"{machine}.minilm.json").read_text("utf-8"))


def seconds(result: Any, workload: str, contender: str) -> float:
    return float(statistics.median(result["workloads"][workload]["contenders"][contender]["seconds"]))


def test_the_page_of_commands_is_what_help_prints() -> None:
    committed = command_reference.PAGE.read_text("utf-8")
    # Versions of Python break the lines of a usage in other places.
    assert committed.split() == command_reference.page().split(), "run: python tests/command_reference.py"


def test_the_reference_has_every_public_name() -> None:
    text = (DOCS / "api.md").read_text("utf-8")
    public = {f"{module.__name__}.{name}" for module in (raskrank, raskrank_export) for name in module.__all__}
    errors = {f"raskrank.{name}" for name in raskrank.__all__ if hasattr(raskrank.errors, name)}  # shown as a module
    assert set(re.findall(r"^::: (raskrank(?:_export)?\.\w+)$", text, re.MULTILINE)) == (
        public - errors - {"raskrank.__version__"} | {"raskrank.errors"}
    )
    methods = {f"raskrank.Reranker.{name}" for name in dir(raskrank.Reranker) if not name.startswith("_")}
    assert set(re.findall(r"^::: (raskrank\.Reranker\.\w+)$", text, re.MULTILINE)) == methods


def test_the_digest_is_computed_as_the_format_says(tmp_path: Path) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", (DOCS / "bundle-format.md").read_text("utf-8"), re.DOTALL)
    script = tmp_path / "format.py"
    script.write_text(code, "utf-8")
    is_whole = runpy.run_path(str(script))["manifest_is_whole"]
    manifest = ROOT / "engine" / "raskrank" / "nano" / MANIFEST
    assert is_whole(manifest)
    other = tmp_path / MANIFEST
    other.write_bytes(manifest.read_bytes().replace(b'"nano"', b'"mini"'))
    assert not is_whole(other)


def test_the_format_names_every_key_of_a_manifest() -> None:
    text = (DOCS / "bundle-format.md").read_text("utf-8")
    manifest = json.loads((ROOT / "engine" / "raskrank" / "nano" / MANIFEST).read_text("utf-8"))
    keys = set(_keys({key: value for key, value in manifest.items() if key not in ("files", "versions")}))
    assert set(Manifest.__dataclass_fields__) < keys | {"files", "versions"}
    # What a pass is called is up to the exporter.
    assert not {key for key in keys - set(manifest["recipe"]["passes"]) if f"`{key}`" not in text}


def _keys(value: object) -> Iterator[str]:
    for key, inner in value.items() if isinstance(value, dict) else ():
        yield key
        yield from _keys(inner)


@pytest.mark.parametrize("file", sorted(ROOT.glob("[A-Z]*.md")), ids=lambda file: file.name)
def test_links_to_files_lead_somewhere(file: Path) -> None:
    targets = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", file.read_text("utf-8"))
    assert not [target for target in targets if not (ROOT / target).exists()]


@pytest.mark.skipif(find_spec("mkdocs") is None, reason="needs the extra docs")
def test_the_site_builds_strictly_and_fetches_nothing(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, encoding="utf-8", timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    pages = list(tmp_path.rglob("*.html"))
    assert len(pages) > 10
    assert not {address for page in pages for address in _fetched(page) if re.match("[a-z]+:|//", address)}


def _fetched(page: Path) -> list[str]:
    parser = _Addresses()
    parser.feed(page.read_text("utf-8"))
    return parser.found


class _Addresses(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        values = dict(attributes)
        if values.get("rel") not in ("canonical", "prev", "next"):
            self.found += [address for name in [FETCHED.get(tag)] if name and (address := values.get(name))]
