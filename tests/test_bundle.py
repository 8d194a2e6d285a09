"""A bundle is whole or refused: missing, damaged and edited files, and every way for a manifest to be wrong."""

import hashlib
import json
import os
import random
import re
import subprocess
import sys
import typing
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import bundles
from conftest import Tiny
from processes import run_script
from raskrank import BundleError, Corrupt, Incompatible, MissingFile, Reranker
from raskrank.bundle import MAX_MANIFEST_BYTES, open_bundle, read_manifest
from raskrank.cli.main import main
from raskrank.manifest import (
    DIGEST,
    FILES,
    FORMAT,
    MANIFEST,
    MODEL,
    TOKENIZER,
    UNSIGNED,
    WEIGHTS,
    CorpusFile,
    Coverage,
    FileRecord,
    Manifest,
    Recipe,
    SelfTest,
    Source,
    Vocabulary,
    sign,
)
from raskrank.settings import bundle_path

HTML = b"<!DOCTYPE html>\n<html><head><title>404 Not Found</title></head><body>Not found</body></html>\n"
# Halves of surrogate pairs are no text: that they are refused has a test of its own.
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda children: st.lists(children, max_size=4) | st.dictionaries(TEXT, children, max_size=4),
    max_leaves=12,
)
COUNT = st.integers(0, 2**63 - 1)
FINITE = st.floats(allow_nan=False, allow_infinity=False)
NAMES = st.lists(TEXT, max_size=3).map(tuple)
MANIFESTS = st.builds(
    Manifest,
    format=st.just("1.0"),
    name=TEXT,
    source=st.builds(
        Source,
        model=TEXT,
        revision=st.none() | TEXT,
        license=st.none() | TEXT,
        languages=NAMES,
        weights_sha256=TEXT,
        accepted_license=st.none() | TEXT,
    ),
    architecture=TEXT,
    parameters=COUNT,
    hidden_size=COUNT,
    max_length=COUNT,
    vocab_size=COUNT,
    pad_id=COUNT,
    inputs=NAMES,
    activation=st.sampled_from(["sigmoid", "identity"]),
    precision=st.sampled_from(["int8", "fp32"]),
    recipe=st.builds(
        Recipe,
        scheme=TEXT,
        groups=st.booleans(),
        activation_max=COUNT,
        weight_max=COUNT,
        per_channel=st.booleans(),
        excluded_nodes=NAMES,
        instruction_set=TEXT,
        passes=st.dictionaries(TEXT, COUNT, max_size=3),
    ),
    files=st.fixed_dictionaries({name: st.builds(FileRecord, size=COUNT, sha256=TEXT) for name in FILES}),
    versions=st.dictionaries(TEXT, TEXT, max_size=3),
    self_test=st.builds(SelfTest, query=TEXT, document=TEXT, logit=FINITE, tolerance=FINITE),
    parity=st.dictionaries(TEXT, JSON, max_size=3),
    vocabulary=st.none()
    | st.builds(
        Vocabulary,
        kept=COUNT,
        of=COUNT,
        unknown_id=COUNT,
        corpus=st.lists(st.builds(CorpusFile, name=TEXT, sha256=TEXT), max_size=2).map(tuple),
        coverage=st.builds(Coverage, texts=COUNT, held_back=COUNT, whole_texts=FINITE, tokens=FINITE),
    ),
)


@pytest.fixture
def folder(tiny: Tiny, tmp_path: Path) -> Path:
    return bundles.copy_bundle(tiny.bundle("bert", "int8"), tmp_path / "bundle")


@pytest.fixture
def values(tiny: Tiny) -> dict[str, Any]:
    return bundles.read(tiny.bundle("bert", "int8"))


