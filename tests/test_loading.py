"""From the arguments of Reranker.load to a model that runs: which bundle, whether it is the right one, and what fits it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bundles
from conftest import Tiny
from raskrank import Corrupt, Incompatible, InferenceError, InputError, MissingFile, Reranker, loading, onnx_backend, planning
from raskrank.bundle import open_bundle
from raskrank.manifest import FILES, MANIFEST, MODEL, TOKENIZER, WEIGHTS
from raskrank.onnx_backend import OnnxBackend
from raskrank.settings import ENVIRONMENT, bundle_path
from raskrank_export.write import bundle_folder

QUERY, DOCUMENTS = "Hvem kan Python?", ["Python og SQL", "Sykepleier", "", "ord " * 200]


@pytest.fixture
def folder(tiny: Tiny, tmp_path: Path) -> Path:
    return bundles.copy_bundle(tiny.bundle("bert", "int8"), tmp_path / "bundle")


@pytest.fixture
def nano(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the embedded model, with pairs spread over cores that are idle, here from the first on."""
    monkeypatch.setattr(onnx_backend, "SPREAD_ALONE", 0)
    monkeypatch.setattr(planning, "SPREAD_MIN_WORK", 0)
    return bundles.copy_bundle(bundle_path(None), tmp_path / "nano")


@pytest.fixture(autouse=True)
def unset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(ENVIRONMENT, raising=False)


# Which bundle


def test_without_argument_the_embedded_model_is_loaded() -> None:
    with Reranker.load() as reranker:
        info = reranker.info()
    assert (info.name, info.backend, info.license, info.languages) == ("nano", "onnx", "apache-2.0", ("nb", "en"))


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


# Tokenizers


def more_pieces(tokenizer: dict[str, Any]) -> None:
    tokenizer["model"]["vocab"] |= {f"piece{number}": len(tokenizer["model"]["vocab"]) + number for number in range(5)}


def an_added_token_beyond(tokenizer: dict[str, Any]) -> None:
    last = dict(tokenizer["added_tokens"][-1], id=len(tokenizer["model"]["vocab"]), content="[NEW]")
    tokenizer["added_tokens"].append(last)


@pytest.mark.parametrize(("change", "largest"), [(more_pieces, 719), (an_added_token_beyond, 715)])
def test_ids_beyond_the_embeddings(folder: Path, change: Callable[[dict[str, Any]], None], largest: int) -> None:
    bundles.edit_tokenizer(folder, change)
    with pytest.raises(Incompatible, match=f"the tokenizer has ids up to {largest}, the model embeds 715") as raised:
        Reranker.load(folder)
    assert str(folder) in str(raised.value)


def test_an_id_that_the_vocabulary_leaves_a_gap_for_fails_its_run(folder: Path) -> None:
    # Counting the ids at load would cost every start; the exporter refuses such a tokenizer, and onnxruntime such an id.
    bundles.edit_tokenizer(folder, lambda tokenizer: tokenizer["model"]["vocab"].update({"q": 5000}))
    with Reranker.load(folder) as reranker, pytest.raises(InferenceError, match="onnxruntime failed"):
        reranker.score("q", ["q"])


def test_a_vocabulary_smaller_than_the_tokenizer(folder: Path) -> None:
    with pytest.raises(Incompatible, match="ids up to 714, the model embeds 714"):
        Reranker.load(bundles.edit(folder, vocab_size=714))


def another_order(tokenizer: dict[str, Any]) -> None:
    vocabulary = tokenizer["model"]["vocab"]
    pieces = [piece for piece, id in vocabulary.items() if id > 4]
    tokenizer["model"]["vocab"] = {**vocabulary, **dict(zip(pieces, range(714, 4, -1), strict=True))}


def another_case(tokenizer: dict[str, Any]) -> None:
    tokenizer["normalizer"]["lowercase"] = False


def another_layout(tokenizer: dict[str, Any]) -> None:
    tokenizer["post_processor"]["pair"][-1]["SpecialToken"]["id"] = "[CLS]"


def no_special_tokens(tokenizer: dict[str, Any]) -> None:
    tokenizer["post_processor"] = None


