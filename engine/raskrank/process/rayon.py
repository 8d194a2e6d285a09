"""The thread pool of tokenizers: whether this process can use it. Where not, texts are tokenized one after another."""

import os
from queue import Empty, SimpleQueue

from tokenizers import Tokenizer
from tokenizers.models import WordLevel

from raskrank.errors import InferenceError
from raskrank.process import threads
from raskrank.process.fork import after_fork, forked

PARALLELISM = "TOKENIZERS_PARALLELISM"
# What tokenizers takes for "no"; anything else forces its threads on, also where it would know better.
OFF = ("", "off", "false", "f", "no", "n", "0")
# Seconds in which a pool whose threads exist answers, also on a busy machine.
DEADLINE = 2.0

_usable: bool | None = None  # once that is settled, for this process


def _forget() -> None:
    global _usable
    _usable = None


after_fork(_forget)


def usable() -> bool:
    """Whether texts may be given to it together, which also lets other Python threads run. It is made when first used.

    It does not survive a fork: a child of a process that has used it does without, and one of another makes its own. But where
    the user has forced it on it waits for dead threads. Where its threads cannot be made it panics, and prints that.
    """
    global _usable
    forced = os.environ.get(PARALLELISM)
    if forced is not None and forced.lower() in OFF:
        return True  # it makes no thread
    if forced is not None and forked():
        return False
    if _usable is None and threads.can_start(_size()):
        _usable = forced is None or _answers()
    return bool(_usable)


def refuse_dead_threads() -> None:
    """For code that leaves no choice: raises InferenceError where tokenizers would wait for threads that a fork has ended."""
    forced = os.environ.get(PARALLELISM)
    if forced is not None and forced.lower() not in OFF and not usable():
        raise InferenceError(
            f"{PARALLELISM}={forced[:20]} makes tokenizers wait for threads that ended when this process was forked: set it to "
            "false, or leave it out"
        )


def _size() -> int:
    """How many threads it has, or more."""
    try:
        asked = int(os.environ.get("RAYON_NUM_THREADS", "0"))
    except ValueError:
        asked = 0
    return asked if asked > 0 else len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _answers() -> bool:
    """Whether it does anything in this process, which may have been forked before Raskrank was imported."""
    done: SimpleQueue[None] = SimpleQueue()
    tokenizer = Tokenizer(WordLevel({"a": 0}, unk_token="a"))

    def ask() -> None:
        tokenizer.encode_batch(["a", "a"])
        done.put(None)

    threads.start(ask, 1, "raskrank-probe", daemon=True)
    try:
        done.get(timeout=DEADLINE)
    except Empty:
        return False  # that thread waits for ever; nothing waits for it
    return True
