"""A bundle is whole or refused: missing, damaged and edited files, and formats."""

import hashlib
import json
import random
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import bundles
from conftest import Tiny
from processes import run_script
from raskrank import Corrupt, Incompatible, MissingFile, Reranker
from raskrank.bundle import open_bundle, read_manifest
from raskrank.cli.main import main
from raskrank.manifest import DIGEST, FILES, FORMAT, MANIFEST, MODEL, TOKENIZER, WEIGHTS, Manifest

HTML = b"<!DOCTYPE html>\n<html><head><title>404 Not Found</title></head><body>Not found</body></html>\n"


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
    with pytest.raises(MissingFile, match=r"is missing; .*raskrank export MODEL \S+ --overwrite$") as raised:
        Reranker.load(folder)
    assert str(folder / name) in str(raised.value)


def test_a_folder_without_a_manifest_says_how_to_export(folder: Path) -> None:
    (folder / MANIFEST).unlink()
    with pytest.raises(
        MissingFile, match=r"is not a bundle: no manifest\.json in it; .*raskrank export MODEL OUTPUT$"
    ) as raised:
        Reranker.load(folder)
    assert str(folder) in str(raised.value)


@pytest.mark.parametrize("path", ["absent", "bundle/absent/further", "nul\0nul"])
def test_where_there_is_no_folder(folder: Path, path: str) -> None:
    with pytest.raises(MissingFile, match=r"no bundle at .*raskrank export MODEL"):
        Reranker.load(folder.parent / path)


def test_where_there_is_a_file_no_export_to_it_is_suggested(folder: Path) -> None:
    for read in (Reranker.load, read_manifest):
        with pytest.raises(MissingFile, match=r"no bundle at .*manifest\.json; name a bundle's folder$"):
            read(folder / MANIFEST)


def test_what_a_message_suggests_for_a_checkpoint_in_place_of_a_bundle_works(tiny: Tiny, tmp_path: Path) -> None:
    checkpoint = shutil.copytree(tiny.checkpoint(), tmp_path / "my model")
    with pytest.raises(MissingFile, match="is a checkpoint, and not a bundle") as raised:
        Reranker.load(checkpoint)
    suggested = shlex.split(str(raised.value).partition("make one with: ")[2])
    assert suggested == ["raskrank", "export", str(checkpoint), "OUTPUT"]
    made = [*suggested[1:-1], str(tmp_path / "made")]
    assert main([*made, "--precision", "fp32", "--samples", str(tiny.samples)]) == 0
    # And a bundle that lacks a file is made again where it is.
    (tmp_path / "made" / MODEL).unlink()
    with pytest.raises(MissingFile) as raised:
        Reranker.load(tmp_path / "made")
    again = shlex.split(str(raised.value).partition("make it again with: ")[2])
    assert again[2:] == ["MODEL", str(tmp_path / "made"), "--overwrite"]
    again[2] = str(checkpoint)
    assert main([*again[1:], "--precision", "fp32", "--samples", str(tiny.samples)]) == 0
    Reranker.load(tmp_path / "made").close()


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


NEWER_MINOR = f"{FORMAT[0]}.{FORMAT[1] + 7}"


@pytest.mark.parametrize(
    ("version", "advice"),
    [
        (f"{FORMAT[0] + 1}.0", "upgrade raskrank"),
        (f"{FORMAT[0] + 15}.3", "upgrade"),
        (f"{FORMAT[0] - 1}.9", "export .* again"),
        ("0.9", "export .* again"),
    ],
)
def test_another_major_format_is_refused(folder: Path, version: str, advice: str) -> None:
    bundles.write(folder, {"format": version})
    with pytest.raises(Incompatible, match=rf"bundle format {version}, this engine reads {FORMAT[0]}\.x; .*{advice}"):
        Reranker.load(folder)


def test_a_newer_minor_format_may_have_further_keys(folder: Path) -> None:
    bundles.edit(folder, format=NEWER_MINOR, added={"a": [1]}, source__added=None, recipe__added=1, self_test__added=True)
    assert open_bundle(folder).manifest.format == NEWER_MINOR
    with Reranker.load(folder) as reranker:
        assert reranker.score("a", ["b"]).shape == (1,)


def test_a_newer_minor_format_keeps_what_this_one_reads(values: dict[str, Any]) -> None:
    del values["max_length"]
    with pytest.raises(Corrupt, match="max_length missing"):
        Manifest.from_json(bundles.text_of(values | {"format": NEWER_MINOR}))


@pytest.mark.parametrize("version", [None, 1, 1.0, "", "1", "1.", ".0", "1.0.0", "1.x", "-1.0", " 1.0", "1.0000000000000"])
def test_what_is_no_format_version(values: dict[str, Any], version: object) -> None:
    with pytest.raises(Corrupt, match=rf"no format version such as {FORMAT[0]}\.{FORMAT[1]}"):
        Manifest.from_json(json.dumps(values | {"format": version}))


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
