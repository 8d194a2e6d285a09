"""The arguments of `Reranker.load`, checked."""

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from raskrank.errors import InputError
from raskrank.process import threads
from raskrank.settings import Choice, absolute
from raskrank.texts import Limits

BackendName = Literal["native", "onnx", "torch"]


@dataclass(frozen=True, kw_only=True)
class Options:
    """What `Reranker.load` was called with; with the Choice that came of it, enough to load the same in another process."""

    bundle: str | Path | Choice | None
    threads: int | None
    backend: BackendName | None
    fallback: Literal["torch"] | None
    checkpoint: str | None
    expected_sha256: str | None
    ignore_target: bool
    map_weights: bool
    limits: Limits
    cache_bytes: int = 0

    def check(self) -> None:
        if self.threads is not None:
            threads.check(self.threads, "threads")
        if self.backend not in (None, *get_args(BackendName)):
            raise InputError(f"backend: expected None, 'native', 'onnx' or 'torch', got {self.backend!r}")
        if self.fallback not in (None, "torch"):
            raise InputError(f"fallback: expected None or 'torch', got {self.fallback!r}")
        if not isinstance(self.expected_sha256, str | None):
            raise InputError(f"expected_sha256: expected str, got {type(self.expected_sha256).__name__}")
        if self.expected_sha256 is not None and not re.fullmatch("[0-9A-Fa-f]{64}", self.expected_sha256):
            raise InputError(f"expected_sha256: expected 64 hexadecimal digits, got {len(self.expected_sha256)} characters")
        if self.expected_sha256 is not None and self.checkpoint_alone:
            raise InputError("expected_sha256: it pins a bundle, and backend='torch' with a checkpoint alone reads none")
        for name in ("ignore_target", "map_weights"):
            if not isinstance(value := getattr(self, name), bool):
                raise InputError(f"{name}: expected bool, got {type(value).__name__}")
        if not isinstance(self.limits, Limits):
            raise InputError(f"limits: expected Limits, got {type(self.limits).__name__}")

    @property
    def checkpoint_alone(self) -> bool:
        return self.backend == "torch" and self.bundle is None and self.checkpoint is not None


def path_text(value: object, name: str) -> str | None:
    """`value` as a path of type str, or InputError. None stays None."""
    path = os.fspath(value) if isinstance(value, os.PathLike) else value
    if path is not None and not isinstance(path, str):
        raise InputError(f"{name}: expected str or Path, got {type(value).__name__}")
    return path


def absolute_path_text(value: object, name: str) -> str | None:
    """As `path_text`, and the same place from whichever folder it is opened later."""
    path = path_text(value, name)
    return None if path is None else str(absolute(Path(path)))


def named_bundle(value: object) -> str | Path | Choice | None:
    """`value` as `settings.choose` takes it, or InputError."""
    if value is None or isinstance(value, str | Choice):
        return value
    text = path_text(value, "bundle")
    return None if text is None else Path(text)
