"""What the engine takes from its machine: files, sockets, memory, and what it logs. Each in a process of its own."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from backends import BOTH
from measured import PRELUDE, linux, run
from processes import run_script

pytestmark = BOTH
USE = (
    PRELUDE
    + 'reranker = Reranker.load(threads=2)\nreranker.rank("by", ["en by", "en sjø"] * 40)\nreranker.score("by", [long])\n'
)


# Files and sockets


def test_nothing_is_written_to_home_or_the_working_folder(tmp_path: Path) -> None:
    assert run_script(tmp_path, USE).stdout == ""
    assert {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*")} == {"cwd", "home", "script.py"}


def test_no_socket_is_opened_and_no_file_is_written(tmp_path: Path) -> None:
    # Python's audit hooks do not see what native code opens; the kernel does.
    trace = tmp_path / "trace"
    wrapper = (
        "strace",
        "-f",
        "-o",
        str(trace),
        "-e",
        "trace=%network,open,openat,creat,mkdir,mkdirat,rename,renameat,renameat2",
    )
    _need(*wrapper)
    run_script(tmp_path, USE, wrapper=wrapper)
    calls = trace.read_text("utf-8").splitlines()
    assert any("openat(" in call for call in calls)
    assert not [call for call in calls if re.search(r"\b(socket|connect|bind|sendto|mkdir|mkdirat|creat|rename\w*)\(", call)]
    writing = [call for call in calls if re.search(r"O_(WRONLY|RDWR|CREAT|TRUNC|APPEND)", call)]
    assert not [call for call in writing if "/dev/null" not in call]


def test_it_runs_without_a_network(tmp_path: Path) -> None:
    wrapper = ("unshare", "--net", "--map-root-user")
    _need(*wrapper)
    run_script(tmp_path, USE, wrapper=wrapper)


@linux
def test_no_socket_is_held(tmp_path: Path) -> None:
    source = """
held = []
for name in os.listdir("/proc/self/fd"):
    try:
        held.append(os.readlink(f"/proc/self/fd/{name}"))
    except FileNotFoundError:  # of the listing itself
        pass
assert len(held) >= 3
assert not [kind for kind in held if kind.startswith("socket:")], held
"""
    run_script(tmp_path, USE + source)


# Memory


@linux
def test_a_failed_allocation_is_an_error_and_the_engine_stays_usable(tmp_path: Path) -> None:
    source = """
reranker = Reranker.load(threads=1)
texts = [long, "en by", long]
reranker.score("by", ["en by"])
backend, runs = reranker._loaded.backend, []
logits = backend.logits

def starved(*arguments, **options):
    # Only while onnxruntime runs: elsewhere an allocation that fails in the tokenizer ends the process.
    with open("/proc/self/statm") as file:
        size = int(file.read().split()[0]) * resource.getpagesize()
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    runs.append(arguments)
    resource.setrlimit(resource.RLIMIT_AS, (size, hard))
    try:
        return logits(*arguments, **options)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))

backend.logits = starved
for _ in range(3):
    try:
        reranker.score("by", texts)
    except InferenceError as error:
        assert "1 x 512 tokens" in str(error), error
    else:
        raise SystemExit("the run had memory enough")
assert len(runs) == 3  # the first run of each call, and none after it
backend.logits = logits
assert reranker.score("by", texts).tobytes() == Reranker.load(threads=1).score("by", texts).tobytes()
"""
    # By default glibc reserves a heap for each thread, and keeps what is freed: enough for the run.
    run(tmp_path, source, env={"MALLOC_ARENA_MAX": "1", "MALLOC_MMAP_THRESHOLD_": "65536"})


@linux
@pytest.mark.parametrize("calls", [1000, pytest.param(10_000, marks=pytest.mark.slow)])
def test_memory_stays_flat_over_calls_of_varied_shapes(tmp_path: Path, calls: int) -> None:
    source = """
calls, seeded = int(sys.argv[1]), random.Random(7)
reranker = Reranker.load(threads=2)
reranker.score("by", [long] * 3)
reranker.score("by", [long])
for call in range(calls + 1):
    if call == calls // 10:
        before = resident()
    ceilings = [500 if seeded.random() < 0.02 else 12 for _ in range(seeded.choice((1, 1, 1, 2, 4)))]
    reranker.score(pick(seeded, 3), [pick(seeded, seeded.randrange(ceiling)) for ceiling in ceilings])
grown = (resident() - before) / 2**20
assert grown < 10, f"{grown:.1f} MB"
"""
    run(tmp_path, source, str(calls), deadline=200)


@linux
@pytest.mark.parametrize(("count", "ceiling"), [(3000, 10), pytest.param(100_000, 40, marks=pytest.mark.slow)])
def test_memory_and_order_of_many_documents(tmp_path: Path, count: int, ceiling: int) -> None:
    # Per document: a tuple, a flag and a logit, and half as much again while a list grows; the texts are the caller's.
    source = """
