"""The command line in a process of its own: streams, full disks, signals, terminals."""

import json
import select
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from command import DEADLINE, DOCUMENTS, EXECUTABLE, INTERRUPTIBLE, QUERY, write
from raskrank import Reranker, printable
from terminals import Terminal

pytestmark = pytest.mark.usefixtures("no_surroundings")


@pytest.fixture
def lines(tmp_path: Path) -> Path:
    return write(tmp_path / "documents.txt", "\n".join(DOCUMENTS) + "\n")


def _run(*arguments: str, env: Mapping[str, str] | None = None, input: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    command = [EXECUTABLE, *arguments]
    return subprocess.run(command, input=input, capture_output=True, timeout=DEADLINE, env=env, check=False)


# processes


@pytest.mark.parametrize("command", [[EXECUTABLE], [sys.executable, "-m", "raskrank"]])
def test_entry_points(command: list[str], lines: Path) -> None:
    done = subprocess.run(
        [*command, "rank", "--json", QUERY, str(lines)], capture_output=True, timeout=DEADLINE, check=True, text=True
    )
    assert len(json.loads(done.stdout)) == len(DOCUMENTS)
    assert done.stderr == ""


def test_no_terminal_no_progress(tmp_path: Path) -> None:
    done = _run("rank", QUERY, "-", input=b"Python\n" * 300)
    assert done.returncode == 0
    assert done.stderr == b""
    assert len(done.stdout.splitlines()) == 301


@pytest.mark.parametrize("settings", [{}, {"PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}, {"PYTHONIOENCODING": "latin-1"}])
def test_utf8_where_the_locale_is_c(settings: dict[str, str]) -> None:
    done = _run("rank", "abc", input="Tromsø 日本".encode(), env={"LC_ALL": "C", **settings})
    assert done.returncode == 0
    assert done.stdout.decode("utf-8").splitlines()[1].endswith("Tromsø 日本")


@pytest.mark.parametrize("option", [[], ["--json"]])
def test_a_reader_that_leaves_is_no_error(option: list[str], tmp_path: Path) -> None:
    file = write(tmp_path / "many.txt", ("Python " * 8 + "\n") * 1000)
    process = subprocess.Popen([EXECUTABLE, "rank", *option, QUERY, str(file)], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stderr is not None
    with process:
        process.stdout.readline()
        process.stdout.close()
        said = process.stderr.read()
        assert process.wait(timeout=DEADLINE) == 0
    assert said == b""


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_an_error(lines: Path) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [EXECUTABLE, "rank", QUERY, str(lines)], stdout=full, stderr=subprocess.PIPE, timeout=DEADLINE, check=False
        )
    assert done.returncode == 1
    assert done.stderr == b"raskrank: error: standard output: No space left on device\n"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["rank", "--help"], ["info"], ["info", "--json"]])
def test_help_into_a_full_disk_is_an_error(arguments: list[str]) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run([EXECUTABLE, *arguments], stdout=full, stderr=subprocess.PIPE, timeout=DEADLINE, check=False)
    assert done.returncode == 1
    assert done.stderr == b"raskrank: error: standard output: No space left on device\n"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("arguments", [[], ["rank", QUERY, "absent.txt"]])
def test_messages_into_a_full_disk_change_no_exit_code(arguments: list[str]) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run([EXECUTABLE, *arguments], stdout=full, stderr=full, timeout=DEADLINE, check=False)
    assert done.returncode == 2


def test_nothing_that_is_printed_gets_into_a_file_that_is_written(tmp_path: Path) -> None:
    code = (
        "import os; from raskrank.cli.main import main; main(['--version']); print(os.open('file', os.O_CREAT | os.O_WRONLY))"
    )
    script = f"{shlex.quote(sys.executable)} -c {shlex.quote(code)} <&- 2>&-"
    done = subprocess.run(["sh", "-c", script], cwd=tmp_path, capture_output=True, timeout=DEADLINE, check=True)
    assert int(done.stdout.split()[-1]) > 2


def test_closed_standard_streams(lines: Path) -> None:
    command = f"{shlex.quote(EXECUTABLE)} rank x"
    for redirection, code in ((f"{shlex.quote(str(lines))} >&-", 0), ("<&-", 2), ("absent.txt 2>&-", 2)):
        done = subprocess.run(["sh", "-c", f"{command} {redirection}"], capture_output=True, timeout=DEADLINE, check=False)
        assert done.returncode == code
        assert b"Traceback" not in done.stdout + done.stderr


def test_interrupted_while_it_reads(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [*INTERRUPTIBLE, "rank", QUERY], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    with process:
        process.stdin.write(b"Python\n" * 100_000)  # more than a pipe holds: it comes through when the other side reads
        process.stdin.flush()
        time.sleep(0.3)
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=DEADLINE) == 130
        assert process.stdout.read() == b""
        assert process.stderr.read() == b"raskrank: interrupted\n"


# terminals


@pytest.fixture
def terminal_of(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int], Terminal]]:
    monkeypatch.delenv("COLUMNS")
    opened: list[Terminal] = []

    def open_terminal(size: int) -> Terminal:
        opened.append(Terminal(size))
        return opened[-1]

    yield open_terminal
    for each in opened:
        each.close()


