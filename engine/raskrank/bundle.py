"""A bundle on disk: which files it has, what its manifest says, and whether it is whole.

manifest.json      what the bundle is, and the digest of each other file; written last
model.onnx         the graph
model.onnx.data    the weights, mapped into memory
tokenizer.json     Hugging Face tokenizers' format
"""

import hashlib
import json
import mmap
import reprlib
import sys
import threading
import types
import typing
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal, Union

from raskrank.errors import BundleError, Corrupt, Incompatible, MissingFile

MANIFEST, MODEL, WEIGHTS, TOKENIZER = "manifest.json", "model.onnx", "model.onnx.data", "tokenizer.json"
FILES = (MODEL, WEIGHTS, TOKENIZER)
FORMAT = (1, 0)  # (major, minor): a newer major format is refused; a newer minor one may have keys that are ignored
MAX_MANIFEST_BYTES = 1 << 20  # a manifest is a few kilobytes; a larger file is not one, and is not parsed
MAX_SMALL_BYTES = 1 << 28  # graph and tokenizer are read into memory whole; the largest known are 34 megabytes
MAX_INTEGER = 1 << 63  # exclusive

Identity = tuple[int, int, int, int]
Activation = Literal["sigmoid", "identity"]
Precision = Literal["int8", "fp32"]


