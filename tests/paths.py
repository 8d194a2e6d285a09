"""Where tests find the repository and, beside it, the optional shared data."""

from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
NANO_CHECKPOINT = ROOT / "export" / "nano"
SHARED: Path | None = ROOT.parent / "shared" if (ROOT.parent / "shared").is_dir() else None


def shared(*parts: str) -> Path:
    """A path below the shared data folder; skips the calling test, by name, where it is not there."""
    path = (SHARED or ROOT.parent / "shared").joinpath(*parts)
    if not path.exists():
        pytest.skip(f"needs ../shared/{'/'.join(parts)}")
    return path
