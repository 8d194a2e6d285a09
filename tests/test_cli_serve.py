"""What `raskrank serve` refuses before anything is loaded or imported."""

import importlib.util

import pytest

from command import error_line
from raskrank.cli.main import main


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the extra were there: what is refused is refused before it is needed."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)


def test_without_the_extra_it_says_how_to_install_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    assert main(["serve"]) == 2
    assert "pip install 'raskrank[server]'" in error_line(capsys)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--port", "-1"], "at least 0"),
        (["--max-documents", "0"], "at least 1"),
        (["--deadline", "0"], "above 0"),
        (["--max-wait", "inf"], "above 0"),
        (["--grace", "x"], "whole number"),
        (["key.txt"], "unrecognized"),
    ],
)
def test_wrong_options(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str], installed: None) -> None:
    assert main(["serve", *arguments]) == 2
    assert message in error_line(capsys)