@pytest.mark.parametrize("size", [40, 80])
def test_the_table_fits_the_terminal(size: int, terminal_of: Callable[[int], Terminal], tmp_path: Path) -> None:
    texts = ["Sykepleier i turnus " * 9, "日本語のテキスト" * 20, "e\u0301" * 200, "❤\ufe0f" * 99, "lang tekst " * 2000]
    file = write(tmp_path / "documents.txt", "\n".join(texts))
    screen = terminal_of(size)
    process = subprocess.Popen([EXECUTABLE, "rank", QUERY, str(file)], stdout=screen.theirs, stderr=subprocess.PIPE)
    screen.read_until(lambda: process.poll() is not None and not select.select([screen.ours], [], [], 0)[0])
    assert process.stderr is not None
    assert (process.returncode, process.stderr.read()) == (0, b"")
    process.stderr.close()
    shown = screen.written.decode().split("\r\n")
    assert all(printable.width(line) <= size for line in shown)
    assert sum("…" in line for line in shown) == 5
    assert max(map(printable.width, shown)) >= size - 2


def test_progress_on_a_terminal_changes_no_result(terminal_of: Callable[[int], Terminal], tmp_path: Path) -> None:
    texts = [f"{word} {number % 150}" for number in range(150) for word in ("Python", "sykepleier")] + ["Python 3"] * 300
    file = write(tmp_path / "many.txt", "\n".join(texts))
    screen = terminal_of(80)
    process = subprocess.Popen([EXECUTABLE, "rank", "--json", QUERY, str(file)], stdout=subprocess.PIPE, stderr=screen.theirs)
    assert process.stdout is not None
    with process:
        rows = json.loads(process.stdout.read())
        screen.read_until(lambda: process.poll() is not None and not select.select([screen.ours], [], [], 0)[0])
    assert process.returncode == 0
    assert b"ranking" in screen.written
    assert b"/600" in screen.written
    hits = Reranker.load().rank(QUERY, texts)
    assert [(row["index"], row["score"]) for row in rows] == [(hit.index, hit.score) for hit in hits]


def test_interrupted_while_it_ranks(terminal_of: Callable[[int], Terminal], tmp_path: Path) -> None:
    file = write(tmp_path / "many.txt", ("Python og SQL " * 60 + "\n") * 20_000)
    screen = terminal_of(80)
    process = subprocess.Popen([*INTERRUPTIBLE, "rank", QUERY, str(file)], stdout=subprocess.PIPE, stderr=screen.theirs)
    assert process.stdout is not None
    with process:
        screen.read_until(lambda: b"/20000" in screen.written)
        process.send_signal(signal.SIGINT)
        screen.read_until(lambda: process.poll() is not None and not select.select([screen.ours], [], [], 0)[0])
        assert process.stdout.read() == b""
    assert process.returncode == 130
    assert screen.written.endswith(b"\r\x1b[Kraskrank: interrupted\r\n")
    assert b"Traceback" not in screen.written


def test_nobody_types_documents_by_accident(terminal_of: Callable[[int], Terminal]) -> None:
    done = subprocess.run(
        [EXECUTABLE, "rank", QUERY], stdin=terminal_of(80).theirs, capture_output=True, timeout=DEADLINE, check=False
    )
    assert done.returncode == 2
    assert done.stderr.startswith(b"raskrank: error: no documents: name a FILE")
