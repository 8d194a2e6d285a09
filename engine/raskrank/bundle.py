"""A bundle on disk: which files it has, what its manifest says, and whether it is whole.

manifest.json      what the bundle is, and the digest of each other file; written last
model.onnx         the graph
model.onnx.data    the weights, mapped into memory or, on request, read
tokenizer.json     Hugging Face tokenizers' format
"""

import errno
import hashlib
import os
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from raskrank.checkpoint.modules import weights_files
from raskrank.contents import Contents
from raskrank.errors import BundleError, Corrupt, MissingFile
from raskrank.manifest import FILES, MANIFEST, MODEL, TOKENIZER, WEIGHTS, FileRecord, Manifest
from raskrank.process.beside import beside

MAX_MANIFEST_BYTES = 1 << 20  # a manifest is a few kilobytes; a larger file is not one, and is not parsed
# Read into memory whole. A graph without its weights has some hundred kilobytes; the largest tokenizer known, of 256,000
# pieces with their merges, has 34 megabytes, and parsing one may take hundreds of times its size.
MAX_SMALL_BYTES = {MODEL: 1 << 28, TOKENIZER: 1 << 26}


@dataclass(frozen=True, kw_only=True)
class Bundle:
    """A verified bundle: its folder (resolved), manifest, and the very bytes of its files that were verified."""

    folder: Path
    manifest: Manifest
    manifest_sha256: str
    graph: bytes
    tokenizer: bytes
    weights: Contents


def read_manifest(path: Path, *, expected_sha256: str | None = None) -> tuple[Manifest, str]:
    """The manifest of the bundle at `path` and its SHA-256, without looking at the other files.

    expected_sha256: what the SHA-256 has to be; another file is not parsed. Raises MissingFile, Corrupt, Incompatible.
    """
    file = path / MANIFEST
    with _reading(path):
        if not path.is_dir():
            raise no_bundle(path)
        if not file.is_file():
            checkpoint = (path / "config.json").is_file()
            kind, model = ("a checkpoint, and not", shlex.quote(str(path))) if checkpoint else ("not", "MODEL")
            # OUTPUT, since an export would not replace this folder.
            raise MissingFile(f"{path} is {kind} a bundle: no {MANIFEST} in it; make one with: raskrank export {model} OUTPUT")
        size = file.stat().st_size
        if size > MAX_MANIFEST_BYTES:
            raise Corrupt(f"{file}: {size} bytes, a manifest has at most {MAX_MANIFEST_BYTES}")
        data = file.read_bytes()
    digest = hashlib.sha256(data).hexdigest()
    if expected_sha256 is not None and expected_sha256.lower() != digest:
        raise Corrupt(f"{path}: sha256 of {MANIFEST} is {digest}, expected_sha256 is {expected_sha256}")
    try:
        return Manifest.from_json(data.decode()), digest
    except UnicodeDecodeError as error:
        raise Corrupt(f"{file} is not UTF-8 text at byte {error.start}") from None
    except BundleError as error:
        raise type(error)(f"{path}: {error}") from None


def open_bundle(path: Path, *, expected_sha256: str | None = None, map_weights: bool = True) -> Bundle:
    """Read and verify a bundle: every file there, with the size and SHA-256 of its manifest. As `opened_bundle`."""
    with opened_bundle(path, expected_sha256=expected_sha256, map_weights=map_weights) as bundle:
        return bundle


@contextmanager
def opened_bundle(path: Path, *, expected_sha256: str | None = None, map_weights: bool = True) -> Iterator[Bundle]:
    """A context manager that gives a bundle whose small files are verified.

    The weights are verified in another thread while the block runs; if they differ, the end of the block raises Corrupt.

    expected_sha256: SHA-256 of manifest.json, which in turn pins every file. map_weights: see Contents. Files may be links, as
    in a hub's cache. Raises MissingFile, Corrupt, Incompatible, and BundleError where a file may not be read.
    """
    manifest, digest = read_manifest(path, expected_sha256=expected_sha256)
    with _reading(path):
        folder = path.resolve()
        for name in FILES:
            _check_file(folder, name, manifest)
        weights = Contents(folder / WEIGHTS, mapped=map_weights)
        _check_size(folder, WEIGHTS, len(weights), manifest)  # of what was opened, whatever lies there by now
        graph, tokenizer = ((folder / name).read_bytes() for name in (MODEL, TOKENIZER))
    with beside(weights.sha256) as weights_digest:  # at its end nothing reads the file any more: it may be replaced then
        for name, content in ((MODEL, graph), (TOKENIZER, tokenizer)):
            _check_digest(folder, name, hashlib.sha256(content).hexdigest(), manifest)
        yield Bundle(
            folder=folder,
            manifest=manifest,
            manifest_sha256=digest,
            graph=graph,
            tokenizer=tokenizer,
            weights=weights,
        )
        _check_digest(folder, WEIGHTS, weights_digest.result(), manifest)
    weights.release_pages()


def record(file: Path) -> FileRecord:
    """Size and digest of a file."""
    return FileRecord(size=file.stat().st_size, sha256=_digest(file))


def no_bundle(path: Path, named_by: str = "") -> MissingFile:
    """The error for a path where there is no folder. named_by: who named it, where that is to be said: " (named by ...)"."""
    there = os.path.lexists(path)  # a file, or a link that leads nowhere
    advice = "name a bundle's folder" if there else f"make one with: raskrank export MODEL {shlex.quote(str(path))}"
    return MissingFile(f"no bundle at {path}{named_by}; {advice}")


def weights_sha256(folder: Path) -> str:
    """One digest for a checkpoint's weights: of its safetensors file, or of the digests of several in their order."""
    digests = [_digest(file) for file in weights_files(folder)]
    return digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()


def _check_file(folder: Path, name: str, manifest: Manifest) -> None:
    file = folder / name
    if not file.is_file():
        again = f"raskrank export MODEL {shlex.quote(str(folder))} --overwrite"
        raise MissingFile(f"{file} is missing; copy the whole bundle, or make it again with: {again}")
    _check_size(folder, name, file.stat().st_size, manifest)
    if name in MAX_SMALL_BYTES and manifest.files[name].size > MAX_SMALL_BYTES[name]:
        raise Corrupt(f"{file}: {manifest.files[name].size} bytes, at most {MAX_SMALL_BYTES[name]} are read")


def _check_size(folder: Path, name: str, found: int, manifest: Manifest) -> None:
    if found != manifest.files[name].size:
        raise Corrupt(f"{folder / name}: {found} bytes, the manifest says {manifest.files[name].size}; export it again")


def _check_digest(folder: Path, name: str, found: str, manifest: Manifest) -> None:
    if found != manifest.files[name].sha256:
        raise Corrupt(f"{folder / name}: contents differ from the manifest (sha256 {found}); export it again")


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """A file that may not be read is a plain BundleError, since it may be whole; one whose name is too long is missing."""
    try:
        yield
    except OSError as error:
        kind = MissingFile if error.errno == errno.ENAMETOOLONG else BundleError
        raise kind(f"{error.filename or path}: {error.strerror or error}") from error


def _digest(file: Path) -> str:
    return Contents(file).sha256()
