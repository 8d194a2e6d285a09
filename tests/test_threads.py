"""How many threads the engine takes, how few it needs, and their stacks. Each in a process of its own."""

import os
from pathlib import Path

import pytest

from backends import BOTH
from measured import PRELUDE, linux, run
from processes import run_script
from raskrank import InputError, Reranker, cpu
from raskrank.options import BackendName

pytestmark = BOTH

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
from raskrank.native_backend import NativeBackend
from raskrank.onnx_backend import OnnxBackend
OnnxBackend.min_share = NativeBackend.min_share = 1  # nano alone is too small to be spread
imported = native_threads()
reranker = Reranker.load(threads=3)
loaded = native_threads()
assert loaded - imported <= 1, (imported, loaded)  # the tokenizer's
reranker.score("by", [f"en by {number}" for number in range(100)])
assert native_threads() - loaded == 3, (loaded, native_threads())
first = 0 if reranker.info().backend == "onnx" else 2
for helpers in (first, 2, 2):  # of onnxruntime: from the second run on that is to be spread
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
from raskrank import onnx_backend
from raskrank.native_backend import NativeBackend
from raskrank.onnx_backend import OnnxBackend

onnx_backend.SPREAD_ALONE, OnnxBackend.min_share, NativeBackend.min_share = 0, 1, 1
if os.getuid() == 0:
    os.setresuid(20_000 + os.getpid() % 40_000, 0, 0)  # one that no other test has
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

def startable(most):
    gate, started = threading.Event(), []
    try:
        for _ in range(most):
            thread = threading.Thread(target=gate.wait)
            thread.start()
            started.append(thread)
    except RuntimeError:
        pass
    finally:
        gate.set()
        for thread in started:
            thread.join()
    return len(started)

def spare(count):
    hard = resource.getrlimit(resource.RLIMIT_NPROC)[1]
    for _ in range(10):
        resource.setrlimit(resource.RLIMIT_NPROC, (threads_of_user() + count, hard))
        if startable(count + 1) == count:
            return
        time.sleep(0.1)  # one ended while they were counted
    print("not limited")
    sys.exit()
"""


# Wanted are three threads for the tokenizer, four workers, and three for onnxruntime.
SCORES = """
documents = [f"{start} {number}" for number in range(400) for start in ("en by", "en lang natt ved sjøen", "en by i Norge")]
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


def printed(folder: Path, *arguments: str) -> str:
    return run_script(folder, PRELUDE + FEW + SCORES, *arguments, env={"RAYON_NUM_THREADS": "3"}).stdout


@pytest.fixture(scope="module")
def unlimited(bundle_backend: BackendName | None, tmp_path_factory: pytest.TempPathFactory) -> str:
    return printed(tmp_path_factory.mktemp("unlimited"), "nothing is limited")


@linux
@pytest.mark.parametrize("limited", ["load", "score"])
@pytest.mark.parametrize("count", [0, 1, 2, 3, 5])
def test_it_works_with_as_few_threads_as_the_system_allows(tmp_path: Path, limited: str, count: int, unlimited: str) -> None:
    few = printed(tmp_path, limited, str(count))
    if few == "not limited\n":
        pytest.skip("the number of threads cannot be limited here")
    assert few == unlimited


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
texts = [f"en by {number}" for number in range(1200)] + [f"{number} {long}" for number in range(20)]
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
reranker.score("by", [f"en by {number}" for number in range(100)])
reranker.score("by", [long])
before = time.process_time()
time.sleep(1)
assert time.process_time() - before < 0.1, time.process_time() - before
"""
    run(tmp_path, source)
