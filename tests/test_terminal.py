"""Texts made safe and short, tables that fit, progress."""

import io
import json
import os
import pty
import threading

import pytest

from raskrank import RaskrankError, printable, terminal
from raskrank.printable import plain, safe, safe_lines, shorten, table, width
from raskrank.terminal import Bar, Steps, columns, duration, to_json

FAMILY = "👩\u200d👩\u200d👧\u200d👦"
E_ACUTE = "e\u0301"


class Tty(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("blåbær  og\tfløte\r\n", "blåbær og fløte"),
        ("\x1b[31mred\x1b[0m", "[31mred [0m"),
        ("a\x07b\x00c\x7fd\x9b31me", "a b c d 31me"),
        ("one\u2028two\u2029three\x85four\u00a0five", "one two three four five"),
        ("\ufeffabc \u202eevil\u202c \u2066x\u2069 so\u00adft", "abc evil x soft"),
        ("private \ue000, unassigned \u0378, lone \ud800", "private \ufffd, unassigned \ufffd, lone \ufffd"),
        (FAMILY, FAMILY),
        ("می\u200cخواهم", "می\u200cخواهم"),
        ("", ""),
    ],
)
def test_plain_leaves_nothing_that_a_terminal_obeys(text: str, shown: str) -> None:
    assert plain(text) == shown


def test_safe_keeps_white_space_and_lines() -> None:
    assert safe("a   b\x1b") == "a   b "
    assert safe_lines("key    value\x1b[2J\nnext") == "key    value [2J\nnext"


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("abc", 3),
        ("blåbær", 6),
        (E_ACUTE, 1),
        ("日本", 4),
        ("ｆ", 2),
        ("🙂", 2),
        ("❤\ufe0f", 2),
        ("🇳🇴", 2),
        ("e" + "\u0301" * 9, 1),
    ],
)
def test_width_counts_columns(text: str, size: int) -> None:
    assert width(text) == size


@pytest.mark.parametrize(
    ("text", "limit", "shown"),
    [
        ("abcdef", 6, "abcdef"),
        ("abcdefg", 6, "abcde…"),
        ("abcd efg", 6, "abcd…"),
        ("日本語", 6, "日本語"),
        ("日本語で", 6, "日本…"),
        ("日本語で", 7, "日本語…"),
        (E_ACUTE * 6, 6, E_ACUTE * 6),
        (E_ACUTE * 7, 6, E_ACUTE * 5 + "…"),
        ("ab" + FAMILY, 6, "ab…"),
        (FAMILY + "ab", 9, FAMILY + "…"),
        ("a\nb", 6, "a b"),
        ("", 6, ""),
    ],
)
def test_shorten_cuts_between_characters(text: str, limit: int, shown: str) -> None:
    assert shorten(text, limit) == shown
    assert width(shown) <= limit


def test_shorten_marks_a_long_text_whose_beginning_is_invisible() -> None:
    assert shorten(" " * 1_000_000 + "end", 20) == "…"


def test_many_combining_marks_are_capped() -> None:
    assert shorten("e" + "\u0301" * 5000, 20) == "e" + "\u0301" * printable.MAX_MARKS + "…"
    assert shorten("e" + "\u0301" * 500 + "f", 20) == "e" + "\u0301" * printable.MAX_MARKS + "f"


def test_table_aligns_and_fits() -> None:
    rows = [["1", "0.9", "日本語のテキスト" * 9], ["10", "-11.25", "kort\x1b[31m"], ["100", "0", FAMILY * 40]]
    lines = table(["rank", "score", "text"], rows, 40)
    assert lines[0] == "rank   score  text"
    assert lines[2] == "  10  -11.25  kort [31m"
    assert all(width(line) <= 40 for line in lines)
    assert width(lines[1]) >= 38  # the room is used


def test_table_on_a_tiny_terminal_still_shows_text() -> None:
    assert table(["rank", "text"], [["1", "a" * 50]], 5)[1] == "   1  " + "a" * 9 + "…"


def test_columns_of_a_terminal_and_of_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    assert columns(Tty()) == 40
    assert columns(io.StringIO()) == 80
    assert columns(None) == 80


def test_json_is_valid_and_safe() -> None:
    text = to_json({"text": "å\x9b31m\u202e\u2028\x7f\x1b\ud800", "numbers": [float("nan"), float("inf"), 1.5, (1, True)]})
    assert text == (
        r'{"text": "å\u009b31m\u202e\u2028\u007f\u001b\ud800", "numbers": [null, null, 1.5, [1, true]]}'
    )  # fmt: skip
    assert json.loads(text)["text"] == "å\x9b31m\u202e\u2028\x7f\x1b\ud800"


@pytest.mark.parametrize(
    ("seconds", "shown"), [(0, "0.0 s"), (1.24, "1.2 s"), (99.94, "99.9 s"), (99.96, "1 min 40 s"), (3605, "60 min 05 s")]
)
def test_duration(seconds: float, shown: str) -> None:
    assert duration(seconds) == shown


def test_bar_counts_what_several_threads_advance() -> None:
    stream = Tty()
    with Bar("ranking", 4000, stream) as bar:

        def work() -> None:
            for _ in range(1000):
                bar.advance(1)

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(timeout=20)
        assert bar._bar.n == 4000
    assert "ranking" in stream.getvalue()
    assert stream.getvalue().endswith("\r")  # and it is wiped


def test_a_bar_of_a_run_that_goes_on_shows_all_that_is_done_its_own_rate_and_the_time_left(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stream = Tty()
    with Bar("scoring", 100, stream, done=40, rate=True) as bar:
        begin = bar._bar.start_t
        monkeypatch.setattr(bar._bar, "_time", lambda: begin + 10.0)
        bar.advance(30)
        shown = stream.getvalue().rsplit("\r", 1)[-1]
    assert shown.split()[0] == "scoring"
    assert shown.split()[-4:] == ["70/100,", "3.00/s,", "00:10", "left"]


def test_steps_leave_a_line_each() -> None:
    stream = Tty()
    steps = Steps(stream)
    steps.start("export to ONNX", None)
    steps.advance(3)  # a step without a total may count as well
    assert stream.getvalue() == "export to ONNX …"
    steps.finish(72.46)
    steps.start("score with PyTorch", 2)
    steps.advance(1)
    steps.advance(1)
    steps.finish(125)
    lines = [line.rsplit("\r", 1)[-1] for line in stream.getvalue().split("\n")]
    assert lines == ["export to ONNX                72.5 s", "score with PyTorch        2 min 05 s", ""]


def test_writing_to_a_stream_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdout", None)
    monkeypatch.setattr("sys.stderr", None)
    terminal.show("nothing")
    terminal.say("nothing")
    assert not terminal.is_terminal(None)


def test_a_message_of_any_length_is_short(capsys: pytest.CaptureFixture[str]) -> None:
    terminal.say("begin " + "a" * 100_000 + " end")
    said = capsys.readouterr().err
    assert said.startswith("raskrank: begin aaa")
    assert said.endswith("aaa end\n")
    assert len(said) < 2100


def test_json_nested_too_deeply_is_an_error() -> None:
    value: list[object] = []
    for _ in range(100_000):
        value = [value]
    with pytest.raises(RaskrankError, match="nested too deeply to be printed as JSON"):
        to_json(value)


def test_a_pty_is_a_terminal() -> None:
    ours, theirs = pty.openpty()
    try:
        with os.fdopen(theirs, "w") as stream:
            assert terminal.is_terminal(stream)
    finally:
        os.close(ours)