@dataclass(frozen=True, kw_only=True)
class FileRecord:
    """Size in bytes and lower-case hexadecimal SHA-256 of a file."""

    size: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class Source:
    """The checkpoint: hub id or folder as given to the export, commit on the hub, and what its model card states."""

    model: str
    revision: str | None
    licence: str | None
    languages: tuple[str, ...]
    weights_sha256: str


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How the graph was made. `instruction_set`: what the bundle was meant for; "any" scores right on every CPU."""

    scheme: str
    weight_bits: int
    per_channel: bool
    excluded_nodes: tuple[str, ...]
    instruction_set: str
    passes: dict[str, int]


@dataclass(frozen=True, kw_only=True)
class SelfTest:
    """A pair with the logit that this bundle gave when it was made; a load checks that it still does."""

    query: str
    document: str
    logit: float
    tolerance: float


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """Everything a bundle says of itself. One class reads and writes it."""

    format: str
    name: str
    source: Source
    architecture: str
    parameters: int
    hidden_size: int
    max_length: int
    vocab_size: int
    pad_id: int
    inputs: tuple[str, ...]
    activation: Activation
    precision: Precision
    recipe: Recipe
    files: dict[str, FileRecord]
    versions: dict[str, str]
    self_test: SelfTest
    parity: dict[str, Any]

    def to_json(self) -> str:
        return json.dumps(asdict(self), ensure_ascii=False, indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str) -> "Manifest":
        """Raises Corrupt if the text is no manifest, Incompatible if it is one of a newer major format."""
        try:
            data = json.loads(text, object_pairs_hook=_unique_keys, parse_constant=_refuse_constant)
            json.dumps(data, ensure_ascii=False).encode()  # escapes may spell half a character, which no tokenizer takes
        except (ValueError, RecursionError) as error:
            reason = "nested too deeply" if isinstance(error, RecursionError) else str(error)
            raise Corrupt(f"{MANIFEST} is not valid JSON: {reason}") from None
        major, minor = _format(data)
        if major != FORMAT[0]:
            advice = "upgrade raskrank" if major > FORMAT[0] else "export the model again"
            raise Incompatible(f"{MANIFEST}: bundle format {major}.{minor}, this engine reads {FORMAT[0]}.x; {advice}")
        manifest: Manifest = _build(cls, data, MANIFEST, ignore_unknown=(major, minor) > FORMAT)
        if set(manifest.files) != set(FILES):
            raise Corrupt(f"{MANIFEST}: files are {reprlib.repr(sorted(manifest.files))}, expected {sorted(FILES)}")
        return manifest


@dataclass(frozen=True, kw_only=True)
class Bundle:
    """A verified bundle: its folder (resolved), manifest, the bytes of the two small files, and which file has the weights."""

    folder: Path
    manifest: Manifest
    manifest_sha256: str
    graph: bytes
    tokenizer: bytes
    weights_identity: Identity


def read_manifest(path: Path, *, expected_sha256: str | None = None) -> tuple[Manifest, str]:
    """The manifest of the bundle at `path` and its SHA-256, without looking at the other files.

    expected_sha256: what the SHA-256 has to be; another file is not parsed. Raises MissingFile, Corrupt, Incompatible.
    """
    file = path / MANIFEST
    with _reading(path):
        if not path.is_dir() or not file.is_file():
            what = f"{path} is not a bundle: no {MANIFEST} in it" if path.is_dir() else f"no bundle at {path}"
            raise MissingFile(f"{what}; make one with: raskrank export MODEL {path}")
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


def open_bundle(path: Path, *, expected_sha256: str | None = None) -> Bundle:
    """Read and verify a bundle: every file there, with the size and SHA-256 of its manifest. As `opened_bundle`."""
    with opened_bundle(path, expected_sha256=expected_sha256) as bundle:
        return bundle


@contextmanager
def opened_bundle(path: Path, *, expected_sha256: str | None = None) -> Iterator[Bundle]:
    """A bundle whose small files are verified. The weights are hashed beside the block, and its end raises if they differ.

    expected_sha256: SHA-256 of manifest.json, which in turn pins every file. Raises MissingFile, Corrupt, Incompatible, and
    BundleError where a file may not be read.
    """
    manifest, digest = read_manifest(path, expected_sha256=expected_sha256)
    with _reading(path):
        folder = path.resolve()
        for name in FILES:
            _check_file(folder, name, manifest.files[name].size)
        weights_identity = identity(folder / WEIGHTS)
        weights = _beside(lambda: _digest(folder / WEIGHTS))
        graph, tokenizer = ((folder / name).read_bytes() for name in (MODEL, TOKENIZER))
    for name, content in ((MODEL, graph), (TOKENIZER, tokenizer)):
        _check_digest(folder, name, hashlib.sha256(content).hexdigest(), manifest)
    yield Bundle(
        folder=folder,
        manifest=manifest,
        manifest_sha256=digest,
        graph=graph,
        tokenizer=tokenizer,
        weights_identity=weights_identity,
    )
    with _reading(path):
        _check_digest(folder, WEIGHTS, weights.result(), manifest)


def identity(file: Path) -> Identity:
    """Differs once another file lies at this path, or this one was written to. Raises BundleError if there is none."""
    with _reading(file):
        status = file.stat()
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def record(file: Path) -> FileRecord:
    """Size and digest of a file."""
    return FileRecord(size=file.stat().st_size, sha256=_digest(file))


def weights_sha256(folder: Path) -> str:
    """One digest for a checkpoint's weights: of its safetensors file, or of the digests of several in order of name."""
    digests = [_digest(file) for file in sorted(folder.glob("*.safetensors"))]
    return digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()


def _check_file(folder: Path, name: str, size: int) -> None:
    file = folder / name
    if not file.is_file():
        raise MissingFile(f"{file} is missing; copy the whole bundle, or make it again with: raskrank export")
    if name == WEIGHTS and file.resolve() != file:
        # onnxruntime refuses weights that a link takes out of the folder, as in a hub cache.
        raise Incompatible(f"{file} is a link to another place, which onnxruntime refuses; copy the bundle with: cp -rL")
    found = file.stat().st_size
    if found != size:
        raise Corrupt(f"{file}: {found} bytes, the manifest says {size}; export it again")
    if name != WEIGHTS and size > MAX_SMALL_BYTES:
        raise Corrupt(f"{file}: {size} bytes, at most {MAX_SMALL_BYTES} are read")


