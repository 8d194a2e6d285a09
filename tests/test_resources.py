"""What the engine takes from its machine: files, sockets, threads, CPU time and memory. Each in a process of its own."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from processes import run_script
from raskrank import InputError, Reranker, cpu

linux = pytest.mark.skipif(sys.platform != "linux", reason="needs Linux's /proc")

PRELUDE = """
import os, random, resource, sys, threading, time
from raskrank import InferenceError, Reranker

words = [f"ord{number}" if number % 7 else "Ærlig" for number in range(200)]
long = "en lang tekst om en by ved sjøen " * 60

def native_threads():
    time.sleep(0.05)  # a thread that has done its work is still there for a moment
    return len(os.listdir("/proc/self/task"))

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()

def peak():
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) << 10 for line in file if line.startswith("VmHWM"))

def pick(random, count):
    return " ".join(random.choices(words, k=count))
"""
USE = (
    PRELUDE
    + 'reranker = Reranker.load(threads=2)\nreranker.rank("by", ["en by", "en sjø"] * 40)\nreranker.score("by", [long])\n'
)


def run(folder: Path, source: str, *arguments: str, env: dict[str, str] | None = None, deadline: float = 40) -> str:
    return run_script(folder, PRELUDE + source, *arguments, env=env, deadline=deadline).stdout


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


# Threads


def test_threads_are_the_usable_cpus() -> None:
    with Reranker.load() as reranker:
        assert reranker.info().threads == cpu.usable_cpus()


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="needs sched_setaffinity")
def test_threads_follow_affinity(tmp_path: Path) -> None:
    source = """
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
assert Reranker.load().info().threads == 1
assert Reranker.load(threads=3).info().threads == 3
"""
    run(tmp_path, source)


@linux
def test_native_threads_are_those_asked_for(tmp_path: Path) -> None:
    source = """
from raskrank import planning
planning.SPREAD_MIN_WORK = 0  # nano alone is too small to be spread
imported = native_threads()
reranker = Reranker.load(threads=3)
loaded = native_threads()
assert loaded - imported <= 1, (imported, loaded)  # the tokenizer's
reranker.score("by", ["en by"] * 100)
assert native_threads() - loaded == 3, (loaded, native_threads())
for helpers in (0, 2, 2):  # of onnxruntime: from the second run on that is to be spread
    reranker.score("by", [long])
    assert native_threads() - loaded == 3 + helpers
reranker.close()
assert native_threads() == loaded, (loaded, native_threads())
"""
    run(tmp_path, source, env={"RAYON_NUM_THREADS": "1"})


@linux
def test_one_thread_starts_one_worker(tmp_path: Path) -> None:
    source = """
reranker = Reranker.load(threads=1)
loaded = native_threads()
reranker.score("by", ["en by", long])
reranker.score("by", [long])
assert native_threads() - loaded == 1, (loaded, native_threads())
"""
    run(tmp_path, source)


# As root no limit on threads binds: another real user without that right, who may still read every file.
FEW = """
import ctypes, hashlib
from raskrank import onnx_backend, planning

onnx_backend.SPREAD_ALONE = planning.SPREAD_MIN_WORK = 0
if os.getuid() == 0:
    os.setresuid(61234, 0, 0)
    read_all = 1 << 1 | 1 << 2
    assert ctypes.CDLL(None).capset((ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)(read_all, read_all)) == 0

def threads_of_user():
    count = 0
    for entry in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{entry}/status") as file:
                fields = dict(line.split(":", 1) for line in file)
        except OSError:  # ended meanwhile
            continue
        if int(fields["Uid"].split()[0]) == os.getuid():
            count += int(fields["Threads"])
    return count

def spare(count):
    limit = threads_of_user() + count
    resource.setrlimit(resource.RLIMIT_NPROC, (limit, limit))
    gate, started = threading.Event(), []
    try:
        for _ in range(count + 1):
            thread = threading.Thread(target=gate.wait)
            thread.start()
            started.append(thread)
    except RuntimeError:
        assert len(started) == count
    else:
        print("not limited")
        sys.exit()
    finally:
        gate.set()
        for thread in started:
            thread.join()
"""


@linux
@pytest.mark.parametrize("limited", ["load", "score"])
@pytest.mark.parametrize("count", [0, 1, 2, 3, 5])
def test_it_works_with_as_few_threads_as_the_system_allows(tmp_path: Path, limited: str, count: int) -> None:
    # Wanted are three threads for the tokenizer, four workers, and three for onnxruntime.
    source = """
