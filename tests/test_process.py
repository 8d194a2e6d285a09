"""Forks, signals and exits: each in a process of its own, which must end in time, as expected and without a word."""

import os
from pathlib import Path

import pytest

from backends import BACKEND, BOTH
from paths import NANO_CHECKPOINT
from processes import run_script

pytestmark = [pytest.mark.skipif(not hasattr(os, "fork"), reason="needs POSIX processes"), BOTH]

# Short texts for the tokenizer's threads and every worker; a long one alone is spread over the cores; many are two chunks.
PRELUDE = (
    BACKEND
    + """import atexit, gc, multiprocessing, os, signal, sys, threading, time
from concurrent.futures import ProcessPoolExecutor
import raskrank
from raskrank import ClosedError, ForkError, InferenceError, RaskrankError, Reranker, onnx_backend
from raskrank.native_backend import NativeBackend
from raskrank.onnx_backend import OnnxBackend
from raskrank.process import rayon

# The threads that no child has are made at once.
onnx_backend.SPREAD_ALONE, OnnxBackend.min_share, NativeBackend.min_share = 0, 1, 1
documents = [f"Søknad {number} fra en by" for number in range(40)]
many = [f"{part} {document}" for part in range(13) for document in documents]
long = ["en lang tekst om en by ved sjøen " * 60]

def scores(reranker):
    return reranker.score("by", documents).tobytes() + reranker.score("by", long).tobytes()

def refused(call, error):
    try:
        call()
    except error:
        return True
    return False

def exit_code(pid):
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

def unusable(reranker, error):
    return all((
        refused(lambda: reranker.score("by", documents), error),
        refused(lambda: reranker.rank("by", []), error),
        refused(lambda: reranker.score_pairs([("by", "sjø")]), error),
        refused(lambda: reranker.verify([("by", "sjø")]), error),
    ))

def in_thread(work, daemon=False):
    thread = threading.Thread(target=work, daemon=daemon)
    thread.start()
    return thread
"""
)


def run(folder: Path, source: str, *arguments: str, code: int = 0, env: dict[str, str] | None = None) -> str:
    return run_script(folder, PRELUDE + source, *arguments, code=code, env=env).stdout


@pytest.mark.parametrize(("used", "parallelism"), [("loaded", None), ("scored", None), ("scored", "true")])
def test_a_forked_child_is_refused_and_loads_its_own(tmp_path: Path, used: str, parallelism: str | None) -> None:
    source = """
reranker = Reranker.load(threads=2)
if sys.argv[1] == "scored":
    scores(reranker)
reader, writer = os.pipe()
pid = os.fork()
if pid == 0:
    assert unusable(reranker, ForkError)
    assert reranker.info().backend == (os.environ["BACKEND"] or "native")
    with Reranker.load(threads=2) as own, os.fdopen(writer, "wb") as pipe:
        pipe.write(scores(own))
    # Texts together: other threads run meanwhile. Forced on, the tokenizer's would be waited for, and they are gone.
    assert rayon.usable() == ("TOKENIZERS_PARALLELISM" not in os.environ)
    sys.exit(7)
os.close(writer)
with os.fdopen(reader, "rb") as pipe:
    of_child = pipe.read()
assert exit_code(pid) == 7
assert of_child == scores(reranker)
"""
    run(tmp_path, source, used, env=None if parallelism is None else {"TOKENIZERS_PARALLELISM": parallelism})


def test_a_child_may_drop_what_it_inherited(tmp_path: Path) -> None:
    # A session of several threads waits in its destructor for threads that a child does not have.
    source = """
def fork(work):
    pid = os.fork()
    if pid == 0:
        work()
        sys.exit(7)
    assert exit_code(pid) == 7

def drop():
    global reranker
    del reranker
    gc.collect()

def raise_in_with():
    try:
        with reranker:
            raise KeyError
    except KeyError:
        assert unusable(reranker, ForkError)

reranker = Reranker.load(threads=2)
before = scores(reranker)
fork(lambda: None)
fork(lambda: reranker.close())
fork(drop)
fork(raise_in_with)
assert scores(reranker) == before
"""
    run(tmp_path, source)


def test_a_grandchild_is_refused_too(tmp_path: Path) -> None:
    source = """
reranker = Reranker.load(threads=2)
if (child := os.fork()) == 0:
    own = Reranker.load(threads=1)
    own.score("by", documents)
    if (grandchild := os.fork()) == 0:
        assert unusable(reranker, ForkError) and unusable(own, ForkError)
        sys.exit(8)
    sys.exit(exit_code(grandchild) - 1)
assert exit_code(child) == 7
"""
    run(tmp_path, source)


