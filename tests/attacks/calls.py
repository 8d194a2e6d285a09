"""Thousands of calls and of loads: memory, threads and open files stay as they are.

python tests/attacks/calls.py [--count N] [--loads N] [--seed S]

The first of each warm up. Exits with 1 if more is held after the last than after those.
"""

import argparse
import ctypes
import gc
import random
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from raskrank import InputError, Reranker

# The runtime takes a step of 4 MB when many short runs come together for the first time; then it is flat. A leak of 0.5 kB a
# call makes 10 MB of 20,000, one of 20 kB a load as much of 500.
FLAT_BYTES = 8 << 20
# Where only resident memory is known: what the allocator keeps for itself goes up and down by tens of megabytes.
FLAT_RESIDENT_BYTES = 64 << 20
WARM_CALLS, WARM_LOADS = 200, 50
WORDS = ["Python", "sykepleier", "nattvakt", "i", "Tromsø", "og", "båt", "🙂", "erfaring", "日本", "\t", "night-shift", "x" * 9]
MOST_DOCUMENTS, MOST_WORDS = 8, 60
LONG = " ".join(WORDS) * 20  # alone, its run is shared by threads that the kernels start for the first such run


class Held(NamedTuple):
    """What the process holds."""

    used: int | None  # bytes that malloc has given and not got back; None where it does not say
    resident: int  # bytes, of which the allocator keeps many for later
    threads: int  # of the system, the runtime's too
    files: int


class Mallinfo(ctypes.Structure):
    """glibc's struct mallinfo2."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in ("arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost")
    ]


def used_bytes() -> int | None:
    """In all heaps, and in blocks that were mapped for themselves. glibc 2.33 and later says."""
    try:
        mallinfo2 = ctypes.CDLL(None).mallinfo2
    except AttributeError:
        return None
    mallinfo2.restype = Mallinfo
    found = mallinfo2()
    return int(found.uordblks + found.hblkhd)


def held() -> Held:
    gc.collect()
    time.sleep(0.2)  # a thread that has ended counts for a moment longer
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text("utf-8").splitlines())
    resident = int(status["VmRSS"].split()[0]) * 1024
    return Held(used_bytes(), resident, int(status["Threads"]), sum(1 for _ in Path("/proc/self/fd").iterdir()))


def repeated(action: Callable[[], object], count: int, warm: int) -> tuple[Held, Held, float]:
    """What is held after `warm` times, and after `count` more; and seconds a time."""
    for _ in range(warm):
        action()
    before, start = held(), time.perf_counter()
    for _ in range(count):
        action()
    return before, held(), (time.perf_counter() - start) / count


def call(reranker: Reranker, dice: random.Random) -> None:
    """One call as a service makes them: mostly rankings, some of nothing, of many, or with a mistake."""
    documents = [" ".join(dice.choices(WORDS, k=dice.randrange(MOST_WORDS))) for _ in range(dice.randrange(MOST_DOCUMENTS))]
    query = " ".join(dice.choices(WORDS, k=3))
    match dice.randrange(8):
        case 0:
            reranker.score(query, documents)
        case 1:
            reranker.score_pairs([(query, document) for document in documents])
        case 2:
            try:
                reranker.rank(query, [*documents, 3])  # type: ignore[list-item]
            except InputError:
                return
            raise AssertionError("a document that is a number was taken")
        case _:
            assert len(reranker.rank(query, documents)) == len(documents)


def load(dice: random.Random) -> None:
    """A load, scores from two threads and of a run that threads share, and the end of it: closed or only dropped."""
    reranker = Reranker.load(threads=2)
    threads = [threading.Thread(target=reranker.score, args=("by", ["båt", "Python og SQL"])) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    reranker.score("by", [LONG])
    if dice.random() < 0.5:
        reranker.close()


def report(what: str, count: int, outcome: tuple[Held, Held, float]) -> bool:
    before, after, seconds = outcome
    use = ""
    flat = after.resident - before.resident < FLAT_RESIDENT_BYTES
    if before.used is not None and after.used is not None:
        use = f"in use {before.used / 1e6:.2f} to {after.used / 1e6:.2f} MB, "
        flat = after.used - before.used < FLAT_BYTES
    resident = f"resident {before.resident / 1e6:.1f} to {after.resident / 1e6:.1f} MB"
    others = f"threads {before.threads} to {after.threads}, open files {before.files} to {after.files}"
    print(f"{count:,} {what}, {seconds * 1e3:.1f} ms each: {use}{resident}, {others}")
    return flat and after.threads <= before.threads and after.files <= before.files


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--count", type=int, default=2000, help="calls (default: 2000)")
    parser.add_argument("--loads", type=int, default=90, help="loads (default: 90)")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    dice = random.Random(arguments.seed)
    with Reranker.load(threads=2) as reranker:
        reranker.score("by", [LONG])
        flat = report("calls", arguments.count, repeated(lambda: call(reranker, dice), arguments.count, WARM_CALLS))
    flat &= report("loads", arguments.loads, repeated(lambda: load(dice), arguments.loads, WARM_LOADS))
    print("flat" if flat else "NOT flat: memory, threads or files were kept")
    return 0 if flat else 1


if __name__ == "__main__":
    sys.exit(main())
