"""KeyboardInterrupt at any moment of a call: afterwards the engine works, closes and exits.

python tests/attacks/interrupts.py --seconds 600
"""

import argparse
import os
import random
import signal
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

from raskrank import Reranker, scoring

DOCUMENTS = ["Søknad fra en by", "en båt ved sjøen", "Python og SQL"]
ENGINE = f"{Path(scoring.__file__).parent}{os.sep}"
# What an attack at each step must have gone through: here calls are counted, and threads started and waited for.
DELICATE = {"running.py", "scoring.py", "session.py", "beside.py", "calls.py", "line.py", "threads.py", "work.py"}
# Seconds from the start of a call to the interrupt: within it, or a few calls later.
LONGEST = 0.004
# How often interrupts go on, this many seconds apart, so that one comes while another is dealt with.
OFTEN, APART = 0.2, 0.0002
DEADLINE = 20  # seconds in which a thread that waits for nothing ends

Call = Callable[[Reranker], object]  # what is interrupted; its result is the same every time


def score(engine: Reranker) -> object:
    return engine.score("by", DOCUMENTS).tobytes()


def rank_in_time(engine: Reranker) -> object:
    return engine.rank("by", DOCUMENTS, deadline=3600)


def storm(load: Callable[[], Reranker], call: Call, seconds: float, seed: int) -> int:
    """Interrupts by a timer, at random moments; how many came. Any other exception, or another score, is a failure."""
    seeded, interrupts, storming = random.Random(seed), 0, False

    def interrupt(*_: object) -> None:
        if storming:
            raise KeyboardInterrupt

    signal.signal(signal.SIGALRM, interrupt)
    engine = load()
    expected = call(engine)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            storming = True
            signal.setitimer(signal.ITIMER_REAL, seeded.uniform(1e-5, LONGEST), APART if seeded.random() < OFTEN else 0)
            while True:
                assert call(engine) == expected
        except KeyboardInterrupt:
            storming = False
            interrupts += 1
    signal.setitimer(signal.ITIMER_REAL, 0)
    still_works(engine, call, expected)
    return interrupts


def every_step(load: Callable[[], Reranker], call: Call, opcodes: bool, stride: int = 1) -> int:
    """An interrupt at the first line, or opcode, of a call, `stride` after it, and so on to its end; how many there were.

    That is stricter than signals, which Python does not deal with at every opcode.
    """
    scoring.CHUNK_PAIRS = 2  # so that there are two chunks: the second is tokenized beside the first
    engine = load()
    expected, count, traced = call(engine), 0, set[str]()
    while _interrupted_at(count * stride, engine, call, opcodes, traced):
        count += 1
        assert call(engine) == expected
    assert traced >= DELICATE, DELICATE - traced
    still_works(engine, call, expected)
    return count


def still_works(engine: Reranker, call: Call, expected: object) -> None:
    assert call(engine) == expected
    closing = threading.Thread(target=engine.close, daemon=True)
    closing.start()
    closing.join(DEADLINE)
    assert not closing.is_alive(), "close() in another thread waits for a call that is over"


def _interrupted_at(step: int, engine: Reranker, call: Call, opcodes: bool, traced: set[str]) -> bool:
    """Whether a call has so many steps, so that it was interrupted. traced: gets the names of the modules that have them."""
    left = step

    def trace(frame: FrameType, event: str, argument: object) -> Any:
        nonlocal left
        if not frame.f_code.co_filename.startswith(ENGINE):
            return None
        traced.add(Path(frame.f_code.co_filename).name)
        frame.f_trace_opcodes = opcodes
        if event == ("opcode" if opcodes else "line"):
            left -= 1
            if left < 0:
                raise KeyboardInterrupt  # and Python traces no further
        return trace

    sys.settrace(trace)
    try:
        call(engine)
    except KeyboardInterrupt:
        return True
    finally:
        sys.settrace(None)
    return False


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--backend", choices=("native", "onnx"), help="default: as Reranker.load chooses")
    parser.add_argument("--deadline", action="store_true", help="of calls with a deadline")
    parser.add_argument("--steps", choices=("line", "opcode"), help="instead of by a timer, at each step of a call")
    parser.add_argument("--stride", type=int, default=1, help="at one of so many steps")
    arguments = parser.parse_args()
    load = partial(Reranker.load, threads=arguments.threads, backend=arguments.backend)
    call = rank_in_time if arguments.deadline else score
    count = (
        every_step(load, call, arguments.steps == "opcode", arguments.stride)
        if arguments.steps
        else storm(load, call, arguments.seconds, arguments.seed)
    )
    print(f"{count} interrupts of calls with {arguments.threads} threads: works, closes, exits")


if __name__ == "__main__":
    main()