count, ceiling, seeded = int(sys.argv[1]), int(sys.argv[2]), random.Random(7)
documents = [pick(seeded, seeded.randrange(4)) for _ in range(count)]
reranker = Reranker.load(threads=2)
reranker.score("by", documents[:1000])
before = peak()
scores = reranker.score("by", documents)
grown = (peak() - before) / 2**20
assert grown < ceiling, f"{grown:.1f} MB"
assert scores.shape == (count,)
for index in [0, count - 1, *seeded.sample(range(count), 50)]:
    assert reranker.score("by", [documents[index]])[0] == scores[index], index
"""
    run(tmp_path, source, str(count), str(ceiling), deadline=280)


@linux
@pytest.mark.parametrize(("count", "ceiling"), [(100, 30), pytest.param(1000, 60, marks=pytest.mark.slow)])
def test_memory_of_megabytes_read_in_windows(tmp_path: Path, count: int, ceiling: int) -> None:
    # What is held at once are the ids of 512 windows, two chunks of them: one runs while the next is tokenized.
    source = """
from raskrank import Windows
count, ceiling, text = int(sys.argv[1]), int(sys.argv[2]), (long * 600)[:1_000_000]
documents = [f"{number} {text}" for number in range(count)]
reranker, windows = Reranker.load(threads=2), Windows(max_windows=4)
reranker.rank("by", documents[:3], long_documents=windows)
before = peak()
hits = reranker.rank("by", documents, long_documents=windows)
grown = (peak() - before) / 2**20
assert grown < ceiling, f"{grown:.1f} MB"
assert len(hits) == count and all(hit.truncated for hit in hits)
assert reranker.rank("by", [documents[7]], long_documents=windows)[0].score == next(hit.score for hit in hits if hit.index == 7)
"""
    run(tmp_path, source, str(count), str(ceiling), deadline=200)


@linux
@pytest.mark.parametrize(("threads", "sizes"), [(2, (1, 15, 60, 240, 480, 4000)), (6, (1, 30, 120, 360, 4000))], ids=["2", "6"])
@pytest.mark.parametrize("limited", ["load", "first call", "later call"])
def test_too_little_memory_is_an_error_and_never_ends_the_process(
    tmp_path: Path, limited: str, threads: int, sizes: tuple[int, ...]
) -> None:
    source = """
def leave(mib):
    with open("/proc/self/statm") as file:
        size = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + (mib << 20),) * 2)

texts = [f"{number} en by ved sjøen" for number in range(1000)] + [f"{number} {long}" for number in range(20)]
limited, mib = sys.argv[1], int(sys.argv[2])
try:
    if limited == "load":
        leave(mib)
    reranker = Reranker.load(threads=int(sys.argv[3]))
    if limited == "first call":
        leave(mib)
    reranker.score("by", texts[:3])
    if limited == "later call":
        leave(mib)
    for _ in range(2):
        reranker.score("by", texts)
    reranker.close()
    print("done")
except InferenceError as error:
    assert "the limit on address space (RLIMIT_AS, ulimit -v) leaves" in str(error), error
    print("refused")
"""
    outcomes = [run(tmp_path, source, limited, str(mib), str(threads)) for mib in sizes]
    assert outcomes[0] == "refused\n"
    assert outcomes[-1] == "done\n"


@linux
def test_memory_that_runs_out_within_the_runtime_is_an_error_that_says_so(tmp_path: Path) -> None:
    source = """
import numpy as np
backend = Reranker.load(threads=1)._loaded.backend
backend.logits(*np.zeros((2, 1, 8), np.int64))
with open("/proc/self/statm") as file:
    size = int(file.read().split()[0]) * resource.getpagesize()
ids = np.zeros((200, 512), np.int64)
resource.setrlimit(resource.RLIMIT_AS, (size + (20 << 20),) * 2)
try:
    backend.logits(ids, ids)
except InferenceError as error:
    print(error)
"""
    printed = run(tmp_path, source)
    assert "failed on a run of 200 x 512 tokens" in printed
    assert "the limit on address space (RLIMIT_AS, ulimit -v) leaves" in printed


# Logging


def test_logging_is_left_to_the_application(tmp_path: Path) -> None:
    source = """
import logging
handlers = [type(handler) for handler in logging.getLogger("raskrank").handlers]
assert handlers == [logging.NullHandler]
reranker = Reranker.load()
reranker.rank("by", ["en by", long])
logging.getLogger("raskrank").error("nobody asked to see this")
root = logging.getLogger()
assert (root.handlers, root.level) == ([], logging.WARNING)
assert logging.getLogger("raskrank").level == logging.NOTSET
assert logging.getLogger("raskrank").propagate
"""
    assert run(tmp_path, source) == ""


def _need(*wrapper: str) -> None:
    """Skip the calling test where a command that runs another is not there or not allowed."""
    if shutil.which(wrapper[0]) is None:
        pytest.skip(f"needs {wrapper[0]}")
    if subprocess.run([*wrapper, "true"], capture_output=True, timeout=20, check=False).returncode:
        pytest.skip(f"needs the right to run {wrapper[0]}")
