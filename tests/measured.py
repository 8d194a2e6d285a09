"""Scripts that measure what their process takes from the machine."""

import sys
from pathlib import Path

import pytest

from backends import BACKEND
from processes import run_script

linux = pytest.mark.skipif(sys.platform != "linux", reason="needs Linux's /proc")
PRELUDE = (
    BACKEND
    + """
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
)


def run(folder: Path, source: str, *arguments: str, env: dict[str, str] | None = None, deadline: float = 40) -> str:
    return run_script(folder, PRELUDE + source, *arguments, env=env, deadline=deadline).stdout
