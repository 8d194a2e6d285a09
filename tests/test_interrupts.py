"""KeyboardInterrupt at any moment of a call: the attack of the same name, short, in a process that must end in time."""

import signal
from pathlib import Path

import pytest

from backends import needs_kernels
from paths import ROOT
from processes import run_script

pytestmark = [
    pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs a timer that interrupts"),
    pytest.mark.parametrize("backend", ["onnx", pytest.param("native", marks=needs_kernels)]),
]

ATTACK = (ROOT / "tests" / "attacks" / "interrupts.py").read_text("utf-8")


@pytest.mark.parametrize("options", [["--threads", "1"], ["--threads", "2"], ["--threads", "2", "--deadline"]], ids=" ".join)
def test_the_engine_works_closes_and_exits_after_interrupts_at_random_moments(
    tmp_path: Path, options: list[str], backend: str
) -> None:
    finished = run_script(tmp_path, ATTACK, "--seconds", "2", *options, "--backend", backend, deadline=60)
    assert int(finished.stdout.split()[0]) > 100  # interrupts


@pytest.mark.parametrize("options", [[], ["--deadline"]], ids=["", "deadline"])
@pytest.mark.parametrize("steps", ["line", "opcode --stride 23", pytest.param("opcode", marks=pytest.mark.slow)])
def test_the_engine_works_closes_and_exits_after_an_interrupt_at_each_step_of_a_call(
    tmp_path: Path, steps: str, options: list[str], backend: str
) -> None:
    finished = run_script(tmp_path, ATTACK, "--steps", *steps.split(), *options, "--backend", backend, deadline=280)
    assert int(finished.stdout.split()[0]) > 100
