"""Read a checkpoint's small files: whole, up to a limit, and with an error that says what to do."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from raskrank.errors import CheckpointError
from raskrank.quoting import named, quoted

# The largest published config is 30 kB, tokenizer_config 1.2 MB, index 60 kB: room, and no parsing of a disk image.
MAX_JSON_BYTES = 16 * 2**20


def is_file(path: Path) -> bool:
    """Whether there is a file. Raises CheckpointError where that cannot be told, as of a name that no file system allows."""
    with _reading(path):
        return path.is_file()


def is_folder(path: Path) -> bool:
    """Whether there is a folder. Raises as `is_file` does."""
    with _reading(path):
        return path.is_dir()


def require_utf8(folder: Path) -> None:
    """Raises CheckpointError for a path that safetensors and tokenizers, which take UTF-8 alone, cannot open."""
    try:
        str(folder.absolute()).encode()
    except UnicodeEncodeError:
        raise CheckpointError(f"{str(folder)!r} cannot be opened as a checkpoint: its path is not UTF-8. Rename it.") from None


def read_json(path: Path, *, required: bool = False) -> dict[str, object]:
    """The object in `path`; empty where the file is not there and not required."""
    if not is_file(path):
        if required:
            raise CheckpointError(f"{path.parent} has no {path.name}. Give the folder of a transformers checkpoint.")
        return {}
    value = parse_json(path)
    if not isinstance(value, dict):
        raise CheckpointError(f"{path} is not valid: it holds a JSON {type(value).__name__}, not an object.")
    return value


def require_integer(path: Path, values: Mapping[str, object], key: str, *, default: int, least: int) -> int:
    """That key of the object in `path`. Raises CheckpointError."""
    value = values.get(key, default)
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise CheckpointError(f"{path}: {key} must be an integer of at least {least}, got {quoted(value)}.")
    return value


def parse_json(path: Path) -> object:
    content = read_bytes(path, MAX_JSON_BYTES + 1)
    if len(content) > MAX_JSON_BYTES:
        raise CheckpointError(f"{path} is not valid: it is larger than {MAX_JSON_BYTES:,} bytes.")
    return decode_json(path, content)


def decode_json(path: Path, content: bytes) -> object:
    try:
        return json.loads(content.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} does not hold valid JSON ({named(error)}). Was it downloaded whole?") from error


def read_whole(path: Path) -> bytes:
    with _reading(path):
        return path.read_bytes()


def read_bytes(path: Path, size: int, start: int = 0) -> bytes:
    """At most `size` bytes from `start`."""
    with _reading(path), path.open("rb") as file:
        file.seek(start)
        return file.read(size)


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise CheckpointError(f"{named(path)} cannot be read: {error.strerror}.") from error