def _check_digest(folder: Path, name: str, found: str, manifest: Manifest) -> None:
    if found != manifest.files[name].sha256:
        raise Corrupt(f"{folder / name}: contents differ from the manifest (sha256 {found}); export it again")


def _beside(function: Callable[[], str]) -> "Future[str]":
    """Runs in a thread of its own, or at once where there can be none, as while Python exits. hashlib releases the GIL."""
    future: Future[str] = Future()

    def run() -> None:
        try:
            future.set_result(function())
        except Exception as error:  # noqa: BLE001  it reaches whoever asks for the result
            future.set_exception(error)

    try:
        threading.Thread(target=run, name="raskrank-sha256").start()
    except RuntimeError:
        run()
    return future


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Not to be read is neither missing nor corrupt: a BundleError as such."""
    try:
        yield
    except OSError as error:
        raise BundleError(f"{error.filename or path}: {error.strerror or error}") from error


def _digest(file: Path) -> str:
    """In one call, over a mapping: reads in parts would each need the GIL, which parsing a tokenizer holds for long."""
    with file.open("rb") as stream:
        if not file.stat().st_size:
            return hashlib.sha256().hexdigest()  # nothing can be mapped
        with mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content:
            return hashlib.sha256(content).hexdigest()


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    keys = dict(pairs)
    if len(keys) != len(pairs):
        raise ValueError("a key stands twice")
    return keys


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not a number")


def _format(data: object) -> tuple[int, int]:
    text = data.get("format") if isinstance(data, dict) else None
    major, dot, minor = text.partition(".") if isinstance(text, str) else ("", "", "")
    if not (dot and major.isdecimal() and minor.isdecimal() and len(str(text)) < 12):
        raise Corrupt(f"{MANIFEST}: no format version such as {FORMAT[0]}.{FORMAT[1]}")
    return int(major), int(minor)


def _build(cls: type[Any], data: object, where: str, *, ignore_unknown: bool) -> Any:
    """An instance of a dataclass from parsed JSON, every field checked against its annotation."""
    if not isinstance(data, dict):
        raise Corrupt(f"{where}: expected an object, got {type(data).__name__}")
    names = {field.name for field in fields(cls)}
    if missing := names - set(data):
        raise Corrupt(f"{where}: {', '.join(sorted(missing))} missing")
    if (unknown := set(data) - names) and not ignore_unknown:
        raise Corrupt(f"{where}: {len(unknown)} unknown keys")
    hints = typing.get_type_hints(cls)
    return cls(**{name: _value(hints[name], data[name], f"{where}: {name}", ignore_unknown=ignore_unknown) for name in names})


def _value(kind: Any, value: object, where: str, *, ignore_unknown: bool) -> Any:
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if kind is Any:
        return value
    if is_dataclass(kind):
        return _build(typing.cast(type[Any], kind), value, where, ignore_unknown=ignore_unknown)
    if origin is Literal and value in arguments:
        return value
    if origin in (Union, types.UnionType):
        return None if value is None else _value(arguments[0], value, where, ignore_unknown=ignore_unknown)
    if origin is tuple and isinstance(value, list):
        return tuple(_value(arguments[0], item, where, ignore_unknown=ignore_unknown) for item in value)
    if origin is dict and isinstance(value, dict):
        return {
            key: _value(arguments[1], item, f"{where}: {reprlib.repr(key)}", ignore_unknown=ignore_unknown)
            for key, item in value.items()
        }
    # 1e999 is read as infinity, and an int may be larger than any float.
    if kind is float and isinstance(value, int | float) and type(value) is not bool and abs(value) <= sys.float_info.max:
        return float(value)
    if kind is int and type(value) is int and not 0 <= value < MAX_INTEGER:
        raise Corrupt(f"{where}: an integer out of range")
    if kind in (int, str, bool) and type(value) is kind:
        return value
    expected = " or ".join(map(repr, arguments)) if origin is Literal else getattr(kind, "__name__", str(kind))
    raise Corrupt(f"{where}: expected {expected}, got {type(value).__name__}")