documents = ["en by", "en lang natt ved sjøen", "en by i Norge"] * 400
if sys.argv[1] == "load":
    spare(int(sys.argv[2]))
reranker = Reranker.load(threads=4)
if sys.argv[1] == "score":
    spare(int(sys.argv[2]))
scores = [reranker.score("by", texts).tobytes() for texts in (documents, [long], [long])]
before = resident()
for _ in range(400):
    reranker.score("by", documents[:20])
assert resident() - before < 8 << 20, (resident() - before) / 2**20
reranker.close()
print(hashlib.sha256(b"".join(scores)).hexdigest())
"""

    def printed(*arguments: str) -> str:
        return run_script(tmp_path, PRELUDE + FEW + source, *arguments, env={"RAYON_NUM_THREADS": "3"}).stdout

    few = printed(limited, str(count))
    if few == "not limited\n":
        pytest.skip("the number of threads cannot be limited here")
    assert few == printed("nothing is limited")


def test_threads_are_bounded() -> None:
    with pytest.raises(InputError, match="threads: expected at most 1024, got 100000"):
        Reranker.load(threads=100_000)


def test_a_variable_says_how_many_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.setenv("RASKRANK_THREADS", "5")
    with Reranker.load() as reranker:
        assert (reranker.info().threads, reranker.info().threads_reason) == (5, "the environment variable RASKRANK_THREADS")
    with Reranker.load(threads=3) as reranker:
        assert (reranker.info().threads, reranker.info().threads_reason) == (3, "as asked for")
    monkeypatch.setenv("RASKRANK_THREADS", "")
    with Reranker.load() as reranker:
        assert reranker.info().threads == cpu.usable_cpus()


@pytest.mark.parametrize("value", ["0", "-1", "1.5", "many", "1025", "9" * 5000])
def test_a_variable_that_is_no_number_of_threads_is_named(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("RASKRANK_THREADS", value)
    with pytest.raises(InputError, match=r"^RASKRANK_THREADS: expected") as caught:
        Reranker.load()
    assert len(str(caught.value)) < 150


# Stacks


@linux
def test_a_thread_with_a_small_stack_is_refused_and_ours_are_large_enough(tmp_path: Path) -> None:
    source = """
def in_thread(work, kib):
    errors = []

    def run():
        try:
            work()
        except InferenceError as error:
            errors.append(str(error))

    threading.stack_size(kib << 10)
    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    return errors

for kib in (64, 256):
    (error,) = in_thread(lambda: Reranker.load(threads=2), kib)
    assert f"a stack of {kib} KiB, and 512 KiB are needed" in error, error
threading.stack_size(64 << 10)
reranker = Reranker.load(threads=2)  # this thread has stack enough, and those that it starts need it
texts = ["en by"] * 1200 + [long] * 20
expected = reranker.score("by", texts).tobytes()
for _ in range(2):
    reranker.score("by", [long])
assert threading.stack_size() == 64 << 10
assert len(in_thread(lambda: reranker.score("by", texts), 64)) == 1
scores = []
assert in_thread(lambda: scores.append(reranker.score("by", texts).tobytes()), 512) == []
assert scores == [expected]
"""
    run(tmp_path, source)


def test_idle_threads_do_not_spin(tmp_path: Path) -> None:
    source = """
reranker = Reranker.load(threads=4)
reranker.score("by", ["en by"] * 100)
reranker.score("by", [long])
before = time.process_time()
time.sleep(1)
assert time.process_time() - before < 0.1, time.process_time() - before
"""
    run(tmp_path, source)


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
@pytest.mark.parametrize("threads", [2, 6])
@pytest.mark.parametrize("limited", ["load", "first call", "later call"])
def test_too_little_memory_is_an_error_and_never_ends_the_process(tmp_path: Path, limited: str, threads: int) -> None:
    source = """
def leave(mib):
    with open("/proc/self/statm") as file:
        size = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + (mib << 20),) * 2)

texts, limited, mib = ["en by ved sjøen"] * 1000 + [long] * 20, sys.argv[1], int(sys.argv[2])
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
    outcomes = [run(tmp_path, source, limited, str(mib), str(threads)) for mib in (1, 15, 30, 60, 120, 240, 360, 480, 4000)]
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
    assert "onnxruntime failed on a run of 200 x 512 tokens" in printed
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