def test_a_fork_while_another_thread_scores(tmp_path: Path) -> None:
    source = """
reranker = Reranker.load(threads=2)
stop = threading.Event()

def work():
    while not stop.is_set():
        reranker.score("by", documents)

thread = in_thread(work)
for _ in range(3):
    time.sleep(0.03)
    if (pid := os.fork()) == 0:
        assert unusable(reranker, ForkError)
        sys.exit(7)
    assert exit_code(pid) == 7
stop.set()
thread.join()
"""
    run(tmp_path, source)


def test_workers_of_a_preloading_server(tmp_path: Path) -> None:
    # As gunicorn --preload does: load and warm up in the parent, fork workers, end them by a signal or at the end.
    source = """
reranker = Reranker.load()
before = scores(reranker)
workers = []
for _ in range(3):
    if (pid := os.fork()) == 0:
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(9))
        assert refused(lambda: reranker.score("by", documents), ForkError)
        reranker = Reranker.load()
        assert scores(reranker) == before
        if len(workers) == 0:
            os.kill(os.getpid(), signal.SIGTERM)
        sys.exit(7)
    workers.append(pid)
assert [exit_code(pid) for pid in workers] == [9, 7, 7]
assert scores(reranker) == before
"""
    run(tmp_path, source)


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_multiprocessing(tmp_path: Path, method: str) -> None:
    source = """
def load_and_score():
    with Reranker.load(threads=1) as own:
        return scores(own)

if __name__ == "__main__":
    reranker = Reranker.load(threads=2)
    expected = scores(reranker)
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context(sys.argv[1])) as pool:
        pickled = pool.submit(scores, reranker)  # loads again where it arrives
        loaded = pool.submit(load_and_score)
        assert pickled.result() == loaded.result() == expected
    assert scores(reranker) == expected
"""
    run(tmp_path, source, method)


def test_multiprocessing_with_an_inherited_reranker(tmp_path: Path) -> None:
    source = """
reranker = Reranker.load(threads=2)
scores(reranker)

def work():
    sys.exit(7 if unusable(reranker, ForkError) else 1)

child = multiprocessing.get_context("fork").Process(target=work)
child.start()
child.join()
assert child.exitcode == 7
"""
    run(tmp_path, source)


@pytest.mark.parametrize("threads", [1, 2])
def test_an_interrupt_stops_a_call_after_the_runs_in_flight(tmp_path: Path, threads: int) -> None:
    source = """
reranker = Reranker.load(threads=int(sys.argv[1]))
before = scores(reranker)
texts = [f"{number} en by ved sjøen i Norge " * 8 for number in range(5000)]
start = time.monotonic()
reranker.score("by", texts[:500])
a_tenth = time.monotonic() - start
sent = []

def interrupt():
    time.sleep(0.1)
    sent.append(time.monotonic())
    os.kill(os.getpid(), signal.SIGINT)

thread = in_thread(interrupt)
assert refused(lambda: reranker.score("by", texts), KeyboardInterrupt)
took = time.monotonic() - sent[0]
assert took < 5 * a_tenth, (took, a_tenth)
thread.join()
busy = time.process_time()
time.sleep(0.3)
assert time.process_time() - busy < 0.1  # nothing of the call runs on
assert scores(reranker) == before
"""
    run(tmp_path, source, str(threads))


def test_an_interrupt_that_nobody_catches_ends_the_process(tmp_path: Path) -> None:
    source = """
reranker = Reranker.load(threads=2)
threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT)).start()
reranker.score("by", [f"{number} en by ved sjøen i Norge " * 8 for number in range(5000)])
"""
    finished = run_script(tmp_path, PRELUDE + source, code=-2, silent=False)
    assert finished.stderr.count("Traceback") == 1
    assert finished.stderr.rstrip().endswith("KeyboardInterrupt")


def test_close_in_a_signal_handler_does_not_wait_for_the_call_it_interrupts(tmp_path: Path) -> None:
    source = """
def stop(*_):
    reranker.close()
    sys.exit(5)

signal.signal(signal.SIGTERM, stop)
reranker = Reranker.load(threads=2)
threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGTERM)).start()
while True:  # until it interrupts one of these
    reranker.score("by", many)
"""
    run(tmp_path, source, code=5)


@pytest.mark.parametrize(
    "ending",
    [
        "sys.exit(0)",
        "reranker.close(); assert unusable(reranker, ClosedError)",
        "reranker.close(); Reranker.load().close()",
        "reranker.itself = reranker",
        "del reranker; gc.collect()",
        "with reranker: sys.exit(0)",
        "atexit.register(scores, reranker)",
        "atexit.register(reranker.close)",
    ],
)
def test_exit(tmp_path: Path, ending: str) -> None:
    run(tmp_path, f"reranker = Reranker.load(threads=2)\nscores(reranker)\n{ending}\n")


