"""What tests of the command line start, and what it says."""

import io
import sys
from pathlib import Path

import pytest

import bundles
from conftest import Tiny
from raskrank.manifest import Precision

QUERY = "Hvem kan Python?"
DOCUMENTS = ["Sykepleier i turnus", "Utvikler med erfaring i Python", "Dyrepasser", "Elektriker i Bergen"]
SECRET = "HEMMELIG"
EXECUTABLE = str(Path(sys.executable).with_name("raskrank"))
DEADLINE = 60
# A child of a background job inherits that SIGINT is ignored; this one does not.
INTERRUPTIBLE = [
    sys.executable,
    "-c",
    "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler);"
    "from raskrank.cli.main import main; sys.exit(main())",
]


def write(file: Path, text: str) -> Path:
    file.write_text(text, "utf-8", newline="")
    return file


def stdin(monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))


def error_line(capsys: pytest.CaptureFixture[str]) -> str:
    """What a failed command said: one line on standard error, and nothing on standard output."""
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("raskrank: ")
    assert captured.err.count("\n") == 1
    return captured.err


def edited(tiny: Tiny, folder: Path, precision: Precision = "int8", **updates: object) -> Path:
    """A bundle with a manifest that says other things."""
    return bundles.edit(bundles.copy_bundle(tiny.bundle("bert", precision), folder / "edited"), **updates)
