"""Models that were named, elsewhere: other processes, and exports into the cache."""

import os
import pickle
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import bundles
from conftest import LOOSE, Tiny
from paths import ROOT
from processes import run_script
from projects import COMMIT, DOCUMENTS, QUERY, chosen, copy_nano, make
from raskrank import CheckpointError, Reranker
from raskrank.checkpoint.registry import DEFAULT_MODEL
from raskrank.cli.main import main
from raskrank.settings import CACHE, ENVIRONMENT, Choice, default_output, value_for
from raskrank.torch_backend import local_checkpoint
from raskrank_export import export

pytestmark = pytest.mark.usefixtures("project")


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
