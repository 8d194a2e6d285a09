"""Which model is loaded: every way to name it, their order, and files that cannot be used."""

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from conftest import Tiny
from projects import QUERY, chosen, copy_nano, make, pyproject
from raskrank import InputError, MissingFile, Reranker, settings_files
from raskrank.cli.main import main
from raskrank.settings import ENVIRONMENT, Choice, cache_folder, choose, choose_for_command
from raskrank.settings_files import MAX_SETTINGS_BYTES

pytestmark = pytest.mark.usefixtures("project")


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
