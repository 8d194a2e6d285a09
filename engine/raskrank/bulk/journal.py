"""Which parts of an output are done: a file of lines in it. The first says what the output is of, each other names a part.

A line is added once a part is in place. A part without a line is scored again, so that a kill at any point costs the part that
was in work and no other.
"""

import json
import os
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, fields
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

from raskrank.bulk.part import Record
from raskrank.bulk.writing import remove_stale, sync_folder, writable
from raskrank.errors import InputError
from raskrank.quoting import shown

if sys.platform != "win32":
    import fcntl

NAME = "_raskrank.jsonl"  # readers of a folder of Parquet leave out what begins so
VERSION = 1
# The keys of the first line, and what to say where one is another now.
KEYS = {
    "version": "by another version of Raskrank",
    "bundle": "with another bundle",
    "backend": "with another --backend",
    "columns": "with other names of columns",
    "windows": "with other windows",
    "raw_scores": "with --raw-scores on one side only",
    "part_rows": "with other --part-rows",
    "inputs": "with other input files, or one of them has changed since",
}
OTHER = "the command that began it goes on with it; for this one choose another OUTPUT, or remove the old one"


class Journal:
    """The journal of an output, which it holds locked until it is closed. done: the parts, by name."""

    def __init__(self, output: Path, asked: Mapping[str, Any]) -> None:
        """asked: what of the run decides what stands in the output; the keys are those of KEYS, but version.

        Raises InputError where the output is of something else, or in use; RaskrankError where it cannot be written.
        """
        self.output, self.done = output, dict[str, Record]()
        with writable(output):
            if output.exists() and not output.is_dir():
                raise InputError(f"{shown(output)}: OUTPUT is a file; name a folder, which may be new")
            output.mkdir(parents=True, exist_ok=True)
            if not (output / NAME).is_file() and any(output.iterdir()):
                raise InputError(f"{shown(output)}: OUTPUT is not empty, and not of raskrank score; choose another folder")
            self._file: BinaryIO = (output / NAME).open("a+b")
        try:
            self._lock()
            with writable(output / NAME):
                self._read({"version": VERSION, **asked})
        except BaseException:
            self._file.close()
            raise
        remove_stale(output)

    def add(self, record: Record) -> None:
        """A part is in place: say so, on disk."""
        with writable(self.output / NAME):
            self._append(asdict(record))
        self.done[record.part] = record

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _lock(self) -> None:
        if sys.platform == "win32":
            return
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(
                f"{shown(self.output)}: another raskrank score is writing to it; wait until it has ended"
            ) from None
        except OSError:
            return  # a file system without locks

    def _read(self, asked: dict[str, Any]) -> None:
        self._file.seek(0)
        data = self._file.read()
        whole = data.rfind(b"\n") + 1
        if whole < len(data):  # the line that a kill or a full disk cut short
            self._file.truncate(whole)
        lines = data[:whole].splitlines()
        if not lines:
            self._append(asked)
            sync_folder(self.output)
            return
        try:
            self._compare(json.loads(lines[0]), json.loads(json.dumps(asked)))
            names = [field.name for field in fields(Record)]
            for values in map(json.loads, lines[1:]):
                record = Record(**{name: values[name] for name in names})
                self.done[record.part] = record
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(f"{shown(self.output / NAME)}: is damaged; remove OUTPUT, or choose another") from None
        self._forget_missing()

    def _compare(self, then: dict[str, Any], now: dict[str, Any]) -> None:
        for key, what in KEYS.items():
            if then.get(key) != now[key]:
                raise InputError(f"{shown(self.output)}: was begun {what}{_which(key, then.get(key), now[key])}; {OTHER}")

    def _forget_missing(self) -> None:
        """Parts whose files are gone, or other than they were written, are scored again."""
        for name, record in list(self.done.items()):
            size = -1
            with suppress(OSError):
                size = (self.output / name).stat().st_size
            if size != record.bytes:
                del self.done[name]

    def _append(self, values: Mapping[str, Any]) -> None:
        self._file.write(json.dumps(values, ensure_ascii=False).encode() + b"\n")
        self._file.flush()
        os.fsync(self._file.fileno())


def _which(key: str, then: Any, now: Any) -> str:
    """What differs, where that is short."""
    if key == "inputs":
        old = {item["name"]: item for item in then}
        new = {item["name"]: item for item in now}
        if changed := [name for name in new if name in old and old[name] != new[name]]:
            return f": {shown(changed[0])} has changed"
        if other := [*(new.keys() - old.keys()), *(old.keys() - new.keys())]:
            return f": {shown(sorted(other)[0])} is on one side only"
        return ": their order"
    if key == "bundle":
        return f": {str(then)[:12]} then, {str(now)[:12]} now"
    return f": {json.dumps(then)} then, {json.dumps(now)} now" if key in ("backend", "part_rows", "version") else ""
