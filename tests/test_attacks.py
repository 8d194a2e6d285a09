"""The hostile scripts that belong to no single module, for a short while; `make soak` runs all of them at length."""

import subprocess
import sys

import pytest

from paths import ROOT

ATTACKS = ROOT / "tests" / "attacks"


@pytest.mark.parametrize(
    ("script", "arguments", "said"),
    [
        ("calls.py", ["--calls", "300", "--loads", "10"], "300 calls of "),
        ("export_kill.py", ["--count", "6"], "6 exports attacked: "),
    ],
)
def test_a_promise_holds_under_attack(script: str, arguments: list[str], said: str) -> None:
    command = [sys.executable, str(ATTACKS / script), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert said in done.stdout


def test_the_long_run_has_every_attack() -> None:
    recipe = (ROOT / "Makefile").read_text("utf-8").partition("\nsoak:")[2].partition("\n\n")[0]
    assert {file.name for file in ATTACKS.glob("*.py")} == {
        word.rpartition("/")[2] for word in recipe.split() if "attacks/" in word and word.endswith(".py")
    }
