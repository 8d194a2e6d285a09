"""Threads of our own: how many, started so that an interrupt does no harm, and with room on their stacks."""

import _thread
import ctypes
import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from queue import SimpleQueue
from typing import NamedTuple

from raskrank import cpu
from raskrank.errors import InferenceError, InputError
from raskrank.texts import positive

ENVIRONMENT = "RASKRANK_THREADS"
# More than the largest servers have cores. Each thread is a promise of a stack to the system; 100,000 of them hang.
MAX_THREADS = 1024
# Bytes. Loading and scoring took between 64 and 96 KiB in trials, and a stack that is too small ends the process.
STACK = 512 * 1024

_starting = threading.Lock()
_checked = threading.local()


class Count(NamedTuple):
    """A number of threads, and where it is from."""

    number: int
    reason: str


def choose(argument: int | None) -> Count:
    """The argument; else RASKRANK_THREADS, unless empty; else the usable CPUs. Raises InputError."""
    if argument is not None:
        return Count(check(argument, "threads"), "as asked for")
    if text := os.environ.get(ENVIRONMENT):
        try:
            number = int(text)
        except ValueError:
            raise InputError(f"{ENVIRONMENT}: expected a whole number from 1 to {MAX_THREADS}, got {text[:40]!r}") from None
        return Count(check(number, ENVIRONMENT), f"the environment variable {ENVIRONMENT}")
    return Count(min(cpu.usable_cpus(), MAX_THREADS), "CPUs that affinity and cgroup quota allow")


def check(value: object, name: str) -> int:
    """`value` as a number of threads, or InputError."""
    number = positive(value, name)
    if number > MAX_THREADS:
        raise InputError(f"{name}: expected at most {MAX_THREADS}, got {number}")
    return number


def start(
    target: Callable[[], object], count: int, name: str, *, daemon: bool, pool: list[threading.Thread] | None = None
) -> list[threading.Thread]:
    """The `pool`, by default an empty one, filled up to `count` with threads of this target, or to what the system allows.

    Thread.start waits on a condition, which an interrupt can leave locked, so that thread and exit hang. No signal interrupts
    a thread that is not the main one: such a one starts the others.
    """
    threads = [] if pool is None else pool
    ready: SimpleQueue[None] = SimpleQueue()

    def found() -> None:
        try:
            _fill(threads, target, count, name, daemon=daemon)
        except (RuntimeError, MemoryError):
            pass  # the system has no more threads, or no memory for one, or Python is exiting
        finally:
            ready.put(None)

    try:
        _thread.start_new_thread(found, ())
    except (RuntimeError, MemoryError):
        return threads
    ready.get()
    return threads


def _fill(pool: list[threading.Thread], target: Callable[[], object], count: int, name: str, *, daemon: bool) -> None:
    with _starting:  # the size of stacks is one for the process, and callers may share a pool
        size = threading.stack_size()
        if 0 < size < STACK:
            threading.stack_size(STACK)
        try:
            while len(pool) < count:
                thread = threading.Thread(target=target, name=f"{name}_{len(pool)}", daemon=daemon)
                thread.start()
                pool.append(thread)
        finally:
            threading.stack_size(size)


def can_start(count: int) -> bool:
    """Whether so many threads more can be made now. Tried out, since many limits may apply; then they are gone again."""
    gate = threading.Lock()
    with gate:
        started = start(lambda: _pass(gate), count, "raskrank-probe", daemon=True)
    for thread in started:
        thread.join()
        _wait_for_the_system(thread)
    return len(started) == count


def _pass(gate: threading.Lock) -> None:
    with gate:
        pass


def _wait_for_the_system(thread: threading.Thread) -> None:
    """For Python a thread has ended a little before it no longer counts."""
    deadline = time.monotonic() + 1
    while Path(f"/proc/self/task/{thread.native_id}").exists() and time.monotonic() < deadline:
        time.sleep(0.0002)


def check_stack() -> None:
    """Raises InferenceError in a thread whose stack is so small that native code would overrun it."""
    try:
        size: int | None = _checked.size
    except AttributeError:
        size = _checked.size = _stack_size()
    if size is not None and size < STACK:
        raise InferenceError(
            f"this thread has a stack of {size // 1024} KiB, and {STACK // 1024} KiB are needed: start the thread after "
            f"threading.stack_size({STACK}) or more, or call from another one"
        )


def _stack_size() -> int | None:
    """Bytes of this thread's stack; None where the system does not say."""
    if sys.platform != "linux":
        return None
    libc = ctypes.CDLL(None)
    attributes = (ctypes.c_char * 256)()  # pthread_attr_t has 56 bytes
    base, size = ctypes.c_void_p(), ctypes.c_size_t()
    try:
        libc.pthread_self.restype = ctypes.c_void_p
        if libc.pthread_getattr_np(ctypes.c_void_p(libc.pthread_self()), attributes):
            return None
        libc.pthread_attr_getstack(attributes, ctypes.byref(base), ctypes.byref(size))
        libc.pthread_attr_destroy(attributes)
    except AttributeError:
        return None
    return size.value
