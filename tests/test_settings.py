"""Which model is loaded: every way to name it, their order, the cache of hub models, and what each mistake is told."""

import os
import pickle
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import bundles
from conftest import LOOSE, Tiny
from paths import ROOT
from processes import run_script
from raskrank import BundleError, CheckpointError, InputError, MissingFile, Reranker, settings_files
from raskrank.checkpoint.registry import DEFAULT_MODEL
from raskrank.cli.main import main
from raskrank.settings import (
    CACHE,
    ENVIRONMENT,
    Choice,
    as_folder,
    cache_folder,
    choose,
    choose_for_command,
    default_output,
    value_for,
)
from raskrank.settings_files import MAX_SETTINGS_BYTES
from raskrank.torch_backend import local_checkpoint
from raskrank_export import export

QUERY, DOCUMENTS = "Hvem kan Python?", ["Sykepleier i turnus", "Utvikler med erfaring i Python", "Dyrepasser"]
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home, with nothing set that names a model or a cache."""
    for name in (ENVIRONMENT, CACHE, "XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    folder = tmp_path / "home"
    folder.mkdir()
    monkeypatch.setenv("HOME", str(folder))
    return folder


@pytest.fixture(autouse=True)
def project(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder of every test: project/service, where nothing names a model. Returns project."""
    folder = tmp_path / "project"
    (folder / "service").mkdir(parents=True)
    monkeypatch.chdir(folder / "service")
    return folder


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cache"
    monkeypatch.setenv(CACHE, str(folder))
    return folder


def make(folder: Path) -> Path:
    folder.mkdir(parents=True)
    return folder


def copy_nano(folder: Path) -> Path:
    return bundles.copy_bundle(Choice(folder=None, named_by="").path, folder)


def chosen() -> Choice:
    """What the command line loads where no --bundle is given."""
    return choose_for_command(None, lambda _: None)


def pyproject(model: str) -> str:
    return f'[project]\nname = "søk"\n\n[tool.raskrank]\nmodel = "{model}"\n'


# Order