def test_a_bundle_is_read_whole(folder: Path) -> None:
    bundle = open_bundle(folder)
    assert bundle.folder == folder.resolve()
    assert bundle.graph == (folder / MODEL).read_bytes()
    assert bundle.tokenizer == (folder / TOKENIZER).read_bytes()
    assert read_manifest(folder) == (bundle.manifest, bundle.manifest_sha256)
    assert bundle.manifest.to_json() == (folder / MANIFEST).read_text("utf-8")


# Missing files


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(MissingFile, match=r"is missing; .*raskrank export") as raised:
        Reranker.load(folder)
    assert str(folder / name) in str(raised.value)


def test_a_folder_without_a_manifest_says_how_to_export(folder: Path) -> None:
    (folder / MANIFEST).unlink()
    with pytest.raises(MissingFile, match=r"is not a bundle: no manifest\.json in it; .*raskrank export MODEL") as raised:
        Reranker.load(folder)
    assert str(folder) in str(raised.value)


@pytest.mark.parametrize("path", ["absent", "bundle/manifest.json", "bundle/absent/further", "nul\0nul"])
def test_where_there_is_no_folder(folder: Path, path: str) -> None:
    with pytest.raises(MissingFile, match=r"no bundle at .*raskrank export MODEL"):
        Reranker.load(folder.parent / path)


@pytest.mark.parametrize("name", [*FILES, MANIFEST])
def test_a_folder_in_place_of_a_file(folder: Path, name: str) -> None:
    (folder / name).unlink()
    (folder / name).mkdir()
    with pytest.raises(MissingFile, match=name):
        Reranker.load(folder)


# Damaged files


