"""The attacks that no other test file has, shortly; `make soak` runs all of them at length."""

import re
import subprocess
import sys

import pytest

from paths import ROOT

ATTACKS = ROOT / "tests" / "attacks"
DEADLINE = 280


def attack(name: str, *options: str) -> str:
    """What it prints. Fails where it does."""
    command = [sys.executable, str(ATTACKS / name), *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE, check=False)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    return done.stdout


@pytest.mark.skipif(sys.platform != "linux", reason="kills forked processes, and limits them")
def test_killed_at_any_moment_or_on_a_full_disk_an_export_leaves_a_whole_bundle_or_none() -> None:
    found = attack("export_kill.py", "--count", "6")
    assert "killed: the old bundle" in found
    assert "0 promises broken" in found


def test_killed_at_any_moment_scoring_loses_one_part_at_most() -> None:
    found = attack("score_kill.py", "--count", "6")
    assert "killed by" in found
    assert "0 promises broken" in found


@pytest.mark.skipif(sys.platform != "linux", reason="reads memory from /proc")
def test_memory_threads_and_files_stay_flat_over_calls_and_loads() -> None:
    assert attack("calls.py", "--count", "500", "--loads", "30").endswith("flat\n")


@pytest.mark.skipif(sys.platform != "linux", reason="forks, and counts what the texts take")
def test_scores_have_the_bits_of_their_pair_alone_in_any_company_and_in_forked_children() -> None:
    assert attack("invariance.py", "--count", "2000").endswith(" s: 0 with other bits than alone\n")


@pytest.mark.skipif(sys.platform != "linux", reason="the texts are those of an attack that counts what they take")
def test_texts_whose_pieces_are_all_kept_are_read_as_beside_the_whole_vocabulary() -> None:
    assert attack("trimmed.py", "--count", "1000").endswith(": 0 with other pieces\n")


def test_soak_runs_every_attack() -> None:
    run = set(re.findall(r"'(\w+\.py)\b", (ROOT / "Makefile").read_text("utf-8")))
    assert run == {file.name for file in ATTACKS.glob("*.py")}
