"""What `raskrank bench` and `raskrank compare` share: times in turn, fresh processes, PyTorch's threads, progress, tables."""

import io
import random
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from conftest import Tiny
from raskrank import InferenceError
from raskrank.measure import fresh
from raskrank.measure.contenders import loaded_for_bench, loaded_for_comparison
from raskrank.measure.fresh import FreshProcess, fresh_process, medians
from raskrank.measure.progress import step
from raskrank.measure.tables import markdown_table, number, plain_table
from raskrank.measure.timing import Timing, interleaved
from raskrank.settings import bundle_path
from raskrank.terminal import Steps

SECRET = "HEMMELIG"


@pytest.fixture(autouse=True)
def _no_surroundings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RASKRANK_MODEL", raising=False)


# timing


def test_a_timing_gives_the_middle_the_tail_and_the_best() -> None:
    timing = Timing(tuple(float(number) for number in random.Random(0).sample(range(1, 101), 100)))
    assert (timing.median, timing.p95, timing.best) == (50.5, 95.0, 1.0)
    assert Timing((3.0, 1.0, 2.0)).p95 == 3.0


def test_functions_take_turns_after_a_round_that_is_not_counted() -> None:
    calls, advanced = list[str](), list[int]()
    timings = interleaved({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, rounds=2, advance=advanced.append)
    assert calls == ["a", "b"] * 3
    assert advanced == [1] * 6
    assert {name: len(timing.seconds) for name, timing in timings.items()} == {"a": 2, "b": 2}


def test_times_are_of_the_function_that_they_stand_for() -> None:
    timings = interleaved({"slow": lambda: time.sleep(0.05), "quick": lambda: None}, rounds=3)
    assert timings["slow"].best >= 0.05
    assert timings["quick"].best < timings["slow"].best / 2


@pytest.mark.parametrize(("rounds", "counted"), [(100, 3), (2, 2)])
def test_a_budget_leaves_three_rounds(rounds: int, counted: int) -> None:
    timings = interleaved({"": lambda: time.sleep(0.01)}, rounds=rounds, budget_s=0.0)
    assert len(timings[""].seconds) == counted


def test_a_budget_ends_the_rounds_before_it_is_used_up() -> None:
    timings = interleaved({"": lambda: time.sleep(0.02)}, rounds=10_000, budget_s=0.5)
    assert 3 <= len(timings[""].seconds) <= 25


def test_an_exception_of_a_function_passes_through() -> None:
    with pytest.raises(ZeroDivisionError):
        interleaved({"": lambda: 1 / 0}, rounds=3)


# fresh processes


def test_a_fresh_process_is_measured() -> None:
    start = time.perf_counter()
    found = fresh_process(bundle_path(None), threads=1, texts=["Sykepleier", "Utvikler\u2028i Python"], query="Hvem?")
    assert 0 < found.first_score_s < time.perf_counter() - start
    if sys.platform == "linux":
        assert found.resident_bytes is not None
        assert found.private_bytes is not None
        assert 10_000_000 < found.private_bytes < found.resident_bytes < 1_000_000_000


def test_a_fresh_process_that_fails_says_why() -> None:
    with pytest.raises(InferenceError, match=r"a fresh process with .*nowhere failed: .*MissingFile: no bundle at .*nowhere"):
        fresh_process(Path("nowhere"), threads=1, texts=[SECRET], query="Hvem?")


def test_a_fresh_process_has_a_deadline() -> None:
    with pytest.raises(InferenceError, match=r"was not done after 0\.01 s"):
        fresh_process(bundle_path(None), threads=1, texts=["Sykepleier"], query="Hvem?", timeout_s=0.01)


def test_texts_are_on_no_command_line(monkeypatch: pytest.MonkeyPatch) -> None:
    commands = list[Any]()

    def watched(command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
        commands.append((command, options["env"]))
        return original(command, **options)

    original: Callable[..., subprocess.CompletedProcess[str]] = subprocess.run
    monkeypatch.setattr(subprocess, "run", watched)
    fresh_process(bundle_path(None), threads=1, texts=[SECRET], query=SECRET)
    assert len(commands) == 1
    assert SECRET not in repr(commands)


def test_fresh_processes_take_turns_and_their_medians_count() -> None:
    calls, advanced = list[str](), list[int]()
    rows: dict[str, list[tuple[float, int | None, int | None]]] = {
        "a": [(3.0, 30, None), (1.0, 50, None), (2.0, 40, None)],
        "b": [(1.0, None, 7), (1.0, None, 8), (4.0, None, 9)],
    }

    def starting(name: str) -> Callable[[], FreshProcess]:
        def start() -> FreshProcess:
            calls.append(name)
            first, resident, private = rows[name].pop(0)
            return FreshProcess(first_score_s=first, resident_bytes=resident, private_bytes=private)

        return start

    found = medians({name: starting(name) for name in rows}, advance=advanced.append)
    assert calls == ["a", "b"] * fresh.PROCESSES
    assert advanced == [1] * 6
    assert found["a"] == FreshProcess(first_score_s=2.0, resident_bytes=40, private_bytes=None)
    assert found["b"] == FreshProcess(first_score_s=1.0, resident_bytes=None, private_bytes=8)


def test_a_budget_leaves_one_round_of_fresh_processes() -> None:
    calls = list[None]()

    def start() -> FreshProcess:
        calls.append(None)
        return FreshProcess(first_score_s=1.0, resident_bytes=None, private_bytes=None)

    medians({"": start}, budget_s=0.0)
    assert len(calls) == 1


# PyTorch, and progress


def test_pytorch_has_the_threads_of_the_others_until_the_block_ends(tiny: Tiny) -> None:
    import torch

    bundle, checkpoint, before = tiny.bundle(), tiny.checkpoint(), torch.get_num_threads()
    with loaded_for_bench([bundle], threads=before + 1, against_torch=True, checkpoint=checkpoint):
        assert torch.get_num_threads() == before + 1
    assert torch.get_num_threads() == before
    with loaded_for_comparison([checkpoint], threads=before + 1):
        assert torch.get_num_threads() == before + 1
    assert torch.get_num_threads() == before


def test_the_name_of_a_step_moves_no_cursor() -> None:
    stream = io.StringIO()
    with step(Steps(stream), "load \x1b[2Jmodel"):
        pass
    assert "\x1b" not in stream.getvalue()
    assert "model" in stream.getvalue()


# tables


def test_a_plain_table() -> None:
    rows = [["blåbær", "1"], ["日本", "1,234"]]
    assert plain_table(["model", "ms"], rows) == "model      ms\nblåbær      1\n日本    1,234"


def test_a_markdown_table_cuts_long_cells_and_escapes_bars() -> None:
    lines = markdown_table(["model", "ms"], [["a|b", "1"], ["x" * 60, "20"]], left=1).splitlines()
    assert lines == [
        f"| model{' ' * 43} | ms |",
        f"|{'-' * 50}|---:|",
        f"| a\\|b{' ' * 44} |  1 |",
        f"| {'x' * 47}… | 20 |",
    ]


@pytest.mark.parametrize(
    ("value", "shown"), [(0.0, "0.00"), (9.994, "9.99"), (9.996, "10.0"), (99.94, "99.9"), (99.96, "100"), (12345.6, "12346")]
)
def test_numbers_have_three_digits(value: float, shown: str) -> None:
    assert number(value) == shown


def test_thousands_can_be_told_apart() -> None:
    assert number(1234567.8, thousands=",") == "1,234,568"