def test_the_order_of_precedence(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here, above = project / "service", project
    named = [str(make(tmp_path / f"bundle{number}")) for number in range(6)]
    monkeypatch.setenv(ENVIRONMENT, named[1])
    files = [here / "raskrank.toml", here / "pyproject.toml", above / "raskrank.toml", above / "pyproject.toml"]
    for file, model in zip(files, named[2:], strict=True):
        file.write_text(pyproject(model) if file.name == "pyproject.toml" else f'model = "{model}"\n', "utf-8")

    assert choose(named[0]) == Choice(folder=Path(named[0]), named_by="argument")
    assert chosen() == Choice(folder=Path(named[1]), named_by="environment variable RASKRANK_MODEL")
    monkeypatch.setenv(ENVIRONMENT, "")
    for file, model in zip(files, named[2:], strict=True):
        assert chosen() == Choice(folder=Path(model), named_by=str(file))
        file.unlink()
    assert chosen() == Choice(folder=None, named_by="embedded model")


def test_the_order_is_documented(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    text = capsys.readouterr().out.partition("which model runs")[2]
    assert str(cache_folder()) in text
    levels = ["RASKRANK_MODEL", "raskrank.toml", "pyproject.toml", "embedded model"]
    places = [text.index(level) for level in levels]
    assert places == sorted(places)
    docstring = Reranker.load.__doc__ or ""
    assert docstring.index("RASKRANK_MODEL names") < docstring.index("embedded model")


def test_a_library_reads_no_settings_file(project: Path) -> None:
    (project / "service" / "raskrank.toml").write_text("this is no TOML")
    (project / "service" / "pyproject.toml").write_text("[tool.raskrank]\nmodel = 3")
    assert choose(None).named_by == "embedded model"
    with Reranker.load() as reranker:
        assert reranker.info().model_from == "embedded model"


def test_what_is_not_needed_is_not_read(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (project / "raskrank.toml").write_text("this is no TOML")
    bundle = make(tmp_path / "bundle")
    assert choose(str(bundle)).folder == bundle
    monkeypatch.setenv(ENVIRONMENT, str(bundle))
    assert chosen().folder == bundle
    monkeypatch.delenv(ENVIRONMENT)
    (project / "service" / "raskrank.toml").write_text(f'model = "{bundle}"')
    assert chosen().folder == bundle


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("raskrank.toml", "# not yet\n"),
        ("pyproject.toml", '[project]\nname = "søk"\n'),
        ("pyproject.toml", '[project]\nname = "søk"\n[tool.ruff]\nline-length = 100\n'),
        ("pyproject.toml", "[tool.raskrank]\n"),
        ("pyproject.toml", "tool = 3\n"),
        ("pyproject.toml", 'model = "not ours"\n'),
    ],
)
def test_a_file_that_names_no_model_is_passed_over(name: str, content: str, project: Path, tmp_path: Path) -> None:
    (project / "service" / name).write_text(content, "utf-8")
    assert chosen().named_by == "embedded model"
    (project / "raskrank.toml").write_text(f'model = "{make(tmp_path / "bundle")}"')
    assert chosen().named_by == str(project / "raskrank.toml")


@pytest.mark.parametrize("kind", [Path.mkdir, os.mkfifo])
@pytest.mark.timeout(20)
def test_what_is_no_file_is_passed_over(kind: Callable[[Path], object], project: Path) -> None:
    kind(project / "raskrank.toml")
    assert chosen().named_by == "embedded model"


@pytest.mark.parametrize("content", ["[project\n", "\ufeff[", "x = " + "[" * 100_000, "x = 1\nx = 2\n", "#" * 2**21])
def test_another_programs_broken_pyproject_stops_nothing(content: str, project: Path) -> None:
    (project / "service" / "pyproject.toml").write_text(content, "utf-8")
    assert chosen().named_by == "embedded model"
    assert main(["info"]) == 0


@pytest.mark.timeout(20)
def test_settings_files_of_hundreds_of_megabytes(project: Path, tmp_path: Path) -> None:
    bundle = make(tmp_path / "bundle")
    for name in ("pyproject.toml", "raskrank.toml"):
        with (project / "service" / name).open("wb") as file:
            file.write(f'[tool.raskrank]\nmodel = "{bundle}"\n#'.encode())
            file.truncate(500 * 2**20)
    with pytest.raises(InputError, match=rf"raskrank\.toml cannot be read .*more than {MAX_SETTINGS_BYTES:,} bytes"):
        chosen()
    (project / "service" / "raskrank.toml").unlink()
    assert chosen().named_by == "embedded model"


@pytest.mark.timeout(60)
@pytest.mark.parametrize("start", ["a" + ".a" * 1000 + "=1\n", "[[a]]\n", "a = [" + "1," * 1000, "[" * 500])
def test_the_largest_settings_file_is_read_or_refused_in_time(start: str, project: Path) -> None:
    content = (start * MAX_SETTINGS_BYTES)[: MAX_SETTINGS_BYTES - 100]
    (project / "service" / "raskrank.toml").write_text(content)
    with pytest.raises(InputError):
        chosen()


# Where the search ends


@pytest.mark.parametrize("kind", [Path.mkdir, Path.touch])
def test_the_search_ends_at_the_root_of_the_repository(kind: Callable[[Path], object], project: Path, tmp_path: Path) -> None:
    (tmp_path / "raskrank.toml").write_text(f'model = "{make(tmp_path / "bundle")}"')
    assert chosen().named_by == str(tmp_path / "raskrank.toml")
    kind(project / ".git")
    assert chosen().named_by == "embedded model"
    (project / "pyproject.toml").write_text(pyproject(str(tmp_path / "bundle")), "utf-8")
    assert chosen().named_by == str(project / "pyproject.toml")


def test_the_search_ends_at_home(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "raskrank.toml").write_text(f'model = "{make(tmp_path / "bundle")}"')
    monkeypatch.chdir(make(home / "work"))
    assert chosen().named_by == "embedded model"
    (home / "raskrank.toml").write_text(f'model = "{tmp_path / "bundle"}"')
    assert chosen().named_by == str(home / "raskrank.toml")


def test_the_search_ends_where_another_file_system_begins(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (project / "raskrank.toml").write_text(f'model = "{make(project / "bundle")}"')
    assert chosen().named_by == str(project / "raskrank.toml")
    devices = settings_files._device
    monkeypatch.setattr(settings_files, "_device", lambda folder: devices(folder) if folder.name == "service" else -1)
    assert chosen().named_by == "embedded model"


@pytest.mark.parametrize("link", [False, True])
def test_another_users_file_chooses_no_model(
    link: bool, project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if os.geteuid():
        pytest.skip("needs root, to give a file to another user")
    bundle, file = make(tmp_path / "bundle"), project / "service" / "raskrank.toml"
    (project / "raskrank.toml").write_text(f'model = "{bundle}"')
    if link:
        file.symlink_to(project / "raskrank.toml")
    else:
        file.write_text("this is no TOML")
    os.chown(file, 12345, -1, follow_symlinks=False)
    said: list[str] = []
    assert choose_for_command(None, said.append).named_by == str(project / "raskrank.toml")
    assert said[0] == (f"warning: {file} is passed over: it belongs to user 12345, and counts only if it is yours or root's")
    assert said[1:] == [f"model {bundle}, named by {project / 'raskrank.toml'}"]


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_a_model_that_a_file_chose_is_said_once(
    options: list[str], project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle, file = copy_nano(tmp_path / "bundle"), project / "raskrank.toml"
    file.write_text(f'model = "{bundle}"')
    documents = tmp_path / "documents.txt"
    documents.write_text("Sykepleier\nUtvikler\n")
    for command in (["info"], ["rank", QUERY, str(documents)]):
        assert main([*command, *options]) == 0
        assert capsys.readouterr().err == f"raskrank: model {bundle}, named by {file}\n"
        assert main([*command, *options, "--bundle", str(bundle)]) == 0
        assert capsys.readouterr().err == ""


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


# Files that cannot be used


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        (
            "raskrank.toml",
            b"model = bge",
            r"cannot be read for the model to load: .*line 1.*; mend it, or name .* --bundle or RASKRANK_MODEL",
        ),
        ("pyproject.toml", b"[tool.raskrank\n", "cannot be read .*line 1"),
        ("pyproject.toml", b"[tool.raskrank]\nmodel = '\xff'", "cannot be read .*utf-8"),
        ("raskrank.toml", b'model = "a"\nmodel = "b"', "cannot be read .*Cannot overwrite a value"),
        ("raskrank.toml", b'model = "\xff"', "cannot be read .*utf-8"),
        ("raskrank.toml", b"model = " + b"[" * 100_000, "cannot be read .*nested too deeply"),
        ("raskrank.toml", b'modell = "a"', r"raskrank\.toml: unknown key 'modell'; the only one is 'model'"),
        ("raskrank.toml", b'[tool.raskrank]\nmodel = "a"', r"raskrank\.toml: unknown key 'tool'"),
        (
            "pyproject.toml",
            b'[tool.raskrank]\nmodel = "a"\nthreads = 3',
            r"pyproject\.toml: \[tool\.raskrank\] unknown key 'thr",
        ),
        ("raskrank.toml", b"model = 3", r"raskrank\.toml: model: expected a string, .*, got int"),
        ("pyproject.toml", b'[tool.raskrank]\nmodel = ["a"]', r"\[tool\.raskrank\] model: expected a string, .*, got list"),
        ("pyproject.toml", b"[tool.raskrank.model]", r"\[tool\.raskrank\] model: expected a string, .*, got dict"),
        ("raskrank.toml", b'model = ""', r"raskrank\.toml: model: expected .*, got an empty string"),
        ("pyproject.toml", b'[tool]\nraskrank = "a"', r"pyproject\.toml: tool\.raskrank: expected a table .*, got str"),
    ],
)
def test_a_settings_file_that_cannot_be_used(name: str, content: bytes, said: str, project: Path) -> None:
    (project / name).write_bytes(content)
    with pytest.raises(InputError, match=said) as raised:
        chosen()
    assert str(raised.value).startswith(str(project / name))


def test_a_settings_file_that_may_not_be_read(project: Path) -> None:
    if not Path("/proc/self/mem").exists():
        pytest.skip("needs Linux's /proc/self/mem, a file whose start cannot be read")
    (project / "raskrank.toml").symlink_to("/proc/self/mem")
    with pytest.raises(InputError, match=r"raskrank\.toml cannot be read .*Input/output error"):
        chosen()


def test_the_command_line_calls_it_wrong_use(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (project / "raskrank.toml").write_text("model = 3")
    assert main(["info"]) == 2
    assert capsys.readouterr().err.startswith(f"raskrank: error: {project / 'raskrank.toml'}: model: expected a string")


@given(st.text() | st.text().map(lambda text: f"model = {text}") | st.binary().map(lambda data: data.decode("latin-1")))
@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_file_is_used_or_refused(project: Path, content: str) -> None:
    (project / "raskrank.toml").write_text(content, "utf-8", errors="surrogatepass")
    with suppress(InputError, MissingFile):
        assert chosen().named_by in ("embedded model", str(project / "raskrank.toml"))


# What runs


@pytest.mark.parametrize("named_by", ["argument", "environment variable RASKRANK_MODEL", "file", "embedded model"])
def test_info_says_what_named_the_model(
    named_by: str, project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = copy_nano(project / "bundle") if named_by != "embedded model" else Choice(folder=None, named_by="").path
    options = ["--bundle", "../bundle"] if named_by == "argument" else []
    if named_by.startswith("environment"):
        monkeypatch.setenv(ENVIRONMENT, "../bundle")
    if named_by == "file":
        named_by = str(project / "pyproject.toml")
        (project / "pyproject.toml").write_text(pyproject("bundle"), "utf-8")
    with Reranker.load(choose_for_command("../bundle" if options else None, lambda _: None)) as reranker:
        info = reranker.info()
    assert info.model_from == named_by
    assert Path(info.bundle or "").is_absolute()
    assert bundle.samefile(info.bundle or "")
    assert main(["info", *options]) == 0
    assert f"\nmodel from            {named_by}\n" in capsys.readouterr().out


def test_a_checkpoint_alone_reads_no_setting(tiny: Tiny, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ENVIRONMENT, "nowhere")
    (project / "raskrank.toml").write_text("this is no TOML")
    with Reranker.load(backend="torch", checkpoint=tiny.checkpoint()) as reranker:
        assert (reranker.info().bundle, reranker.info().model_from) == (None, "argument")


# Other processes


@pytest.fixture(params=["argument", "variable", "file", "hub id", "embedded"])
def elsewhere(
    request: pytest.FixtureRequest, project: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Reranker]:
    """A Reranker, and meanwhile nothing around it as it was when it was loaded."""
    here = project / "service"
    copy_nano(here / "bundle")
    if request.param == "variable":
        monkeypatch.setenv(ENVIRONMENT, "bundle")
    if request.param == "file":
        (here / "raskrank.toml").write_text('model = "bundle"')
    if request.param == "hub id":
        (here / "bundle").rename(make(cache) / "owner--name--int8")
        monkeypatch.setenv(ENVIRONMENT, "owner/name")
    with Reranker.load("bundle" if request.param == "argument" else chosen()) as reranker:
        monkeypatch.setenv(ENVIRONMENT, "somewhere else")
        monkeypatch.setenv(CACHE, "somewhere else")
        monkeypatch.chdir(make(tmp_path / "elsewhere"))
        (here / "raskrank.toml").unlink(missing_ok=True)
        yield reranker


def test_a_pickle_means_the_same_model_everywhere(elsewhere: Reranker) -> None:
    with pickle.loads(pickle.dumps(elsewhere)) as again:
        assert again.info() == elsewhere.info()
        assert again.score(QUERY, DOCUMENTS).tobytes() == elsewhere.score(QUERY, DOCUMENTS).tobytes()
        with pickle.loads(pickle.dumps(again)) as third:
            assert third.info() == elsewhere.info()


def test_a_worker_process_loads_the_same_model(tmp_path: Path, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = bundles.edit(copy_nano(project / "bundle"), name="mine")
    monkeypatch.chdir(project)
    with Reranker.load("bundle") as reranker:
        (tmp_path / "pickled").write_bytes(pickle.dumps(reranker))
    source = """
    import pickle, sys
    from pathlib import Path
    with pickle.loads(Path(sys.argv[1]).read_bytes()) as reranker:
        print(reranker.info().name, reranker.info().bundle)
    """
    worker = run_script(tmp_path, source, str(tmp_path / "pickled"), env={ENVIRONMENT: "somewhere else"})
    assert worker.stdout == f"mine {bundle}\n"


def test_the_embedded_model_is_that_of_the_process(home: Path) -> None:
    # Where the package is installed differs between machines.
    with Reranker.load() as reranker:
        assert str(Choice(folder=None, named_by="").path).encode() not in pickle.dumps(reranker)


def test_a_pickled_checkpoint_is_found_from_another_folder(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tiny.checkpoint().parent)
    with Reranker.load(backend="torch", checkpoint=tiny.checkpoint().name) as reranker:
        monkeypatch.chdir("/")
        with pickle.loads(pickle.dumps(reranker)) as again:
            assert again.info() == reranker.info()


# export


@pytest.fixture
def hub(tiny: Tiny, offline_hub: Path) -> None:
    """The hub's cache holds owner/tiny alone."""
    model = offline_hub / "models--owner--tiny"
    make(model / "refs").joinpath("main").write_text(COMMIT)
    shutil.copytree(tiny.checkpoint(), model / "snapshots" / COMMIT)


@pytest.mark.usefixtures("hub")
def test_a_hub_model_is_exported_into_the_cache_and_used_by_its_id(
    tiny: Tiny, cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--precision", "fp32", "--samples", str(tiny.samples)]
    assert main(["export", "owner/tiny", *options]) == 0
    assert f"written to {cache / 'owner--tiny--fp32'}\nuse it with RASKRANK_MODEL=owner/tiny\n" in capsys.readouterr().out
    monkeypatch.setenv(ENVIRONMENT, "owner/tiny")
    with Reranker.load() as reranker:
        info = reranker.info()
    assert (info.bundle, info.source, info.revision) == (str(cache / "owner--tiny--fp32"), "owner/tiny", COMMIT)


@pytest.mark.usefixtures("hub")
def test_without_a_model_the_default_one_is_exported(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export"]) == 1
    assert f"{DEFAULT_MODEL} was not downloaded: HF_HUB_OFFLINE is set" in capsys.readouterr().err
    assert not cache.exists()


@pytest.mark.usefixtures("hub")
@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("{checkpoint}", "OUTPUT is missing, .*: raskrank export {checkpoint} OUTPUT"),
        ("./here/local", r"OUTPUT is missing, .*: raskrank export \./here/local OUTPUT"),
        ("bge-reranker-base", "OUTPUT is missing, .*: raskrank export bge-reranker-base OUTPUT"),
        ("", "OUTPUT is missing"),
    ],
)
def test_a_local_folder_needs_an_output(
    model: str, expected: str, tiny: Tiny, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make(Path("here/local"))
    assert main(["export", model.format(checkpoint=tiny.checkpoint())]) == 2
    assert re.search(expected.format(checkpoint=tiny.checkpoint()), capsys.readouterr().err)
    assert not cache.exists()


@pytest.mark.usefixtures("hub")
def test_an_id_is_exported_from_the_hub_whatever_folders_there_are(
    tiny: Tiny, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make(Path("owner/tiny"))
    options = ["--precision", "fp32", "--samples", str(tiny.samples)]
    assert main(["export", "owner/tiny", *options]) == 0
    assert (cache / "owner--tiny--fp32").is_dir()
    make(Path("owner/other"))
    assert main(["export", "owner/other", *options]) == 1
    assert "; for the folder of that name write ./owner/other." in capsys.readouterr().err


@pytest.mark.parametrize("as_path", [False, True])
def test_a_folder_is_recorded_as_one_and_verified(
    as_path: bool, tiny: Tiny, project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(tiny.checkpoint(), "owner/mine")
    model: str | Path = Path("owner/mine") if as_path else "./owner/mine"
    report = export(model, "bundles/mine", precision="fp32", samples=tiny.samples)
    assert report.manifest.source.model == "./owner/mine"
    assert report.manifest.name == "mine"
    assert main(["verify", "--bundle", "./bundles/mine", "--pairs", str(tiny.samples)]) == 0
    assert main(["verify", "--bundle", "bundles/mine", "--pairs", str(tiny.samples)]) == 2
    assert "; for the folder of that name write ./bundles/mine\n" in capsys.readouterr().err


def test_a_manifest_that_names_a_hub_model_takes_no_folder(tiny: Tiny, offline_hub: Path) -> None:
    shutil.copytree(tiny.checkpoint(), "owner/tiny")
    with pytest.raises(CheckpointError, match="the checkpoint owner/tiny is neither"):
        local_checkpoint("owner/tiny", None)
    assert local_checkpoint("./owner/tiny", None) == Path("owner/tiny")


def test_names_that_are_not_utf8(tiny: Tiny, project: Path) -> None:
    checkpoint = Path(shutil.copytree(tiny.checkpoint(), project / "c\udcff"))
    for call in (lambda: export(checkpoint, "out"), lambda: Reranker.load(backend="torch", checkpoint=checkpoint)):
        with pytest.raises(CheckpointError, match=r"c\\udcff.* its path is not UTF-8"):
            call()
    samples = Path(shutil.copyfile(tiny.samples, project / "s\udcff.jsonl"))
    corpus = Path(shutil.copyfile(tiny.samples, project / "c\udcff.txt"))  # the samples' words, a line of JSON a text
    corpus.write_text(corpus.read_text("utf-8").replace("{", "(") * 10, "utf-8")
    report = export(tiny.checkpoint(), "out", precision="fp32", samples=samples, trim_vocab=[corpus], thresholds=LOOSE)
    assert report.manifest.parity["samples"] == "s\\udcff.jsonl"
    assert report.manifest.vocabulary is not None
    assert report.manifest.vocabulary.corpus[0].name == "c\\udcff.txt"


@pytest.mark.usefixtures("hub")
def test_the_output_may_stand_after_options(tiny: Tiny, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "my bundle"
    assert main(["export", str(tiny.checkpoint()), "--precision", "fp32", "--samples", str(tiny.samples), str(output)]) == 0
    assert capsys.readouterr().out.endswith(f"written to {output}\nuse it with RASKRANK_MODEL='{output}'\n")


def test_bundles_of_one_model_lie_beside_each_other(cache: Path) -> None:
    assert default_output("owner/name", "int8") == cache / "owner--name--int8"
    assert default_output("owner/name", "fp32") == cache / "owner--name--fp32"


def test_the_value_to_use_is_one_that_leads_there(cache: Path, project: Path) -> None:
    fp32 = make(cache / "owner--name--fp32")
    assert value_for("owner/name", fp32) == "owner/name"
    int8 = make(cache / "owner--name--int8")
    assert value_for("owner/name", int8) == "owner/name"
    assert value_for("owner/name", fp32) == str(fp32)
    assert value_for("owner/name", Path("bundles/mine")) == "./bundles/mine"
    assert value_for("../checkpoint", Path("mine")) == "mine"


# The example


def test_the_example_runs_as_a_script(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name != ENVIRONMENT}
    script = ROOT / "examples" / "test_reranking.py"
    done = subprocess.run(
        [sys.executable, "-W", "error", str(script)],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        encoding="utf-8",
        timeout=60,
        check=True,
    )
    assert done.stderr == ""
    tops = re.findall(r"^ +(\d) +1 +\d\.\d{3}  ", done.stdout, re.MULTILINE)
    assert tops == ["3", "2", "4", "4"]
