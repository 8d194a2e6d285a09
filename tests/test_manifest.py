"""Every way for a manifest to be wrong: fields and JSON."""

import json
import typing
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import bundles
from raskrank import BundleError, Corrupt, MissingFile, Reranker
from raskrank.bundle import MAX_MANIFEST_BYTES, open_bundle, read_manifest
from raskrank.cli.main import main
from raskrank.manifest import (
    DIGEST,
    FILES,
    MANIFEST,
    MODEL,
    TOKENIZER,
    UNSIGNED,
    WEIGHTS,
    CorpusFile,
    Coverage,
    Encoder,
    FileRecord,
    Manifest,
    Recipe,
    SelfTest,
    Source,
    Vocabulary,
    sign,
)

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
    format=st.just("2.0"),
    name=TEXT,
    source=st.builds(
        Source,
        model=TEXT,
        revision=st.none() | TEXT,
        license=st.none() | TEXT,
        languages=NAMES,
        weights_sha256=TEXT,
        accepted_license=st.none() | TEXT,
        relevant_label=st.none() | TEXT,
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
    encoder=st.none()
    | st.builds(
        Encoder,
        layers=COUNT,
        heads=COUNT,
        intermediate=COUNT,
        epsilon=FINITE,
        positions=COUNT,
        types=COUNT,
        position_offset=COUNT,
        skipped_id=st.none() | COUNT,
        head_activation=st.sampled_from(["tanh", "gelu", "relu"]),
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
        (("encoder", "head_activation"), "gelu_new"),
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