def test_exit_after_an_exception(tmp_path: Path) -> None:
    source = PRELUDE + "reranker = Reranker.load(threads=2)\nscores(reranker)\nreranker.score('by', ['a', None])\n"
    finished = run_script(tmp_path, source, code=1, silent=False)
    assert finished.stderr.count("Traceback") == 1
    assert finished.stderr.rstrip().endswith("document 1: expected str, got NoneType")


@pytest.mark.parametrize("texts", ["many", "[f'{number} {long[0]}' for number in range(20)]"], ids=["many", "long"])
def test_exit_while_a_daemon_thread_scores(tmp_path: Path, texts: str) -> None:
    # Python ends such a thread where it comes back from native code, which aborts the process unless it is kept from there.
    source = f"""
reranker = Reranker.load(threads=2)

def work():
    try:
        while True:
            reranker.score("by", {texts})
    except ClosedError:
        pass

in_thread(work, daemon=True)
time.sleep(0.2)
"""
    run(tmp_path, source)


@pytest.mark.parametrize(("loads", "moments"), [("one", (0, 5, 12, 20, 30)), ("many", (2, 8, 16, 25, 40))], ids=["one", "many"])
def test_exit_while_a_daemon_thread_loads(tmp_path: Path, loads: str, moments: tuple[int, ...]) -> None:
    source = """
def work():
    try:
        Reranker.load(threads=2)
        while sys.argv[2] == "many":
            Reranker.load(threads=2)
    except ClosedError as error:
        assert "exiting" in str(error)

in_thread(work, daemon=True)
time.sleep(float(sys.argv[1]))
"""
    for hundredths in moments:
        run(tmp_path, source, str(hundredths / 100), loads)


def test_once_python_exits_calls_and_loads_are_refused(tmp_path: Path) -> None:
    source = """
reranker = Reranker.load(threads=2)
scores(reranker)
atexit.unregister(raskrank.running._end)
atexit.register(lambda: print(unusable(reranker, ClosedError), refused(Reranker.load, ClosedError)))
atexit.register(raskrank.running._end)  # the last to be registered is the first to run
"""
    assert run(tmp_path, source) == "True True\n"


@pytest.mark.parametrize("value", ["true", "1"])
def test_a_child_loads_though_its_parent_forced_the_tokenizers_threads_on_before_the_fork(tmp_path: Path, value: str) -> None:
    # Raskrank is imported in the child alone, so that it cannot hear of the fork; the threads of the parent's pool are gone.
    source = """
import os, sys
from tokenizers import Tokenizer
from tokenizers.models import WordLevel

Tokenizer(WordLevel({"a": 0}, unk_token="a")).encode_batch(["a"] * 50)
reader, writer = os.pipe()
if (pid := os.fork()) == 0:
    from raskrank import Reranker
    with Reranker.load(threads=2) as reranker, os.fdopen(writer, "wb") as pipe:
        pipe.write(reranker.score("by", ["en by"] * 600).tobytes())
    sys.exit(7)
os.close(writer)
with os.fdopen(reader, "rb") as pipe:
    of_child = pipe.read()
assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
from raskrank import Reranker
assert of_child == Reranker.load(threads=2).score("by", ["en by"] * 600).tobytes()
"""
    run_script(tmp_path, source, env={"TOKENIZERS_PARALLELISM": value})


def test_a_forked_child_where_transformers_would_wait_for_dead_threads_says_so(tmp_path: Path) -> None:
    source = """
import os, sys
from raskrank import InferenceError, Reranker

checkpoint = sys.argv[1]
Reranker.load().score("by", ["en by"] * 600)
if (pid := os.fork()) == 0:
    try:
        Reranker.load(checkpoint=checkpoint).verify()
    except InferenceError as error:
        assert "TOKENIZERS_PARALLELISM=true makes tokenizers wait for threads" in str(error), error
        sys.exit(7)
assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
"""
    # It imports PyTorch, which takes long beside other tests.
    run_script(tmp_path, source, str(NANO_CHECKPOINT), env={"TOKENIZERS_PARALLELISM": "true"}, deadline=120)


def test_a_thread_that_outlives_the_main_thread_scores_to_the_end(tmp_path: Path) -> None:
    # Python refuses work for thread pools from then on; the calling thread does it.
    source = """
reranker = Reranker.load(threads=2)
expected, of_many = reranker.score("by", documents).tobytes(), reranker.score("by", many).tobytes()
started = threading.Event()

def work():
    started.set()
    threading.main_thread().join()
    assert reranker.score("by", many).tobytes() == of_many
    with Reranker.load() as other:
        assert other.score("by", documents).tobytes() == expected
    print("done")

in_thread(work)
started.wait()
"""
    assert run(tmp_path, source) == "done\n"
