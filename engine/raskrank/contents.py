"""The bytes of a weights file, the same for the digest and for the runtime: mapped, or read into this process's own memory."""

import hashlib
import mmap
import os
from pathlib import Path

from raskrank.errors import InferenceError


class Contents:
    """A file as it was opened. Whatever is put in its place later, these bytes stay.

    Mapped, they are shared with every process that maps the file, and who writes to it in place changes them. Where it was made
    shorter, a read of what is gone ends the process (SIGBUS): `check` before. Read, they are this process's own, and nothing
    done to the file matters.
    """

    def __init__(self, file: Path, *, mapped: bool = True) -> None:
        """Raises OSError. file: links are followed."""
        self.file = file.resolve()
        self._map: mmap.mmap | None = None
        with self.file.open("rb") as stream:
            size = os.fstat(stream.fileno()).st_size
            if mapped and size:  # nothing can be mapped of an empty file
                self._map = mmap.mmap(stream.fileno(), size, access=mmap.ACCESS_READ)
            self.view = memoryview(stream.read() if self._map is None else self._map)

    def __len__(self) -> int:
        return len(self.view)

    def sha256(self) -> str:
        """In one call: reads in parts would each need the GIL, which parsing a tokenizer holds for long."""
        return hashlib.sha256(self.view).hexdigest()

    def check(self) -> None:
        """Raises InferenceError if the mapped file has become shorter. Cheap: the system is asked for its size."""
        if self._map is not None and (size := self._map.size()) < len(self.view):
            raise InferenceError(
                f"{self.file} was written over while it was mapped: it has {size} bytes, and had {len(self.view)}. Load the "
                "bundle again; put a new file in place of an old one by renaming, or load with map_weights=False"
            )

    def release_pages(self) -> None:
        """Take mapped pages out of this process's memory; those that are needed come back from the system's cache."""
        if self._map is not None and hasattr(mmap, "MADV_DONTNEED"):
            self._map.madvise(mmap.MADV_DONTNEED)
