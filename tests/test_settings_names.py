"""What names a model: paths, ids of hub models, and what each mistake is told."""

import sys
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from projects import chosen, copy_nano, make, pyproject
from raskrank import BundleError, InputError, MissingFile, Reranker
from raskrank.settings import CACHE, ENVIRONMENT, as_folder, cache_folder, choose, default_output, value_for

pytestmark = pytest.mark.usefixtures("project")


# Paths


@pytest.mark.parametrize("name", ["raskrank.toml", "pyproject.toml"])
@pytest.mark.parametrize("model", ["bundle", "./bundles/bge", "../project/bundles/bge", "models/rerank/bge", "bundle æøå"])
def test_a_path_in_a_file_starts_at_the_file(name: str, model: str, project: Path) -> None:
    (project / name).write_text(pyproject(model) if name == "pyproject.toml" else f'model = "{model}"', "utf-8")
    make(project / model)
    folder = chosen().path
    assert folder.is_absolute()
    assert folder.samefile(project / model)


@pytest.mark.parametrize("by_variable", [False, True])
def test_other_paths_start_at_the_current_folder(by_variable: bool, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = make(project / "service" / "bundles" / "bge")
    if by_variable:
        monkeypatch.setenv(ENVIRONMENT, "./bundles/bge")
    assert choose(None if by_variable else "./bundles/bge").folder == bundle


def test_home_is_expanded(home: Path, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = make(home / "bundle")
    assert choose("~/bundle").folder == bundle
    monkeypatch.setenv(ENVIRONMENT, "~/bundle")
    assert chosen().folder == bundle
    monkeypatch.delenv(ENVIRONMENT)
    (project / "raskrank.toml").write_text('model = "~/bundle"')
    assert chosen().folder == bundle


def test_a_link_is_not_resolved(project: Path) -> None:
    # "current" may lead to another bundle by the time that another process loads it.
    make(project / "first")
    (project / "service" / "current").symlink_to(project / "first")
    assert choose("current").folder == project / "service" / "current"


def test_where_the_current_folder_is_gone(project: Path) -> None:
    (project / "service").rmdir()
    with Reranker.load() as reranker:
        assert reranker.info().model_from == "embedded model"
    with pytest.raises(MissingFile, match="no bundle at bundle"):
        Reranker.load("bundle")


# Hub ids


def test_a_hub_id_is_looked_up_in_the_cache(cache: Path, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = make(cache / "baai--bge-reranker-base--int8")
    make(cache / "baai--bge-reranker-base--fp32")
    assert choose("BAAI/bge-reranker-base").folder == bundle
    monkeypatch.setenv(ENVIRONMENT, "BAAI/bge-reranker-base")
    assert chosen().folder == bundle
    monkeypatch.delenv(ENVIRONMENT)
    (project / "pyproject.toml").write_text(pyproject("BAAI/bge-reranker-base"), "utf-8")
    assert chosen().folder == bundle


def test_fp32_is_meant_where_there_is_no_int8(cache: Path) -> None:
    bundle = make(cache / "owner--name--fp32")
    assert choose("owner/name").folder == bundle


def test_a_working_folder_does_not_choose_the_model(cache: Path, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (project / "raskrank.toml").write_text('model = "owner/name"')
    beside_the_file, here = make(project / "owner" / "name"), make(project / "service" / "owner" / "name")
    for call in (chosen, lambda: choose("owner/name")):
        with pytest.raises(MissingFile, match=r"; for the folder of that name write \./owner/name$"):
            call()
    bundle = make(cache / "owner--name--int8")
    assert chosen().folder == choose("owner/name").folder == bundle
    (project / "raskrank.toml").write_text('model = "./owner/name"')
    assert chosen().folder == beside_the_file
    assert choose("./owner/name").folder == choose(Path("owner/name")).folder == here
    monkeypatch.setenv(ENVIRONMENT, "owner/name")
    assert choose(None).folder == bundle
    monkeypatch.setenv(ENVIRONMENT, "./owner/name")
    assert choose(None).folder == here


def test_a_path_is_always_a_folder(cache: Path, project: Path) -> None:
    make(cache / "owner--name--int8")
    with pytest.raises(MissingFile, match="no bundle at owner/name; make one"):
        Reranker.load(Path("owner/name"))
    copy_nano(project / "service" / "owner" / "name")
    with Reranker.load(Path("owner/name")) as reranker:
        assert reranker.info().bundle == str(project / "service" / "owner" / "name")


@pytest.mark.parametrize("path", ["owner/name", "~", "~user", "name", "a/b/c", "../b", "a b/c", "~/a/b"])
def test_a_folder_written_as_one_is_no_hub_model(path: str, project: Path) -> None:
    folder = project / "service" / path
    folder.mkdir(parents=True, exist_ok=True)
    assert choose(as_folder(Path(path))).path.samefile(folder)


@pytest.mark.parametrize("name", ["Cross-Encoder/MS-MARCO-MiniLM-L6-v2", "cross-encoder/ms-marco-MiniLM-L-6-v2"])
def test_aliases_and_letter_case_lead_to_the_same_bundle(name: str, cache: Path) -> None:
    bundle = make(default_output("cross-encoder/ms-marco-MiniLM-L6-v2", "int8"))
    assert choose(name).folder == bundle
    assert default_output(name, "int8") == bundle
    assert value_for(name, bundle) == name
    assert default_output("Owner/Name", "fp32") == default_output("owner/name", "fp32")


def test_a_bundle_whose_path_is_not_utf8(project: Path) -> None:
    for folder in ("b\udcff", "\udcff/bundle"):
        copy_nano(project / folder)
        with pytest.raises(InputError, match=r"\\udcff.* cannot be a bundle's path: onnxruntime takes UTF-8 alone"):
            Reranker.load(project / folder)


@pytest.mark.parametrize(
    ("platform", "variables", "expected"),
    [
        ("linux", {}, "{home}/.cache/raskrank"),
        ("linux", {"XDG_CACHE_HOME": "{home}/xdg"}, "{home}/xdg/raskrank"),
        ("linux", {"XDG_CACHE_HOME": "", CACHE: ""}, "{home}/.cache/raskrank"),
        ("linux", {"XDG_CACHE_HOME": "{home}/xdg", CACHE: "{home}/own"}, "{home}/own"),
        ("linux", {CACHE: "~/own"}, "{home}/own"),
        ("darwin", {"XDG_CACHE_HOME": "{home}/xdg"}, "{home}/Library/Caches/raskrank"),
        ("win32", {}, "{home}/AppData/Local/raskrank"),
        ("win32", {"LOCALAPPDATA": "{home}/local"}, "{home}/local/raskrank"),
        ("win32", {CACHE: "{home}/own"}, "{home}/own"),
    ],
)
def test_the_cache_folder(
    platform: str, variables: dict[str, str], expected: str, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "platform", platform)
    for name, value in variables.items():
        monkeypatch.setenv(name, value.format(home=home))
    assert cache_folder() == Path(expected.format(home=home))


# Not there


def test_a_hub_id_without_a_bundle_says_how_to_export(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ENVIRONMENT, "BAAI/bge-reranker-base")
    with pytest.raises(MissingFile) as raised:
        Reranker.load()
    assert str(raised.value) == (
        f"no bundle of the hub model BAAI/bge-reranker-base in {cache} (named by environment variable RASKRANK_MODEL); "
        "make one with: raskrank export BAAI/bge-reranker-base"
    )


def test_a_folder_that_is_not_there_is_named_with_its_file(project: Path) -> None:
    file = project / "pyproject.toml"
    file.write_text(pyproject("models/rerank/bge"), "utf-8")
    folder = project / "models" / "rerank" / "bge"
    with pytest.raises(MissingFile) as raised:
        chosen()
    assert str(raised.value) == f"no bundle at {folder} (named by {file}); make one with: raskrank export MODEL {folder}"


def test_an_argument_needs_no_naming() -> None:
    with pytest.raises(MissingFile) as raised:
        Reranker.load("nowhere")
    assert str(raised.value) == "no bundle at nowhere; make one with: raskrank export MODEL nowhere"


@pytest.mark.parametrize(
    "value", ["a/b/c", "/a/b", "a/", "a b/c", "a/../b", "-a/b", "a\0/b", "~\0", "../b", "a/æ", "~nobody/b"]
)
def test_what_is_neither_a_folder_nor_a_hub_id(value: str) -> None:
    with pytest.raises(MissingFile, match="no bundle at") as raised:
        Reranker.load(value)
    assert "hub" not in str(raised.value)


@pytest.mark.parametrize("value", ["x" * 300, "owner/" + "x" * 300])
def test_a_name_too_long_for_a_path(value: str) -> None:
    with pytest.raises(BundleError, match=r"File name too long|no bundle (at|of)"):
        Reranker.load(value)


@given(st.text() | st.from_regex(r"~?[\w.\0-]*(/[\w.\0~-]*)*"))
@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_text_names_a_folder_or_nothing(text: str) -> None:
    with suppress(MissingFile):
        assert choose(text).path.is_absolute()