@pytest.mark.parametrize("change", [another_order, another_case, another_layout, no_special_tokens])
def test_another_tokenizer_of_the_same_size_fails_the_self_test(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    bundles.edit_tokenizer(folder, change)
    with pytest.raises(Incompatible, match=r"the self-test gives -?[\d.]+ instead of .* do not belong together") as raised:
        Reranker.load(folder)
    assert str(folder) in str(raised.value)


@pytest.mark.parametrize(("ours", "theirs"), [("bert", "xlm-roberta"), ("xlm-roberta", "bert")])
def test_the_tokenizer_of_another_bundle(tiny: Tiny, tmp_path: Path, ours: Any, theirs: Any) -> None:
    folder = bundles.copy_bundle(tiny.bundle(ours, "int8"), tmp_path / "bundle")
    (folder / TOKENIZER).write_bytes((tiny.bundle(theirs, "int8") / TOKENIZER).read_bytes())
    with pytest.raises(Incompatible, match=r"the self-test gives|ids up to 714, the model embeds"):
        Reranker.load(bundles.sign(folder))


def no_piece_for_the_unknown(tokenizer: dict[str, Any]) -> None:
    tokenizer["model"]["unk_token"] = "[NONE]"


def a_special_token_of_no_id(tokenizer: dict[str, Any]) -> None:
    tokenizer["post_processor"]["special_tokens"]["[SEP]"]["ids"] = [4_000_000_000]


def a_template_of_one_text(tokenizer: dict[str, Any]) -> None:
    tokenizer["post_processor"]["pair"] = tokenizer["post_processor"]["single"]


def a_template_in_the_wrong_order(tokenizer: dict[str, Any]) -> None:
    tokenizer["post_processor"]["pair"].reverse()


def a_template_that_panics(tokenizer: dict[str, Any]) -> None:
    tokenizer["post_processor"]["special_tokens"]["[NEW]"] = tokenizer["post_processor"]["special_tokens"].pop("[SEP]")


def another_kind_of_model(tokenizer: dict[str, Any]) -> None:
    tokenizer["model"]["type"] = "Newer"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (no_piece_for_the_unknown, "cannot use its tokenizer.json: .*[Mm]issing .*from the vocabulary"),
        (a_special_token_of_no_id, "the model does not run: .*tokens"),
        (a_template_of_one_text, "cannot use its tokenizer.json|does not encode a pair of texts"),
        (a_template_in_the_wrong_order, "template for a pair is not"),
        (a_template_that_panics, "cannot use its tokenizer.json"),
        (another_kind_of_model, "cannot use its tokenizer.json"),
        (dict.clear, "cannot use its tokenizer.json"),
    ],
)
def test_a_tokenizer_that_cannot_be_used(folder: Path, change: Callable[[dict[str, Any]], None], message: str) -> None:
    bundles.edit_tokenizer(folder, change)
    with pytest.raises(Incompatible, match=message) as raised:
        Reranker.load(folder)
    assert str(folder) in str(raised.value)


@pytest.mark.parametrize("content", [b"", b"<!DOCTYPE html>", b"\xff\xfe", b"null", b"[" * 100_000])
def test_a_signed_file_that_is_no_tokenizer(folder: Path, content: bytes) -> None:
    (folder / TOKENIZER).write_bytes(content)
    with pytest.raises(Incompatible, match=r"tokenizers [\d.]+ cannot use its tokenizer\.json"):
        Reranker.load(bundles.sign(folder))


@pytest.mark.parametrize("family", ["bert", "xlm-roberta"])
@pytest.mark.parametrize("max_length", range(5))
def test_a_length_without_room_for_text(tiny: Tiny, tmp_path: Path, family: Any, max_length: int) -> None:
    folder = bundles.copy_bundle(tiny.bundle(family, "int8"), tmp_path / "bundle")
    with pytest.raises(Incompatible, match=f"max_length {max_length} leaves no room for text beside [34] special") as raised:
        Reranker.load(bundles.edit(folder, max_length=max_length))
    assert str(folder) in str(raised.value)


# Self-test


def test_signed_weights_of_another_model_fail_the_self_test(folder: Path) -> None:
    content = bytearray((folder / WEIGHTS).read_bytes())
    content[::5] = bytes(len(content[::5]))
    (folder / WEIGHTS).write_bytes(content)
    with pytest.raises(Incompatible, match=r"the self-test gives .* instead of"):
        Reranker.load(bundles.sign(folder))


def test_signed_weights_that_are_nan_fail_the_self_test(tiny: Tiny, tmp_path: Path) -> None:
    folder = bundles.copy_bundle(tiny.bundle("bert", "fp32"), tmp_path / "bundle")
    weights = np.frombuffer((folder / WEIGHTS).read_bytes(), np.float32)
    (folder / WEIGHTS).write_bytes(np.full_like(weights, np.nan).tobytes())
    with pytest.raises(Incompatible, match="the self-test gives nan instead of"):
        Reranker.load(bundles.sign(folder))


@pytest.mark.parametrize(
    "updates",
    [
        {"self_test__logit": 3.25},
        {"self_test__logit": 1e308},
        {"self_test__tolerance": 0.0, "self_test__logit": 0},
        {"self_test__tolerance": -1.0},
        {"self_test__query": "Nurse"},
        {"self_test__document": ""},
    ],
)
def test_a_self_test_that_does_not_hold(folder: Path, updates: dict[str, Any]) -> None:
    with pytest.raises(Incompatible, match=r"the self-test gives .* \(tolerance .*this CPU computes otherwise"):
        Reranker.load(bundles.edit(folder, **updates))


def test_a_self_test_within_its_tolerance(folder: Path) -> None:
    test = bundles.read(folder)["self_test"]
    bundles.edit(folder, self_test__logit=test["logit"] + test["tolerance"] * 0.8)
    with Reranker.load(folder) as reranker:
        assert reranker.score(QUERY, DOCUMENTS).shape == (4,)


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
        old = OnnxBackend(
            (nano / MODEL).read_bytes(), nano, ("input_ids", "token_type_ids"), concurrency=1, hidden_size=128, groups=True
        )
        put(nano, another(nano))
        new = OnnxBackend(
            (nano / MODEL).read_bytes(), nano, ("input_ids", "token_type_ids"), concurrency=1, hidden_size=128, groups=True
        )
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
        Reranker.load(bundles.edit_graph(folder, change))


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
