"""From the arguments of Reranker.load to a model that runs: which bundle, pinned or replaced, and how long its texts are."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bundles
from conftest import Tiny
from raskrank import Corrupt, Incompatible, InferenceError, InputError, MissingFile, Reranker, kernels, loading, onnx_backend
from raskrank.bundle import open_bundle
from raskrank.manifest import FILES, MANIFEST, TOKENIZER, WEIGHTS
from raskrank.onnx_backend import OnnxBackend
from raskrank.settings import ENVIRONMENT, bundle_path
from raskrank_export.write import bundle_folder

QUERY, DOCUMENTS = "Hvem kan Python?", ["Python og SQL", "Sykepleier", "", "ord " * 200]


@pytest.fixture
def nano(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the embedded model, with pairs spread over cores that are idle, here from the first on."""
    monkeypatch.setattr(onnx_backend, "SPREAD_ALONE", 0)
    monkeypatch.setattr(OnnxBackend, "min_share", 1)
    return bundles.copy_bundle(bundle_path(None), tmp_path / "nano")


@pytest.fixture(autouse=True)
def unset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(ENVIRONMENT, raising=False)


# Which bundle


def test_without_argument_the_embedded_model_is_loaded() -> None:
    with Reranker.load() as reranker:
        info = reranker.info()
    assert (info.name, info.license, info.languages) == ("nano", "apache-2.0", ("nb", "en"))
    assert info.backend == ("onnx" if kernels.unavailable() else "native")


def test_the_environment_names_the_bundle(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ENVIRONMENT, str(folder))
    with Reranker.load() as reranker:
        assert reranker.info().bundle == str(folder)


def test_an_argument_comes_before_the_environment(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ENVIRONMENT, "absent")
    with Reranker.load(folder) as reranker:
        assert reranker.info().bundle == str(folder)
    with pytest.raises(MissingFile, match="no bundle at absent"):
        Reranker.load()


def test_an_empty_environment_variable_names_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ENVIRONMENT, "")
    with Reranker.load() as reranker:
        assert reranker.info().name == "nano"


@pytest.mark.parametrize("kind", [str, Path, lambda path: f"{path}/", lambda path: f"{path}/../bundle//."])
def test_paths_of_each_kind(folder: Path, kind: Callable[[Path], str | Path]) -> None:
    with Reranker.load(kind(folder)) as reranker:
        assert reranker.score(QUERY, DOCUMENTS).shape == (4,)


@pytest.mark.parametrize("name", ["æøå Ünïcode 文件 🐍", "a b\tc\nd", "'quoted\" %s {0} $HOME", "-dash", "e\u0301"])
def test_paths_with_odd_names(tiny: Tiny, tmp_path: Path, name: str) -> None:
    folder = bundles.copy_bundle(tiny.bundle("bert", "int8"), tmp_path / name / "bundle")
    with Reranker.load(folder) as reranker, Reranker.load(tiny.bundle("bert", "int8")) as original:
        assert np.array_equal(reranker.score(QUERY, DOCUMENTS), original.score(QUERY, DOCUMENTS))
    (folder / WEIGHTS).unlink()
    with pytest.raises(MissingFile) as raised:
        Reranker.load(folder)
    assert str(folder / WEIGHTS) in str(raised.value)