def damaged(content: bytes) -> Iterator[tuple[str, bytes]]:
    yield "0 bytes", b""
    yield "1 byte", content[:1]
    yield "half", content[: len(content) // 2]
    yield "minus 1 byte", content[:-1]
    yield "plus 64 bytes", content + bytes(64)
    yield "HTML page", HTML
    yield "HTML page of the same size", (HTML * (len(content) // len(HTML) + 1))[: len(content)]


@pytest.mark.parametrize("name", FILES)
def test_a_damaged_file_is_corrupt(folder: Path, name: str) -> None:
    for kind, content in damaged((folder / name).read_bytes()):
        (folder / name).write_bytes(content)
        with pytest.raises(Corrupt) as raised:
            Reranker.load(folder)
        assert str(folder / name) in str(raised.value), kind
        assert "contents differ" in str(raised.value) or "the manifest says" in str(raised.value), kind


def test_a_damaged_manifest_is_corrupt(folder: Path) -> None:
    content = (folder / MANIFEST).read_bytes()
    assert content.endswith(b"}\n")
    for kind, damage in damaged(content.rstrip()):
        (folder / MANIFEST).write_bytes(damage)
        with pytest.raises(Corrupt) as raised:
            Reranker.load(folder)
        assert str(folder) in str(raised.value), kind


@pytest.mark.parametrize("name", FILES)
def test_a_flipped_bit_is_corrupt(folder: Path, name: str) -> None:
    content = (folder / name).read_bytes()
    for bit in random.Random(name).sample(range(8 * len(content)), 200):
        changed = bytearray(content)
        changed[bit // 8] ^= 1 << bit % 8
        (folder / name).write_bytes(changed)
        with pytest.raises(Corrupt, match="contents differ from the manifest"):
            open_bundle(folder)


def test_each_flipped_bit_of_the_manifest_is_noticed(folder: Path) -> None:
    # One of them made max_length 512 into 112, and long documents scored otherwise without a word.
    content, loaded = (folder / MANIFEST).read_bytes(), []
    for bit in range(8 * len(content)):
        changed = bytearray(content)
        changed[bit // 8] ^= 1 << bit % 8
        try:
            Manifest.from_json(changed.decode())
        except (Corrupt, Incompatible, UnicodeDecodeError):
            continue
        loaded.append(bit)
    assert not loaded
    (folder / MANIFEST).write_bytes(content.replace(b'"max_length": 128', b'"max_length": 112'))
    with pytest.raises(Corrupt, match="is not as the export wrote it: its digest of itself does not fit") as raised:
        Reranker.load(folder)
    assert str(folder) in str(raised.value)


@pytest.mark.parametrize("digest", [None, 3, "", "0" * 64, "f" * 64, "F" * 64, "x" * 64])
def test_a_manifest_without_a_digest_that_fits_is_corrupt(values: dict[str, Any], digest: object) -> None:
    Manifest.from_json(bundles.text_of(values))
    with pytest.raises(Corrupt, match="digest of itself"):
        Manifest.from_json(json.dumps(values | {DIGEST: digest}))
    del values[DIGEST]
    with pytest.raises(Corrupt, match="has no digest of itself"):
        Manifest.from_json(json.dumps(values))


def test_the_digest_is_found_as_the_manual_says(folder: Path) -> None:
    # With hashlib alone, as a reader in any language would.
    content = (folder / MANIFEST).read_bytes()
    stated = json.loads(content)["digest"].encode()
    assert content.count(stated) == 1
    assert hashlib.sha256(content.replace(stated, b"0" * 64)).hexdigest().encode() == stated


def test_edited_file_and_manifest_load_unless_pinned(folder: Path) -> None:
    pin = open_bundle(folder).manifest_sha256
    assert open_bundle(folder, expected_sha256=pin.upper()).manifest_sha256 == pin
    bundles.edit_tokenizer(folder, lambda tokenizer: tokenizer.pop("truncation"))
    edited = open_bundle(folder)
    assert edited.manifest_sha256 != pin
    with pytest.raises(Corrupt, match=f"is {edited.manifest_sha256}, expected_sha256 is {pin}"):
        Reranker.load(folder, expected_sha256=pin)
    assert Reranker.load(folder, expected_sha256=edited.manifest_sha256).info().manifest_sha256 == edited.manifest_sha256


# Formats


@pytest.mark.parametrize(("version", "advice"), [("2.0", "upgrade raskrank"), ("17.3", "upgrade"), ("0.9", "export .* again")])
def test_another_major_format_is_refused(folder: Path, version: str, advice: str) -> None:
    bundles.write(folder, {"format": version})
    with pytest.raises(Incompatible, match=rf"bundle format {version}, this engine reads {FORMAT[0]}\.x; .*{advice}"):
        Reranker.load(folder)


def test_a_newer_minor_format_may_have_further_keys(folder: Path) -> None:
    bundles.edit(folder, format="1.7", added={"a": [1]}, source__added=None, recipe__added=1, self_test__added=True)
    assert open_bundle(folder).manifest.format == "1.7"
    with Reranker.load(folder) as reranker:
        assert reranker.score("a", ["b"]).shape == (1,)


def test_a_newer_minor_format_keeps_what_this_one_reads(values: dict[str, Any]) -> None:
    del values["max_length"]
    with pytest.raises(Corrupt, match="max_length missing"):
        Manifest.from_json(bundles.text_of(values | {"format": "1.7"}))


@pytest.mark.parametrize("version", [None, 1, 1.0, "", "1", "1.", ".0", "1.0.0", "1.x", "-1.0", " 1.0", "1.0000000000000"])
def test_what_is_no_format_version(values: dict[str, Any], version: object) -> None:
    with pytest.raises(Corrupt, match=r"no format version such as 1\.0"):
        Manifest.from_json(json.dumps(values | {"format": version}))


# Fields


def places(kind: type[Any] = Manifest, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Path and annotation of every field, those of objects in objects too."""
    hints = typing.get_type_hints(kind)
    for field in fields(kind):
        yield (*path, field.name), hints[field.name]
        if is_dataclass(hints[field.name]):
            yield from places(hints[field.name], (*path, field.name))
    if kind is Manifest:
        yield from places(FileRecord, ("files", WEIGHTS))


OBJECTS = [(), ("source",), ("recipe",), ("self_test",), ("files", MODEL)]
PLACES = list(places())
# What JSON has, by the annotations that take it; a list or an object also has to hold the right things.
WRONG: dict[str, tuple[Any, tuple[str, ...]]] = {
    "null": (None, ("None", "Any")),
    "true": (True, ("bool", "Any")),
    "integer": (3, ("int", "float", "Any")),
    "negative": (-1, ("float", "Any")),
    "above 63 bits": (2**63, ("float", "Any")),
    "fraction": (0.5, ("float", "Any")),
    "text": ("x", ("str", "Any")),
    "list of lists": ([[]], ("Any",)),
    "object of lists": ({"x": []}, ("dict[str, Any]",)),
}


def put(values: dict[str, Any], path: tuple[str, ...], value: object) -> str:
    """JSON text of the manifest with the value at `path` replaced, or removed where it is ...."""
    changed = json.loads(json.dumps(values))
    place = changed
    for key in path[:-1]:
        place = place[key]
    if value is ...:
        del place[path[-1]]
    else:
        place[path[-1]] = value
    return bundles.text_of(changed)


@pytest.mark.parametrize("path", [path for path, _ in PLACES], ids=".".join)
def test_a_missing_key_is_named(values: dict[str, Any], path: tuple[str, ...]) -> None:
    expected = "no format version" if path == ("format",) else f"{path[-1]} missing"
    with pytest.raises(Corrupt, match=expected):
        Manifest.from_json(put(values, path, ...))


@pytest.mark.parametrize("literal", ["1e999", "1" + "0" * 400])
@pytest.mark.parametrize("command", ["info", "verify", "rank"])
def test_a_command_on_a_manifest_with_such_a_number_ends_in_a_line(
    values: dict[str, Any], literal: str, command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    documents = tmp_path / "documents.txt"
    documents.write_text("en by\n", "utf-8")
    for number, path in enumerate([("max_length",), ("self_test", "tolerance"), ("parity", "int8", "tau")]):
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / "manifest.json").write_text(put(values, path, "HERE").replace('"HERE"', literal), "utf-8")
        assert main([command, *(["query", str(documents)] if command == "rank" else []), "--bundle", str(folder)]) == 1
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("raskrank: error: ")


@pytest.mark.parametrize("path", OBJECTS, ids=lambda path: ".".join(path) or "manifest")
def test_unknown_keys_are_refused(values: dict[str, Any], path: tuple[str, ...]) -> None:
    with pytest.raises(Corrupt, match="1 unknown keys"):
        Manifest.from_json(put(values, (*path, "added"), 1))


@pytest.mark.parametrize(("path", "kind"), PLACES, ids=[".".join(path) for path, _ in PLACES])
def test_a_value_of_the_wrong_type_is_named(values: dict[str, Any], path: tuple[str, ...], kind: Any) -> None:
    described = kind.__name__ if isinstance(kind, type) and not typing.get_args(kind) else str(kind).replace("typing.", "")
    tried = 0
    for name, (value, fitting) in WRONG.items():
        if described in fitting or ("None" in described and name in ("null", "text")):
            continue
        with pytest.raises(Corrupt, match=path[-1].replace(".", r"\.")):
            Manifest.from_json(put(values, path, value))
        tried += 1
    assert tried >= 5


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("activation",), "Sigmoid"),
        (("precision",), "int4"),
        (("inputs",), ["input_ids", 3]),
        (("source", "languages"), [None]),
        (("recipe", "passes"), {"drop_mask": -1}),
        (("recipe", "passes"), {"drop_mask": "4"}),
        (("versions",), {"torch": 2.0}),
        (("files", MODEL, "size"), 1.0),
        (("files", TOKENIZER), [1, "x"]),
    ],
)
def test_a_wrong_value_inside_is_refused(values: dict[str, Any], path: tuple[str, ...], value: object) -> None:
    with pytest.raises(Corrupt, match=f"{path[0]}.*(expected|out of range)"):
        Manifest.from_json(put(values, path, value))


@pytest.mark.parametrize(
    "name",
    ["../x", "/x", "C:\\x", "a/../b", "x\0y", "", ".", "model.onnx/", "./model.onnx", "MODEL.ONNX", "manifest.json", "\u202ex"],
)
def test_only_the_three_files_are_listed(values: dict[str, Any], name: str) -> None:
    record = values["files"][MODEL]
    with pytest.raises(Corrupt, match=r"files are .* expected"):
        Manifest.from_json(bundles.text_of(values | {"files": values["files"] | {name: record}}))
    replaced = {name if key == MODEL else key: value for key, value in values["files"].items()}
    with pytest.raises(Corrupt, match=r"files are .* expected"):
        Manifest.from_json(bundles.text_of(values | {"files": replaced}))


def test_long_names_do_not_make_long_messages(values: dict[str, Any]) -> None:
    for files in ({"x" * 100_000: values["files"][MODEL]}, {"x" * 100_000: 3}, {}):
        with pytest.raises(Corrupt) as raised:
            Manifest.from_json(bundles.text_of(values | {"files": files}))
        assert len(str(raised.value)) < 300


def test_a_name_too_long_for_the_file_system_is_a_missing_bundle() -> None:
    with pytest.raises(MissingFile, match="File name too long"):
        read_manifest(Path("x" * 300))


# JSON


@pytest.mark.parametrize("literal", ["NaN", "Infinity", "-Infinity", "1e999", "-1e999", "1" + "0" * 400, "1" + "0" * 5000])
@pytest.mark.parametrize("path", [("self_test", "logit"), ("max_length",), ("parity", "int8", "tau"), ("parity", "thresholds")])
def test_numbers_are_finite(values: dict[str, Any], path: tuple[str, ...], literal: str) -> None:
    text = put(values, path, "HERE").replace('"HERE"', literal)
    with pytest.raises(Corrupt, match=rf"not valid JSON: ({literal} is not a number|'.*' is out of range)") as raised:
        Manifest.from_json(text)
    assert len(str(raised.value)) < 200


@pytest.mark.parametrize("path", OBJECTS, ids=lambda path: ".".join(path) or "manifest")
def test_a_key_stands_once(values: dict[str, Any], path: tuple[str, ...]) -> None:
    text = put(values, (*path, "HERE"), 1).replace('"HERE": 1', '"again": 1, "again": 1')
    with pytest.raises(Corrupt, match="a key stands twice"):
        Manifest.from_json(text)


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000, '{"format":' + "[" * 5000 + "]" * 5000 + "}"])
def test_deep_nesting_is_refused(text: str) -> None:
    with pytest.raises(Corrupt, match="nested too deeply"):
        Manifest.from_json(text)


def test_half_a_surrogate_pair_is_refused(values: dict[str, Any]) -> None:
    for path in (("self_test", "query"), ("name",), ("parity", "x")):
        with pytest.raises(Corrupt, match=r"not valid JSON: .*surrogates not allowed"):
            Manifest.from_json(put(values, path, "\ud800"))
    assert Manifest.from_json(put(values, ("name",), "\U0001f40d")).name == "\U0001f40d"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b" " * 10_000_000, f"10000000 bytes, a manifest has at most {MAX_MANIFEST_BYTES}"),
        (b"\xff\xfe{\x00}\x00", "not UTF-8 text at byte 0"),
        (b'{"format": "1.0", "name": "\xe6"}', "not UTF-8 text at byte 27"),
        (b"\xef\xbb\xbf{}", "not valid JSON: .*BOM"),
        (b"null", "no format version"),
        (b"[]", "no format version"),
        (b'"1.0"', "no format version"),
        (b"{}", "no format version"),
    ],
    ids=["10 MB", "UTF-16", "Latin-1", "BOM", "null", "list", "text", "empty object"],
)
def test_a_file_that_is_no_manifest(folder: Path, content: bytes, message: str) -> None:
    (folder / MANIFEST).write_bytes(content)
    with pytest.raises(Corrupt, match=message) as raised:
        Reranker.load(folder)
    assert str(folder) in str(raised.value)


def test_a_manifest_of_the_largest_size(folder: Path, values: dict[str, Any]) -> None:
    text = json.dumps({**values, DIGEST: UNSIGNED}, ensure_ascii=False)
    room = MAX_MANIFEST_BYTES - len(text.encode())
    (folder / MANIFEST).write_text(sign(text + " " * room), "utf-8")
    assert open_bundle(folder).manifest.max_length == 128
    (folder / MANIFEST).write_text(sign(text + " " * (room + 1)), "utf-8")
    with pytest.raises(Corrupt, match="a manifest has at most"):
        open_bundle(folder)


@given(JSON)
def test_any_json_value_is_a_manifest_or_a_bundle_error(value: Any) -> None:
    with pytest.raises(BundleError):
        Manifest.from_json(json.dumps(value))


@given(st.text())
def test_any_text_is_a_manifest_or_a_bundle_error(text: str) -> None:
    with pytest.raises(BundleError):
        Manifest.from_json(text)


@given(st.data())
def test_any_value_in_any_place_is_a_manifest_or_a_bundle_error(data: st.DataObject) -> None:
    manifest = data.draw(MANIFESTS)
    path, _ = data.draw(st.sampled_from(PLACES))
    text = put(json.loads(manifest.to_json()), path, data.draw(JSON))
    try:
        changed = Manifest.from_json(text)
    except BundleError:
        return
    assert json.loads(changed.to_json()) | {DIGEST: ""} == json.loads(text) | {DIGEST: ""}


@given(MANIFESTS)
def test_a_manifest_survives_the_round_trip(manifest: Manifest) -> None:
    text = manifest.to_json()
    assert Manifest.from_json(text) == manifest
    assert Manifest.from_json(text).to_json() == text


# Links and special files


def test_a_link_to_the_folder_loads(folder: Path) -> None:
    link = folder.parent / "link"
    link.symlink_to(folder)
    with Reranker.load(link) as reranker, Reranker.load(folder) as direct:
        assert reranker.score("a", ["b"]) == direct.score("a", ["b"])


def link_away(folder: Path, names: tuple[str, ...]) -> Path:
    """Moves files into a store under names of its own, and leaves links, as a hub's cache has them. Returns the store."""
    store = folder.parent / "blobs"
    store.mkdir()
    for number, name in enumerate(names):
        (folder / name).rename(store / f"{number:064x}")
        (folder / name).symlink_to(Path("..", "blobs", f"{number:064x}"))
    return store


@pytest.mark.parametrize("names", [*((name,) for name in (*FILES, MANIFEST)), (*FILES, MANIFEST)], ids="+".join)
def test_a_bundle_of_links_as_in_a_hub_cache_loads(folder: Path, names: tuple[str, ...]) -> None:
    with Reranker.load(folder, threads=2) as direct:
        expected = direct.score("a", ["b", "c" * 900])
    store = link_away(folder, names)
    with Reranker.load(folder, threads=2) as reranker:
        assert np.array_equal(reranker.score("a", ["b", "c" * 900]), expected)
        # The second session, for runs that are spread, too.
        ids = np.arange(5, 60)[None]
        spread = [reranker._loaded.backend.logits(ids, np.zeros_like(ids), spread=True) for _ in range(2)]
        assert spread[0] == spread[1] == reranker._loaded.backend.logits(ids, np.zeros_like(ids))
    changed = store / f"{0:064x}"
    changed.write_bytes(HTML)
    with pytest.raises(Corrupt):
        Reranker.load(folder)


def test_the_embedded_model_in_an_environment_of_links_loads(tmp_path: Path) -> None:
    # As uv installs with its link mode "symlink": every file leads into a cache, under the name it has there.
    cache = bundles.copy_bundle(bundle_path(None), tmp_path / "cache")
    (tmp_path / "nano").mkdir()
    for name in (*FILES, MANIFEST):
        (tmp_path / "nano" / name).symlink_to(cache / name)
    with Reranker.load(tmp_path / "nano") as reranker, Reranker.load() as embedded:
        assert reranker.score("a", ["b"]) == embedded.score("a", ["b"])


@pytest.mark.parametrize("name", [*FILES, MANIFEST])
@pytest.mark.parametrize("target", ["absent", "itself", "folder", "/dev/zero"])
def test_links_that_lead_to_no_file(folder: Path, name: str, target: str) -> None:
    (folder.parent / "folder").mkdir()
    (folder / name).unlink()
    (folder / name).symlink_to(name if target == "itself" else folder.parent / target)
    with pytest.raises(MissingFile, match=name):
        Reranker.load(folder)


@pytest.mark.timeout(10)
@pytest.mark.parametrize("name", [*FILES, MANIFEST])
def test_a_pipe_is_not_waited_for(folder: Path, name: str) -> None:
    (folder / name).unlink()
    os.mkfifo(folder / name)
    with pytest.raises(MissingFile, match=name):
        Reranker.load(folder)


def test_a_loop_of_links_in_place_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(MissingFile, match="no bundle at"):
        Reranker.load(tmp_path / "loop")


def test_what_may_not_be_read_is_a_bundle_error(folder: Path) -> None:
    with pytest.raises(BundleError, match="File name too long"):
        Reranker.load(folder / ("x" * 300))
    if not Path("/proc/self/mem").exists():
        pytest.skip("needs Linux's /proc/self/mem, a file whose start cannot be read")
    (folder / MANIFEST).unlink()
    (folder / MANIFEST).symlink_to("/proc/self/mem")
    with pytest.raises(BundleError, match="Input/output error"):
        Reranker.load(folder)


def test_other_files_in_the_folder_do_not_matter(folder: Path) -> None:
    before = open_bundle(folder)
    (folder / "README.md").write_text("mine")
    (folder / "onnx").mkdir()
    after = open_bundle(folder)
    assert (after.manifest, after.graph, after.tokenizer) == (before.manifest, before.graph, before.tokenizer)


# Attacks


def test_corrupted_bundles_are_refused_or_score_as_before() -> None:
    # In child processes, which a crash would end: tests/attacks has the long run.
    script = Path(__file__).parent / "attacks" / "corrupted_bundles.py"
    command = [sys.executable, str(script), "--count", "120", "--seed", "1"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"^120 corrupted bundles in \d+ s, 0 that broke the promise$", done.stdout, re.MULTILINE), done.stdout


def test_after_a_failed_load_nothing_reads_the_files(folder: Path, tmp_path: Path) -> None:
    # A check of the weights that ran on beside the caller died, with the whole process, when a sound copy was put there.
    source = """
        import sys
        from pathlib import Path
        from raskrank import Corrupt, Incompatible, Reranker

        folder = Path(sys.argv[1])
        weights = folder / "model.onnx.data"
        size = weights.stat().st_size
        for _ in range(50):
            try:
                Reranker.load(folder)
            except (Corrupt, Incompatible):
                with weights.open("r+b") as file:
                    file.truncate(0)
                    file.truncate(size)
            else:
                raise SystemExit("loaded")
    """
    (folder / TOKENIZER).write_bytes(b"{}")
    with (folder / WEIGHTS).open("ab") as file:
        file.truncate(64 << 20)
    bundles.sign(folder)  # the digest of the weights is right at first, and the tokenizer's always
    run_script(tmp_path, source, str(folder))
    (folder / TOKENIZER).write_bytes(b"[]")  # now not even its digest fits
    run_script(tmp_path, source, str(folder))
