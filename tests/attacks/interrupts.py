"""KeyboardInterrupt at random moments of short calls: afterwards the engine works, closes and exits.

python tests/attacks/interrupts.py --seconds 600
"""

import argparse
import random
import signal
import threading
import time

from raskrank import Reranker

DOCUMENTS = ["Søknad fra en by", "en båt ved sjøen", "Python og SQL"]
# Seconds from the start of a call to the interrupt: within it, after it, and now and then a second one on its heels.
LONGEST, AGAIN = 0.004, 0.2


def storm(seconds: float, seed: int, threads: int) -> tuple[int, int]:
    """(calls begun, interrupts that came). Fails on any other exception, and on scores that differ."""
    seeded = random.Random(seed)
    reranker = Reranker.load(threads=threads)
    expected = reranker.score("by", DOCUMENTS).tobytes()
    calls = interrupts = 0
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        calls += 1
        try:
            again = 0.0002 if seeded.random() < AGAIN else 0
            signal.setitimer(signal.ITIMER_REAL, seeded.uniform(1e-5, LONGEST), again)
            while True:
                assert reranker.score("by", DOCUMENTS).tobytes() == expected
        except KeyboardInterrupt:
            interrupts += 1
        # The storm's own code may be hit as well, as a user's would.
        while True:
            try:
                signal.setitimer(signal.ITIMER_REAL, 0)
                break
            except KeyboardInterrupt:
                interrupts += 1
    assert reranker.score("by", DOCUMENTS).tobytes() == expected
    closing = threading.Thread(target=reranker.close)
    closing.start()
    closing.join(20)
    assert not closing.is_alive(), "close() in another thread waits for a call that is over"
    return calls, interrupts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    signal.signal(signal.SIGALRM, signal.default_int_handler)
    calls, interrupts = storm(arguments.seconds, arguments.seed, arguments.threads)
    print(f"{interrupts} interrupts over {calls} rounds of calls with {arguments.threads} threads: works, closes, exits")


if __name__ == "__main__":
    main()