def test_a_relative_path_stays_the_same_folder(nano: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(nano.parent)
    with Reranker.load(nano.name, threads=2) as reranker:
        (tmp_path / "elsewhere").mkdir()
        monkeypatch.chdir(tmp_path / "elsewhere")
        alone = reranker.score(QUERY, DOCUMENTS[-1:])  # long and alone: only now is it spread over cores
        assert alone == reranker.score(QUERY, DOCUMENTS)[-1:]
    with pytest.raises(MissingFile, match="no bundle at nano"):
        Reranker.load(nano.name)


def test_a_link_that_later_leads_elsewhere(nano: Path, tmp_path: Path) -> None:
    # A deployment switches "current" while a process runs.
    (tmp_path / "current").symlink_to(nano)
    with Reranker.load(tmp_path / "current", threads=2) as reranker:
        expected = reranker.score(QUERY, DOCUMENTS)
        (tmp_path / "current").unlink()
        assert reranker.score(QUERY, DOCUMENTS[-1:]) == expected[-1:]


# Pinning


@pytest.mark.parametrize("pin", ["", "0" * 63, "0" * 65, "g" * 64, "0" * 64 + "\n", " " + "0" * 64, "0x" + "0" * 62, "٠" * 64])
def test_a_malformed_pin_is_an_input_error(pin: str) -> None:
    with pytest.raises(InputError, match=f"expected_sha256: expected 64 hexadecimal digits, got {len(pin)} characters"):
        Reranker.load("absent", expected_sha256=pin)


@pytest.mark.parametrize("pin", [b"0" * 64, 7, ["0" * 64]])
def test_a_pin_is_a_str(pin: Any) -> None:
    with pytest.raises(InputError, match=f"expected_sha256: expected str, got {type(pin).__name__}"):
        Reranker.load("absent", expected_sha256=pin)


def test_a_pin_needs_a_bundle(tiny: Tiny) -> None:
    with pytest.raises(InputError, match="expected_sha256: it pins a bundle"):
        Reranker.load(backend="torch", checkpoint=tiny.checkpoint("bert"), expected_sha256="0" * 64)


@pytest.mark.parametrize("case", [str.lower, str.upper])
def test_a_pin_in_either_case(folder: Path, case: Callable[[str], str]) -> None:
    pin = open_bundle(folder).manifest_sha256
    with Reranker.load(folder, expected_sha256=case(pin)) as reranker:
        assert reranker.info().manifest_sha256 == pin


@pytest.mark.parametrize(
    "options", [{}, {"fallback": "torch"}, {"backend": "torch"}, {"fallback": "torch", "checkpoint": "absent"}]
)
def test_another_manifest_than_the_pinned_one_is_corrupt(folder: Path, options: dict[str, Any]) -> None:
    pin = open_bundle(folder).manifest_sha256
    bundles.edit(folder, name="another")
    with pytest.raises(Corrupt, match=f"expected_sha256 is {pin}"):
        Reranker.load(folder, expected_sha256=pin, **options)


def test_a_pinned_bundle_with_a_damaged_file_does_not_fall_back(folder: Path) -> None:
    pin = open_bundle(folder).manifest_sha256
    (folder / TOKENIZER).write_bytes(b"{}")
    with pytest.raises(Corrupt, match=r"tokenizer\.json: 2 bytes"):
        Reranker.load(folder, expected_sha256=pin, fallback="torch")


# Bundles that are replaced


def put(folder: Path, files: dict[str, bytes]) -> None:
    """Export over `folder`, as `raskrank export --overwrite` does."""
    with bundle_folder(folder, overwrite=True) as temp:
        for name, content in files.items():
            (temp / name).write_bytes(content)


def another(folder: Path) -> dict[str, bytes]:
    """The files of a bundle of the same size that scores otherwise."""
    files = {name: (folder / name).read_bytes() for name in (*FILES, MANIFEST)}
    table = len(files[WEIGHTS]) - 1_600_000
    files[WEIGHTS] = files[WEIGHTS][:table] + files[WEIGHTS][:table:-1] + files[WEIGHTS][table : table + 1]
    return files


def test_an_export_over_a_loaded_bundle_changes_none_of_its_scores(nano: Path) -> None:
    with Reranker.load(nano, threads=2) as reranker, Reranker.load(nano, threads=2) as early:
        expected = reranker.score(QUERY, DOCUMENTS)
        assert early.score(QUERY, DOCUMENTS[-1:]) == expected[-1:]  # spread over cores before, and `reranker` only after
        ids = np.arange(5, 205)[None]
        old = bundles.backend(nano)
        put(nano, another(nano))
        new = bundles.backend(nano)
        assert old.logits(ids, np.zeros_like(ids)) != new.logits(ids, np.zeros_like(ids))
        for loaded in (reranker, early):
            for documents in (DOCUMENTS, DOCUMENTS[-1:], DOCUMENTS[:1]):
                scores = loaded.score(QUERY, documents)
                assert np.array_equal(scores, expected[[DOCUMENTS.index(document) for document in documents]])


def test_a_loaded_bundle_outlives_its_folder(nano: Path) -> None:
    with Reranker.load(nano, threads=2) as reranker:
        expected = reranker.score(QUERY, DOCUMENTS)
        for name in (*FILES, MANIFEST):
            (nano / name).unlink()
        nano.rmdir()
        assert np.array_equal(reranker.score(QUERY, DOCUMENTS), expected)
        assert reranker.score(QUERY, DOCUMENTS[-1:]) == expected[-1:]


@pytest.mark.parametrize("change", ["swap", "remove"])
def test_what_happens_to_the_folder_while_loading_does_not_matter(
    nano: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    # The digest is of the bytes that are used. On newer releases onnxruntime wants the file to be there, though it is not read.
    files, check = another(nano), loading._check_target
    with Reranker.load(nano, threads=2) as reranker:
        expected = reranker.score(QUERY, DOCUMENTS)

    def changed(*arguments: Any, **named: Any) -> None:
        check(*arguments, **named)
        if change == "swap":
            put(nano, files)
        else:
            (nano / WEIGHTS).unlink()

    monkeypatch.setattr("raskrank.loading._check_target", changed)  # after the file is opened, before the sessions are made
    try:
        with Reranker.load(nano, threads=2) as reranker:
            assert np.array_equal(reranker.score(QUERY, DOCUMENTS), expected)
            assert np.array_equal(reranker.score(QUERY, DOCUMENTS[-1:]), expected[-1:])
    except Incompatible as error:
        assert change == "remove"
        assert "cannot load" in str(error)  # noqa: PT017  whether it is raised depends on onnxruntime's release


@pytest.mark.parametrize("value", [0, "no", None])
def test_whether_to_map_is_true_or_false(value: Any) -> None:
    with pytest.raises(InputError, match=f"map_weights: expected bool, got {type(value).__name__}"):
        Reranker.load(map_weights=value)


# Positions


def test_a_manifest_that_allows_more_tokens_than_the_graph_has_positions_for(folder: Path) -> None:
    with pytest.raises(Incompatible, match="manifest allows 129 tokens, its graph has positions for 128") as raised:
        Reranker.load(bundles.edit(folder, max_length=129))
    assert str(folder) in str(raised.value)
    with Reranker.load(bundles.edit(folder, max_length=100)) as reranker:
        assert reranker.info().max_length == 100


@pytest.mark.parametrize("stated", [None, "", "many", "-128", "1_28", "12.5", "٣", "9" * 4000])
def test_a_graph_that_does_not_say_its_positions(folder: Path, stated: str | None) -> None:
    def change(model: Any) -> None:
        del model.metadata_props[:]
        if stated is not None:
            model.metadata_props.add(key="max_length", value=stated)

    with pytest.raises(Incompatible, match="does not say how many tokens it has positions for; export the model again"):
        Reranker.load(bundles.edit_graph(folder, change), backend="onnx")


@pytest.mark.parametrize("family", ["bert", "xlm-roberta"])
def test_a_graph_runs_at_the_length_that_it_states_and_at_none_above(tiny: Tiny, family: Any) -> None:
    for precision in ("int8", "fp32"):
        with Reranker.load(tiny.bundle(family, precision), threads=1) as reranker:
            backend: Any = reranker._loaded.backend
            ids = np.full((1, backend.max_length), 7)
            assert backend.logits(ids, np.zeros_like(ids)).shape == (1,)
            longer = np.full((1, backend.max_length + 1), 7)
            with pytest.raises(InferenceError):
                backend.logits(longer, np.zeros_like(longer))
